"""The run directory: what a run writes where, and how a run begins in it, resumes or replaces the one that was there.

config.json        the resolved recipe            metrics.jsonl   one line per step
environment.json   versions, hardware, data sums  rollouts.jsonl  one line per completion
judge.json         how well the judge sees        checkpoints/    resumable, Hugging Face format
cold_start/        policy after the cold start    final/          the trained policy
held_out.json      what is evaluated meanwhile    best/           the best policy on that
evaluations.jsonl  one line per evaluation

With `--overwrite` the run that was there lies in replaced/ until the new one has its first checkpoint.
"""

import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pydantic import ValidationError

from emor3.errors import UserError
from emor3.printing import say
from emor3.runs.changes import MAX_STEPS, Change, changes
from emor3.runs.recipe import Recipe, build_recipe
from emor3.runs.records import STEP, check_steps, environment_stamp, keep_steps, read_json, read_jsonl
from emor3.settings import describe_fault
from emor3.storage.locks import LOCK
from emor3.storage.outputs import DRAFT, write_json

CONFIG, ENVIRONMENT, METRICS, ROLLOUTS = "config.json", "environment.json", "metrics.jsonl", "rollouts.jsonl"
JUDGE = "judge.json"
START = "start.json"
"""What the start model could do: completions that keep the format, and that name a label of the set."""
CHECKPOINTS, COLD_START, FINAL, BEST = "checkpoints", "cold_start", "final", "best"
HELD_OUT, EVALUATIONS = "held_out.json", "evaluations.jsonl"
"""Which samples are evaluated during training, and what each evaluation found."""
BEST_OF = "best.json"
"""File in `best/` that tells its step and the value that it was chosen by."""
OF_STEPS = (METRICS, ROLLOUTS, EVALUATIONS)
"""Files of which each line belongs to a step, which a resumed run may do again."""
COMPLETE = "complete"
"""File that marks a checkpoint whose every part was written; one without it is left over from a killed run."""
DATA = "data"
"""What `environment.json` calls the checksums of the training data."""
REPLACED = "replaced"
"""What a new run replaces, until it has its first checkpoint."""
OURS = re.compile(r"checkpoint-[0-9]+")
MOST_SHOWN = 6
"""Changes of a resumed run that a refusal names."""


def is_run(folder: Path) -> bool:
    """Whether a folder is a run directory; a config.json alone is no proof, since a checkpoint holds one too."""
    return (folder / CONFIG).is_file() and (folder / ENVIRONMENT).is_file()


def run_of(path: Path) -> Path | None:
    """The run directory that a checkpoint is or lies in."""
    return next(filter(is_run, (path, path.parent, path.parent.parent)), None)


def check_run(recipe: Recipe, *, resume: bool, overwrite: bool, data: Sequence[str] | None = None) -> None:
    """Raise UserError if a recipe's folder holds what the flags do not allow to go on with or to replace.

    A resumed run may change what leaves learning as it is (emor3.runs.changes); `data` are the checksums of its
    training data as they are now. Nothing is written.
    """
    run = Path(recipe.output_dir)
    if not _occupied(run):
        return
    if resume:
        _harmless_changes(run, recipe, data)
        for name in OF_STEPS:
            check_steps(run / name)
    elif not overwrite:
        raise UserError(
            f"{run} already holds files: give --resume to go on, --overwrite to replace, or another --output"
        )
    elif not is_run(run) and not (run / REPLACED).is_dir():
        raise UserError(
            f"{run} does not look like a run (no {CONFIG} with {ENVIRONMENT}): remove it yourself or choose another "
            "folder"
        )


def begin_run(recipe: Recipe, *, resume: bool, last_step: int | None = None, data: Sequence[str] | None = None) -> Path:
    """Prepare the run directory, after everything that can fail: the run in it is resumed, or set aside.

    A resumed run drops what it did after `last_step` (None: nothing), and says and records what it changes.
    """
    run = Path(recipe.output_dir)
    run.mkdir(parents=True, exist_ok=True)
    if resume and _occupied(run):
        if changed := _harmless_changes(run, recipe, data):
            say(f"resumed with {', '.join(map(str, changed))}")
    elif _occupied(run):
        _set_aside(run)
    write_json(run / CONFIG, recipe.model_dump())
    write_json(run / ENVIRONMENT, environment_stamp() | {DATA: data})
    remove_incomplete(run)
    if last_step:
        shutil.rmtree(run / FINAL, ignore_errors=True)  # of a run that was shorter, or goes back: no longer its end
    if last_step is not None:
        for later in [folder for folder in complete_checkpoints(run) if checkpoint_step(folder) > last_step]:
            remove_checkpoint(later)
        for name in OF_STEPS:
            keep_steps(run / name, last_step)
    return run


def _occupied(run: Path) -> bool:
    """Whether a folder holds more than what a run leaves that was killed before it began."""
    if not run.is_dir():
        return False
    found = (path for path in run.iterdir() if path.suffix != DRAFT and path.name != LOCK)
    return any(not path.is_dir() or any(path.iterdir()) for path in found)


def _set_aside(run: Path) -> None:
    """Move a run into a folder of its own inside, which may be a link or the place where a disk is mounted.

    If the run is itself one that replaces another and got nowhere yet, it is removed, and the other stays aside. The
    recipe goes first into the folder aside and last when removed: so a kill in between is recognised.
    """
    aside, begun = run / REPLACED, (run / CONFIG).is_file()
    if begun and (latest_checkpoint(run) or (run / FINAL).is_dir()):
        drop_replaced(run)
    found = [path for path in run.iterdir() if path.name not in (LOCK, REPLACED)]
    found.sort(key=lambda path: path.name != CONFIG)
    if begun and aside.is_dir():
        for path in reversed(found):
            _remove(path)
        return
    aside.mkdir(exist_ok=True)
    say(f"{run}: the run that was there is kept in {aside} until the new one has its first checkpoint")
    for path in found:
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()
        else:
            path.rename(aside / path.name)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def drop_replaced(run: Path) -> None:
    """Remove the run that this one replaces, once this one has something to go on from."""
    shutil.rmtree(run / REPLACED, ignore_errors=True)


def _harmless_changes(run: Path, recipe: Recipe, data: Sequence[str] | None) -> list[Change]:
    """What a resumed run changes. Raises UserError if that would change what is learnt."""
    if not (run / CONFIG).is_file():
        raise UserError(f"nothing to resume in {run}: it has no {CONFIG}")
    found = _with_data(run, data, changes(read_json(run / CONFIG), recipe.model_dump()))
    if refused := [change for change in found if not change.harmless]:
        hint = " (it may grow under lr_scheduler_type constant)" if refused[-1].setting == MAX_STEPS else ""
        more = [f"{len(refused) - MOST_SHOWN} more"] if len(refused) > MOST_SHOWN else []
        shown = [*map(str, refused[:MOST_SHOWN]), *more]
        raise UserError(
            f"cannot resume {run} with {', '.join(shown)}{hint}: that would change what is learnt; use another --output"
        )
    return found


def _with_data(run: Path, now: Sequence[str] | None, found: list[Change]) -> list[Change]:
    """The changes, with data compared by its rows instead of its path if the run recorded their checksums."""
    before = read_json(run / ENVIRONMENT).get(DATA) if (run / ENVIRONMENT).is_file() else None
    if before is None or now is None:
        return found
    if before == now:
        return [replace(change, harmless=True) if change.setting == "data.train" else change for change in found]
    if any(change.setting == "data.train" for change in found):
        return found
    return [*found, Change("rows of data.train", f"SHA-256 {before}", f"SHA-256 {now}", harmless=False)]


def resumed_recipe(run: Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe of a run with overrides, in the folder that the run now lies in. Raises UserError as read_recipe."""
    content = read_recipe(run).model_dump() | {"output_dir": str(run)}
    return build_recipe(content, list(overrides), str(run / CONFIG))


def steps_recorded(run: Path) -> int:
    """The last step in a run's metrics. Raises UserError for an odd line."""
    path = run / METRICS
    return max((row.step for row in read_jsonl(path, STEP)), default=0) if path.is_file() else 0


def read_recipe(run: Path) -> Recipe:
    """The resolved recipe of a run. Raises UserError if it is broken or of a version with other settings."""
    try:
        return Recipe.model_validate(read_json(run / CONFIG))
    except ValidationError as error:
        raise UserError(
            f"{run / CONFIG} was written by another version of emor3 ({describe_fault(error, Recipe)}): copy "
            f"{run / FINAL} elsewhere to use it as a plain checkpoint"
        ) from None
    except UserError as error:
        raise UserError(f"{run / CONFIG}: {error}") from None


def checkpoints(run: Path) -> list[Path]:
    """Folders of a run's checkpoints, oldest first; what a person put beside them under other names is not touched."""
    named = (path for path in run.glob(f"{CHECKPOINTS}/checkpoint-*") if OURS.fullmatch(path.name))
    return sorted(named, key=checkpoint_step)


def complete_checkpoints(run: Path) -> list[Path]:
    """Checkpoints that were written whole, oldest first."""
    return [folder for folder in checkpoints(run) if (folder / COMPLETE).is_file()]


def latest_checkpoint(run: Path) -> Path | None:
    """The newest complete checkpoint."""
    return next(reversed(complete_checkpoints(run)), None)


def remove_incomplete(run: Path) -> None:
    """Remove what a killed run left of the checkpoint that it was writing."""
    for folder in checkpoints(run):
        if not (folder / COMPLETE).is_file():
            _remove(folder)


def remove_checkpoint(folder: Path) -> None:
    """Remove a complete checkpoint, its mark first: a kill in between leaves one that is known to be incomplete."""
    (folder / COMPLETE).unlink()
    _remove(folder)


def resume_hint(run: Path) -> str:
    """How to resume a run that ended too soon, on one line."""
    last = latest_checkpoint(run)
    place = "its start, for no step was saved yet" if last is None else f"step {checkpoint_step(last)} ({last})"
    way = f"`emor3 train` with the same recipe and --resume goes on from {place}"
    aside = run / REPLACED
    return f"{way}; the run that it replaces is still in {aside}" if last is None and aside.is_dir() else way


def checkpoint_step(folder: Path) -> int:
    """Optimizer steps behind a checkpoint, from its name. Raises UserError if the name holds none."""
    number = re.match(r"checkpoint-([0-9]+)", folder.name)
    if number is None:
        raise UserError(f"{folder}: give it a name as checkpoint-100 again, which tells the step")
    return int(number[1])
