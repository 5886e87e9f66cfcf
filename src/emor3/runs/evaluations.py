"""What evaluation during training leaves in a run: which samples are held out, each evaluation's figures, the best one.

Written in the order best policy, line, checkpoint: so a run that is killed anywhere finds, when it goes on from a
checkpoint, all lines before it, and makes those after it again.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from emor3.errors import UserError
from emor3.heldout.samples import HeldOut
from emor3.runs.directory import BEST, BEST_OF, EVALUATIONS, FINAL, HELD_OUT, checkpoint_step, steps_recorded
from emor3.runs.predictions import checksum
from emor3.runs.records import MEASURED, Record, read_json, read_jsonl, typed
from emor3.stats.format import thousandths

SUM = "sample_ids_sha256"


def held_out_record(held_out: HeldOut) -> dict[str, Any]:
    """Content of `held_out.json`."""
    ids = [sample.id for sample in held_out.samples]
    where = {"data": held_out.data, "split": held_out.split}
    return {**where, "n": len(ids), "sample_ids": ids, SUM: checksum(ids)}


def check_same_samples(run: Path, record: Mapping[str, Any]) -> None:
    """Raise UserError if a run that is resumed was evaluated on other samples."""
    if (run / HELD_OUT).is_file() and read_json(run / HELD_OUT).get(SUM) != record[SUM]:
        raise UserError(
            f"cannot resume {run} with other held-out samples ({record['data']}): one curve is of one set; put the "
            "data back, or use another --output"
        )


def evaluations_of(run: Path) -> list[dict[str, float]]:
    """The evaluations of a run so far, one row each. Raises UserError for an odd line."""
    return list(read_jsonl(run / EVALUATIONS, MEASURED)) if (run / EVALUATIONS).is_file() else []


def is_best(figures: Mapping[str, float], before: Sequence[Mapping[str, float]], metric: str) -> bool:
    """Whether an evaluation is better than all before it; the earlier of two equal ones is the best."""
    return all(figures[metric] > row[metric] for row in before)


class BestPolicy(Record):
    """Content of `best.json`: the step of a run's best policy, and the value that it was chosen by."""

    step: int
    metric: str
    value: float
    n: int


def best_policy(run: Path) -> BestPolicy:
    """What `best/` of a run holds. Raises UserError if its record is missing or broken."""
    path = run / BEST / BEST_OF
    return typed(read_json(path), TypeAdapter(BestPolicy), str(path))


def policy_step(run: Path, policy: Path) -> int:
    """Optimizer steps behind the final policy of a run, its best one, or a checkpoint. Raises UserError for others."""
    if policy.name == FINAL:
        return steps_recorded(run)
    return best_policy(run).step if policy.name == BEST else checkpoint_step(policy)


def best_text(run: Path) -> str:
    """The best policy of a run in words, empty if none was kept. Raises UserError if its record is broken."""
    if not (run / BEST / BEST_OF).is_file():
        return ""
    best = best_policy(run)
    return f"best held-out {best.metric}: {thousandths(best.value)} at step {best.step} (n = {best.n})"
