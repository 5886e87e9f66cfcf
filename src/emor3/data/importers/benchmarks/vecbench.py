"""VECBench (EmoCaliber, arXiv 2512.15528): nine tasks on six sets, in one file of test rows.

The keys are those that the authors' own evaluation reads: `task`, `ground_truth`, `candidates`, and `conversations`, a
chat whose user turn holds the image. How they spell the images' paths could not be seen.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from emor3.data.importers.class_folders import UNBIASED6
from emor3.data.importers.items import Dropped, Found, Item, Options, WrongLayoutError
from emor3.data.importers.sources import listing
from emor3.data.rows import parse_row
from emor3.errors import UserError
from emor3.method import labels as taxonomy
from emor3.method.labels import MIKELS8, WEBEMO2, WEBEMO7, WEBEMO25, LabelSet

ROWS = ("test_8k.jsonl", "input_data/test_8k.jsonl")
TASKS: Mapping[str, LabelSet] = {
    "emoset-8": MIKELS8,
    "abstract-8": MIKELS8,
    "artphoto-8": MIKELS8,
    "fi-8": MIKELS8,
    "fi-2": WEBEMO2,
    "webemo-2": WEBEMO2,
    "webemo-7": WEBEMO7,
    "webemo-25": WEBEMO25,
    "unbiasedemo-6": UNBIASED6,
}
"""Label policy, which is the name of a task in lower case -> its label set."""


def vecbench(source: Path, options: Options) -> Found:
    """Rows of one task, all of them test rows."""
    file = next((source / name for name in ROWS if (source / name).is_file()), None)
    if file is None:
        raise WrongLayoutError(f"no {ROWS[0]}; {listing(source)}")
    labels, seen = TASKS[options.policy], set[str]()
    with file.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            where = f"{file.name} line {number}"
            if line.strip():
                task = _task(row := _row(line, where))
                seen.add(task)
                if task.lower() == options.policy:
                    yield _item(row, where, source, labels)
    if options.policy not in {task.lower() for task in seen}:
        raise WrongLayoutError(f"the tasks {', '.join(sorted(seen)) or 'of no row'}, and not {options.policy}")


def _row(line: bytes, where: str) -> dict[str, Any]:
    try:
        return parse_row(line, where)
    except UserError as error:
        raise WrongLayoutError(str(error)) from None


def _task(row: Mapping[str, Any]) -> str:
    return str(row.get("task", ""))


def _item(row: Mapping[str, Any], where: str, source: Path, labels: LabelSet) -> Item | Dropped:
    truth = str(row.get("ground_truth", ""))
    label = taxonomy.match(truth, labels) or labels.aliases.get(truth.lower())
    if label is None:
        return Dropped(where, f"{truth!r} is none of {labels.listed()}")
    image = next(filter(None, (_found(name, source) for name in _images(row))), None)
    if image is None:
        return Dropped(where, f"no image at {', '.join(_images(row)) or 'any path of the row'} or an end of it", label)
    return Item(image, label, "test", id=f"{where.rpartition(' ')[2]}:{image}")


def _images(row: Mapping[str, Any]) -> Iterator[str]:
    """Paths in the turns of a row, as they are spelt there."""
    for turn in row.get("conversations") or ():
        content = turn.get("content") if isinstance(turn, dict) else None
        for part in content if isinstance(content, list) else ():
            if isinstance(part, dict) and isinstance(part.get("image"), str):
                yield part["image"].removeprefix("file://")


def _found(name: str, source: Path) -> str | None:
    """The longest end of a path that is a file of the source: authors write paths of their own machines."""
    parts = [part for part in PurePosixPath(name.replace("\\", "/")).parts if part not in ("/", "..", ".")]
    ends = ("/".join(parts[start:]) for start in range(len(parts)))
    return next((end for end in ends if (source / end).is_file()), None)
