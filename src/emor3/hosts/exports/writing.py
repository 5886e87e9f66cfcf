"""What the exports share: their options, images in place, what else a description is asked on, and the README."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from shlex import quote
from typing import Any

from emor3.data.manifest import copy_file, link, write_lines
from emor3.errors import UserError
from emor3.hosts.rows import COLUMN, pack
from emor3.hosts.settings import VARIABLE
from emor3.method.reflection import other_contents
from emor3.method.rewards import RewardSettings, paid_weights
from emor3.method.thinking import CONFIDENCE, sample_prompt, thinking_of
from emor3.method.types import Sample
from emor3.storage.outputs import write_whole

IMAGES = "images"
"""Where an exported folder keeps its images: a link to the data folder, or copies."""
README, PROMPT, SETTINGS = "README.md", "prompt.txt", "reward.yaml"
DRAWN = 16
"""Other samples among which distractors are looked for, of the same label first: about the prompts of a batch."""
PLACEHOLDER = "<image>"
"""What stands for an image in the prompts of hosts whose prompts are texts."""


@dataclass(frozen=True)
class ExportOptions:
    """What a person may choose of an export, and the two places."""

    source: Path
    """The data folder, in which all images of the samples lie."""
    out: Path
    """The folder that will stand at the end, absolute. A `write` fills a draft of it, and names this one in rows."""
    template: str = "steps"
    """Prompt template: a shipped one or a file."""
    distractors: int = 2
    """Other samples that each row names, for hosts that score one completion at a time."""
    seed: int = 0
    copy: bool = False
    """Copy the images instead of linking to their folder."""


@dataclass(frozen=True)
class Written:
    """What a host's `write` left in the folder, for its README and for the command."""

    files: Mapping[str, str]
    """Split -> file of its rows, relative to the folder."""
    command: str
    """The exact command that reads them, of several lines if need be."""
    notes: Sequence[str] = ()
    """What the host cannot do, or needs: one sentence or more each."""
    on_hub: bool = True
    """Whether the `datasets` library reads the rows: the README then begins with what it looks for."""


def by_split(samples: Sequence[Sample]) -> dict[str, list[Sample]]:
    """split -> its samples, in order."""
    found: dict[str, list[Sample]] = {}
    for sample in samples:
        found.setdefault(sample.split, []).append(sample)
    return found


def place_images(samples: Iterable[Sample], folder: Path, options: ExportOptions) -> None:
    """Put all images where `image_path` names them: one link to the data folder, or copies."""
    paths = dict.fromkeys(path for sample in samples for path in sample.images)
    if options.copy:
        for path in paths:
            copy_file(Path(path), folder / image_name(path, options))
    elif paths:
        link(folder / IMAGES, options.source)


def image_name(path: str, options: ExportOptions) -> str:
    """An image of a sample, relative to the exported folder."""
    return f"{IMAGES}/{Path(path).relative_to(options.source).as_posix()}"


def image_path(path: str, options: ExportOptions) -> str:
    """An image of a sample where it will lie, absolute."""
    return str(options.out / image_name(path, options))


def distractors(samples: Sequence[Sample], options: ExportOptions) -> Iterator[list[tuple[str, ...]]]:
    """For each sample the images of so many other samples of its split, as a batch of training would hold them.

    They show something else, are no near copies of it (`group`), and have its label if there are such among the 16 that
    are drawn. Raises UserError if a split holds too few.
    """
    rng, count = Random(options.seed), options.distractors
    pool = [sample for sample in samples if sample.images and sample.text is None]
    for sample in samples:
        drawn = rng.sample(pool, min(len(pool), DRAWN + 1)) if count else []
        found = _others(sample, drawn, count)
        if len(found) < count:  # a small split, or many near copies: look at all of it
            found = _others(sample, pool, count)
        if len(found) < count:
            raise UserError(
                f"{options.source}: split {sample.split} has {len(found)} other images for sample {sample.id}, and "
                f"--distractors {count} asks for more: give a smaller number"
            )
        yield found


def _others(sample: Sample, drawn: Sequence[Sample], count: int) -> list[tuple[str, ...]]:
    apart = [other for other in drawn if other.group is None or other.group != sample.group]
    return [images for images, _ in other_contents([sample, *apart], 0, count)]


def packed(samples: Sequence[Sample], options: ExportOptions) -> Iterator[tuple[Sample, list[str], str, str]]:
    """Each sample of one split with the absolute paths of its images, its prompt, and its packed row."""
    for sample, others in zip(samples, distractors(samples, options), strict=True):
        images = [image_path(path, options) for path in sample.images]
        elsewhere = [[image_path(path, options) for path in paths] for paths in others]
        yield sample, images, sample_prompt(sample, options.template), pack(sample, images, elsewhere)


PLAIN = ("id", "label", "group", "distribution")
"""Columns that `plain_columns` gives."""


def plain_columns(sample: Sample) -> dict[str, Any]:
    """Columns that people and `emor3 data import hub` read; no host pays by them."""
    votes = None if sample.distribution is None else json.dumps(dict(sample.distribution), ensure_ascii=False)
    return dict(zip(PLAIN, (sample.id, sample.label, sample.group, votes), strict=True))


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Rows as JSON lines."""
    write_lines(path, (f"{json.dumps(row, ensure_ascii=False)}\n".encode(errors="replace") for row in rows))


def write_parquet(path: Path, rows: Iterable[Mapping[str, Any]], features: Mapping[str, Any]) -> None:
    """Rows as a Parquet file that the `datasets` library reads with these features; no image is opened.

    The plain columns are texts beside the features.
    """
    import pyarrow as pa
    from datasets import Features, Value
    from pyarrow.parquet import write_table

    schema = Features({**features, **dict.fromkeys(PLAIN, Value("string"))}).arrow_schema
    write_table(pa.Table.from_pylist(list(rows), schema=schema), path)


Rows = Callable[[Sequence[Sample], ExportOptions], Iterable[Mapping[str, Any]]]
"""Rows of the samples of one split, as a host reads them."""


def write_splits(
    samples: Sequence[Sample],
    folder: Path,
    options: ExportOptions,
    rows: Rows,
    features: Mapping[str, Any] | None = None,
) -> dict[str, str]:
    """Write the rows of each split to a file: JSON lines, or Parquet if features are given; returns split -> file."""
    files = {}
    for split, part in by_split(samples).items():
        files[split] = f"{split}.{'jsonl' if features is None else 'parquet'}"
        if features is None:
            write_jsonl(folder / files[split], rows(part, options))
        else:
            write_parquet(folder / files[split], rows(part, options), features)
    return files


def with_settings(command: str, options: ExportOptions) -> str:
    """A command of a host that hands a reward no options: the environment names the settings file."""
    return f"{VARIABLE}={quote(str(options.out / SETTINGS))} {command}"


def write_common(samples: Sequence[Sample], folder: Path, options: ExportOptions) -> None:
    """What every trainer's folder has: images, the prompt to read, and the settings file that its command names."""
    place_images(samples, folder, options)
    write_whole(folder / PROMPT, f"{sample_prompt(samples[0], options.template)}\n")
    thinking = thinking_of(options.template)
    further = CONFIDENCE_TEXT if thinking == CONFIDENCE else ""
    write_whole(folder / SETTINGS, SETTINGS_TEXT.format(thinking=thinking, count=options.distractors, further=further))


SETTINGS_TEXT = """\
# What the reward is made of, by the keys of a recipe (docs/reference.md). Without a judge: reward {{reflective: 0}}.
thinking: {thinking}   # how completions think, which the prompts ask for
reward:
  contrastive: {count}   # other images of each row that a description must not fit
{further}judge:
  model: endpoint        # or: model: checkpoint with path: FOLDER, frozen, in the process that scores
  endpoint:
    base_url: http://localhost:8000/v1
    model: NAME-OF-THE-JUDGE
"""

CONFIDENCE_TEXT = """\
  confidence: 0    # weight of the stated confidence, taken from accuracy's (TRL, ms-swift: name its function too)
"""


def train_and_held_out(files: Mapping[str, str]) -> tuple[str, str]:
    """The files that a command trains and validates on: `train`, else the first; `val` or `test`, else the same."""
    train = files.get("train", next(iter(files.values())))
    return train, next((files[split] for split in ("val", "test") if split in files), train)


def shell(*lines: Sequence[str]) -> str:
    """A command as a shell takes it, of several lines of words."""
    return " \\\n  ".join(" ".join(map(quote, words)) for words in lines)


def paid_parts(options: ExportOptions) -> tuple[list[str], list[str]]:
    """Names and weights of the parts that the default reward pays, for commands that list them."""
    parts = paid_weights(RewardSettings(contrastive=options.distractors))
    return list(parts), [f"{weight:g}" for weight in parts.values()]


def readme(title: str, run_with: str, written: Written) -> Iterator[str]:
    """Lines of the README of an exported folder."""
    if written.on_hub:
        yield from ("---", "configs:", "- config_name: default", "  data_files:")
        for split, file in written.files.items():
            yield from (f"  - split: {json.dumps(split)}", f"    path: {json.dumps(file)}")
        yield from ("---", "")
    yield from (f"# Data for {title}", "", "```bash", written.command, "```", "")
    yield f"- emor3's side was run with this version of {title}: {run_with}."
    yield from (f"- {note}" for note in written.notes)


MOVED = (
    f"Rows name their images by absolute paths, in the column `{COLUMN}` among others: export anew if the folder moves."
)
JUDGE = (
    f"`{SETTINGS}` names weights and judge: fill in your server, or a frozen checkpoint. The judge cannot be the "
    "policy here: its weights stay in the trainer."
)
