"""Records as lines and objects of JSON: what a completion, a finding and a step are on disk, and how they are read.

A last line that a killed run cut short is left out; any other malformed line raises an error of one line.
"""

import json
import os
import platform
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, TypeVar, overload

from pydantic import AfterValidator, BaseModel, ConfigDict, TypeAdapter, ValidationError

from emor3 import __version__
from emor3.errors import UserError
from emor3.method.types import Content, Finding, Rollout, Sample
from emor3.revision import commit
from emor3.settings import short
from emor3.storage.outputs import draft_of


class Record(BaseModel):
    """Fields of a record, each of the type that was written; other fields are left alone."""

    model_config = ConfigDict(strict=True, frozen=True)


class StepRow(Record):
    """What a resumed run needs of a line of `metrics.jsonl` and `rollouts.jsonl`."""

    step: int


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
        found = "" if fault["type"] in ("missing", "value_error") else f" (found {short(fault['input'], quoted=True)})"
        raise UserError(f"{where}: {field}{fault['msg'].removeprefix('Value error, ')}{found}") from None


def _parsed(text: bytes, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not JSON ({error})") from None


def append_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Append rows and flush them, so that a killed run keeps what it recorded."""
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

    Raises UserError, which names the line, if the file is missing or another line is broken or of another form.
    """
    return (row for _, row in _whole_lines(path, form))


def _whole_lines(path: Path, form: TypeAdapter[T]) -> Iterator[tuple[bytes, T]]:
    for line, row in scan_jsonl(path, form):
        if line.endswith(b"\n"):
            if isinstance(row, UserError):
                raise row
            yield line, row


def last_rows(path: Path, form: TypeAdapter[T], most: int = 1 << 16) -> list[T]:
    """Rows in the last `most` bytes of a JSON lines file, oldest first; a last line cut short is left out.

    Raises UserError if one of them is broken or of another form, or the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            start = max(0, file.seek(0, os.SEEK_END) - most)
            file.seek(start)
            lines = file.read().split(b"\n")[:-1]
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    whole = lines[1:] if start else lines
    where = f"{path}, near its end"
    return [typed(_parsed(line, where), form, where) for line in whole]


def check_steps(path: Path) -> None:
    """Raise UserError for a line without a step, if the file exists."""
    if path.exists():
        for _ in read_jsonl(path, STEP):
            pass


def keep_steps(path: Path, last_step: int) -> None:
    """Drop the rows of steps after `last_step`, which a resumed run will write again."""
    if path.exists():
        with draft_of(path) as draft, draft.open("wb") as file:
            file.writelines(line for line, row in _whole_lines(path, STEP) if row.step <= last_step)


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
        "reflection": {name: finding_row(finding) for name, finding in vars(rollout.reflection).items()},
        "parts": dict(rollout.reward.parts),
        "reward": rollout.reward.total,
        "placebo": rollout.placebo,
    }


def content_row(sample: Sample) -> dict[str, Any]:
    """What a sample shows, as JSON; `clip` stands there only if the images are frames of one."""
    clip = {} if sample.clip is None else {"clip": sample.clip}
    return {"images": list(sample.images), "text": sample.text, **clip}


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


class Environment(Record):
    """What a model card needs of `environment.json`."""

    emor3: str
    commit: str | None
    python: str
    packages: dict[str, str]


def environment_stamp() -> dict[str, Any]:
    """What a number depends on beside the recipe: versions, machine and the commit of the checkout."""
    import torch

    packages = ("torch", "transformers", "trl", "accelerate", "peft", "datasets", "numpy")
    return {
        "emor3": __version__,
        "commit": commit(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in packages},
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "accelerators": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
    }
