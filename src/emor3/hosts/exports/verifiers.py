"""For verifiers: an installable package with the rows and a taskset, whose reward and judge are ours."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from emor3.hosts.exports import writing
from emor3.hosts.exports.writing import ExportOptions, Written
from emor3.hosts.rows import COLUMN
from emor3.method.types import Sample
from emor3.storage.outputs import write_whole

MODULE = '''"""Rows of emor3 as a taskset of verifiers."""

from pathlib import Path

from emor3.hosts.verifiers import EmotionTaskset


class Emotions(EmotionTaskset):
    """The rows beside this file."""

    FOLDER = Path(__file__).parent


__all__ = ["Emotions"]
'''
PROJECT = """\
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "{name}"
version = "0.1.0"
requires-python = ">=3.11"
dependencies = ["verifiers>=0.4,<0.5", "emor3"]

[tool.setuptools]
packages = ["{name}"]

[tool.setuptools.package-data]
{name} = ["*.jsonl"]
"""
NOTES = (
    f"{writing.JUDGE} Without `settings` the environment variable EMOR3_REWARD names the file.",
    "verifiers scores one trace at a time. Those of a worker that come within moments are scored as one batch, and a "
    "frozen judge is asked each question once.",
    "It has no other row at hand, so each row names its distractors. A judge that fails raises: the trace has an error "
    "and no reward.",
    "prime-rl takes the same id: `[env.taskset] id = ...` with the harness `null`.",
    writing.MOVED,
)


def write(samples: Sequence[Sample], folder: Path, options: ExportOptions) -> Written:
    """A package `emor3_NAME` with rows `prompt`, `images`, `emor3`, one file a split, NAME being that of the folder.

    Raises UserError for too few distractors.
    """
    writing.write_common(samples, folder, options)
    name = "emor3_" + re.sub(r"[^a-z0-9]+", "_", options.out.name.casefold()).strip("_").removeprefix("emor3_")
    write_whole(folder / name / "__init__.py", MODULE)
    write_whole(folder / "pyproject.toml", PROJECT.format(name=name))
    written = writing.write_splits(samples, folder / name, options, _rows)
    files = {split: f"{name}/{file}" for split, file in written.items()}
    evaluated = "test" if "test" in files else next(iter(files))
    install = writing.shell(["pip", "install", "--editable", str(options.out)])
    command = writing.shell(
        ["vf-eval", name, "--env.taskset.split", evaluated],
        ["--env.taskset.task.settings", str(options.out / writing.SETTINGS)],
        ["--env.agent.harness.id", "null", "--model", "MODEL"],
    )
    return Written(files, f"{install}\n{command}", NOTES)


def _rows(samples: Sequence[Sample], options: ExportOptions) -> Iterator[dict[str, Any]]:
    for sample, images, prompt, row in writing.packed(samples, options):
        yield {"prompt": prompt, "images": images, COLUMN: row, **writing.plain_columns(sample)}
