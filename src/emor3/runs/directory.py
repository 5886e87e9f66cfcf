"""The run directory: what a run writes, in which form, and how a resumed run takes up its records.

config.json        the resolved recipe            metrics.jsonl   one line per step
environment.json   versions, hardware, data sums  rollouts.jsonl  one line per completion
judge.json         how well the judge sees        checkpoints/    resumable, Hugging Face format
cold_start/        policy after the cold start    final/          the trained policy

With `--overwrite` the run that was there lies in replaced/ until the new one has its first checkpoint.
"""

import json
import os
import platform
import re
import reprlib
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, TypeVar, overload

from pydantic import AfterValidator, BaseModel, ConfigDict, TypeAdapter, ValidationError

from emor3 import __version__
from emor3.errors import UserError
from emor3.method.types import Content, Finding, Rollout, Sample
from emor3.printing import say
from emor3.runs.changes import MAX_STEPS, Change, changes
from emor3.runs.recipe import Recipe, build_recipe
from emor3.settings import describe_fault
from emor3.storage.locks import LOCK
from emor3.storage.outputs import DRAFT, draft_of, write_json

CONFIG, ENVIRONMENT, METRICS, ROLLOUTS = "config.json", "environment.json", "metrics.jsonl", "rollouts.jsonl"
JUDGE = "judge.json"
START = "start.json"
"""What the start model could do: completions that keep the format, and that name a label of the set."""
CHECKPOINTS, COLD_START, FINAL = "checkpoints", "cold_start", "final"
COMPLETE = "complete"
"""File that marks a checkpoint whose every part was written; one without it is left over from a killed run."""
DATA = "data"
"""What `environment.json` calls the checksums of the training data."""
REPLACED = "replaced"
"""What a new run replaces, until it has its first checkpoint."""
OURS = re.compile(r"checkpoint-[0-9]+")
MOST_SHOWN = 6
"""Changes of a resumed run that a refusal names."""


def prepare_run(recipe: Recipe, *, resume: bool, overwrite: bool, data: Sequence[str] | None = None) -> Path:
    """The run directory, ready to be written to: `check_run`, then `begin_run`."""
    check_run(recipe, resume=resume, overwrite=overwrite, data=data)
    return begin_run(recipe, resume=resume, data=data)


def is_run(folder: Path) -> bool:
    """Whether a folder is a run: a checkpoint holds a config.json, too."""
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
        for name in (METRICS, ROLLOUTS):
            _check_steps(run / name)
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
    """Make the run directory ready once all that can fail was tried: what was there goes on, or is set aside.

    A resumed run drops what it did after `last_step` (None: nothing), and says and records what it changes.
    """
    run = Path(recipe.output_dir)
    run.mkdir(parents=True, exist_ok=True)
    if resume and _occupied(run):
        changed = _harmless_changes(run, recipe, data)
        if changed:
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
        for name in (METRICS, ROLLOUTS):
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
    recipe goes first into the folder aside and last when removed: so a kill in between can be told.
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
    refused = [change for change in found if not change.harmless]
    if refused:
        hint = " (it may grow under lr_scheduler_type constant)" if refused[-1].setting == MAX_STEPS else ""
        shown = [
            *map(str, refused[:MOST_SHOWN]),
            *([f"{len(refused) - MOST_SHOWN} more"] * (len(refused) > MOST_SHOWN)),
        ]
        raise UserError(
            f"cannot resume {run} with {', '.join(shown)}{hint}: that would change what is learnt; use another --output"
        )
    return found


def _with_data(run: Path, now: Sequence[str] | None, found: list[Change]) -> list[Change]:
    """The changes with data told by its rows, not by the path that leads there, where the run recorded its sums."""
    before = read_json(run / ENVIRONMENT).get(DATA) if (run / ENVIRONMENT).is_file() else None
    if before is None or now is None:
        return found
    if before == now:
        return [replace(change, harmless=True) if change.setting == "data.train" else change for change in found]
    if any(change.setting == "data.train" for change in found):
        return found
    return [*found, Change("rows of data.train", f"SHA-256 {before}", f"SHA-256 {now}", harmless=False)]


def resumed_recipe(run: Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe of a run, with overrides, to go on where the run now lies. Raises UserError as read_recipe."""
    content = read_recipe(run).model_dump() | {"output_dir": str(run)}
    return build_recipe(content, list(overrides), str(run / CONFIG))


def steps_recorded(run: Path) -> int:
    """The last step in a run's metrics. Raises UserError for an odd line."""
    path = run / METRICS
    return max((row.step for row in read_jsonl(path, STEP)), default=0) if path.is_file() else 0


class Row(BaseModel):
    """Fields of a record, each of the type that was written; other fields are left alone."""

    model_config = ConfigDict(strict=True, frozen=True)


class StepRow(Row):
    """What a resumed run needs of a line of `metrics.jsonl` and `rollouts.jsonl`."""

    step: int


class Environment(Row):
    """What a model card needs of `environment.json`."""

    emor3: str
    commit: str | None
    python: str
    packages: dict[str, str]


def _is_of_a_step(row: dict[str, float]) -> dict[str, float]:
    if "step" not in row or row["step"] != int(row["step"]):
        raise ValueError("a step is missing, or no whole number")
    return row


T = TypeVar("T")
OBJECT: TypeAdapter[dict[str, Any]] = TypeAdapter(dict)
STEP = TypeAdapter(StepRow)
MEASURED: TypeAdapter[dict[str, float]] = TypeAdapter(
    Annotated[dict[str, float], AfterValidator(_is_of_a_step)], config=ConfigDict(strict=True)
)
"""A line of `metrics.jsonl`: numbers, the step among them."""


def read_json(path: Path) -> dict[str, Any]:
    """Content of a JSON object file. Raises UserError if it is missing or broken, or holds no object."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    return typed(_parsed(content, f"cannot read {path}"), OBJECT, f"cannot read {path}")


def typed(content: object, form: TypeAdapter[T], where: str) -> T:
    """Content of a record in its form. Raises UserError, which begins with `where`, for the first field that is not."""
    try:
        return form.validate_python(content)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        field = f"{'.'.join(map(str, fault['loc']))!r}: " if fault["loc"] else ""
        found = "" if fault["type"] in ("missing", "value_error") else f" (found {reprlib.repr(fault['input'])})"
        raise UserError(f"{where}: {field}{fault['msg'].removeprefix('Value error, ')}{found}") from None


def _parsed(text: bytes, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not JSON ({error})") from None


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


def append_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Append rows and hand them to the operating system, so that a killed run keeps what it recorded."""
    with path.open("a", encoding="utf-8", errors="backslashreplace") as file:  # as write_json
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def scan_jsonl(path: Path, form: "TypeAdapter[T]") -> Iterator[tuple[bytes, T | UserError]]:
    """Every line of a JSON lines file with its content, or with the error that says why it is not of the form.

    Raises UserError if the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                where = f"{path} line {number}"
                try:
                    yield line, typed(_parsed(line, where), form, where)
                except UserError as error:
                    yield line, error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None


@overload
def read_jsonl(path: Path) -> Iterator[dict[str, Any]]: ...


@overload
def read_jsonl(path: Path, form: TypeAdapter[T]) -> Iterator[T]: ...


def read_jsonl(path: Path, form: TypeAdapter[Any] = OBJECT) -> Iterator[Any]:
    """Rows of a JSON lines file; a last line cut short by a killed run is left out.

    Raises UserError, which names the line, where the file is missing or another line is broken or of another form.
    """
    return (row for _, row in _whole_lines(path, form))


def _whole_lines(path: Path, form: TypeAdapter[T]) -> Iterator[tuple[bytes, T]]:
    for line, row in scan_jsonl(path, form):
        if line.endswith(b"\n"):
            if isinstance(row, UserError):
                raise row
            yield line, row


def _check_steps(path: Path) -> None:
    if path.exists():
        for _ in read_jsonl(path, STEP):
            pass


def keep_steps(path: Path, last_step: int) -> None:
    """Drop the rows of steps after `last_step`, which a resumed run will write again."""
    if path.exists():
        with draft_of(path) as draft, draft.open("wb") as file:
            file.writelines(line for line, row in _whole_lines(path, STEP) if row.step <= last_step)


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


def way_on(run: Path) -> str:
    """How to go on with a run that ended too soon, on one line."""
    last = latest_checkpoint(run)
    place = "its start, for no step was saved yet" if last is None else f"step {checkpoint_step(last)} ({last})"
    way = f"`emor3 train` with the same recipe and --resume goes on from {place}"
    aside = run / REPLACED
    return f"{way}; the run that it replaces is still in {aside}" if last is None and aside.is_dir() else way


def checkpoint_step(folder: Path) -> int:
    """Optimizer steps behind a checkpoint, from its name. Raises UserError if the name tells none."""
    told = re.match(r"checkpoint-([0-9]+)", folder.name)
    if told is None:
        raise UserError(f"{folder}: give it a name as checkpoint-100 again, which tells the step")
    return int(told[1])


def rollout_row(step: int, group: int, rollout: Rollout) -> dict[str, Any]:
    """One completion as a row of `rollouts.jsonl`. `group` numbers the prompts of the step."""
    return {
        "step": step,
        "group": group,
        "sample": rollout.sample.id,
        **content_row(rollout.sample),
        "label": rollout.sample.label,
        "completion": rollout.completion,
        "thought": asdict(rollout.thought),
        "reflection": {
            "consistency": finding_row(rollout.reflection.consistency),
            "coherence": finding_row(rollout.reflection.coherence),
        },
        "parts": dict(rollout.reward.parts),
        "reward": rollout.reward.total,
    }


def content_row(sample: Sample) -> dict[str, Any]:
    """What a sample shows, as JSON."""
    return {"images": list(sample.images), "text": sample.text}


def read_content(row: Mapping[str, Any]) -> Content:
    """Images and text of a record; older ones hold the one "image" and no text."""
    return tuple(row["images"] if "images" in row else [row["image"]]), row.get("text")


def finding_row(finding: Finding | None) -> dict[str, Any] | None:
    """One reflection as JSON; None if it was never run."""
    if finding is None:
        return None
    return {
        "verdict": finding.verdict,
        "question": finding.question.text if finding.question else None,
        "reply": finding.reply.text if finding.reply else None,
        "probabilities": dict(finding.reply.probabilities) if finding.reply and finding.reply.probabilities else None,
        "reason": finding.reason,
        "distractors": [
            {"reply": other.text if other.error is None else None, "probabilities": other.probabilities}
            for other in finding.distractors
        ],
    }


def environment_stamp() -> dict[str, Any]:
    """What a number depends on beside the recipe: versions, machine and the commit of the working folder."""
    import torch

    packages = ("torch", "transformers", "trl", "accelerate", "peft", "datasets", "numpy")
    git = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parent,
    )
    return {
        "emor3": __version__,
        "commit": git.stdout.strip() or None,
        "python": platform.python_version(),
        "packages": {name: version(name) for name in packages},
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "accelerators": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
    }
