"""EasyR1: `compute_score` for `worker.reward.reward_function`, on the whole batch of a step.

EasyR1 loads a file by its path: `emor3 data export --for easyr1` writes one that imports this. It hands a reward the
completion and the answer, so the packed row is the answer, with the paths of the images in it.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from emor3.hosts.scoring import Scorer, scorer
from emor3.method.rewards import failed_parts

REWARD_NAME = "emor3"
REWARD_TYPE = "batch"


@cache
def _scorer(settings: str | None) -> Scorer:
    return scorer(settings, whole_groups=True)


def compute_score(reward_inputs: Sequence[Mapping[str, Any]], settings: str | None = None) -> list[dict[str, float]]:
    """`overall` and the parts of N completions; `settings` is a file (`worker.reward.reward_function_kwargs`).

    What the judge fails on for one completion is left out for all of its prompt, and `judge_failed` is 1 for these.
    Raises UserError as `Scorer.score`.
    """
    scorer = _scorer(settings)
    rows = [given["ground_truth"] for given in reward_inputs]
    scored = scorer.score(rows, [given["response"] for given in reward_inputs])
    return [
        {
            "overall": one.reward.total,
            **{name: value for name, value in one.reward.parts.items() if value is not None},
            "judge_failed": float(bool(failed_parts(one.reward, scorer.settings.reward))),
        }
        for one in scored
    ]
