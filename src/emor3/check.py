"""`emor3 data check`: go through a data folder once, image by image, and say what would break training on it."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path

from PIL import Image
from rich import box
from rich.table import Column, Table
from transformers import ProcessorMixin

from emor3.config import Recipe
from emor3.data import label_set_for, manifest_lines, named_labels, parse_row, resolve_folder, to_sample
from emor3.errors import UserError, one_line
from emor3.generation import chat, open_image
from emor3.taxonomy import LabelSet
from emor3.thinking import build_prompt
from emor3.types import Sample

EXAMPLES = 3


@dataclass
class Tally:
    """How often something was met, with the first few cases to show."""

    what: str
    breaks_training: bool
    count: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, example: str) -> None:
        self.count += 1
        if len(self.examples) < EXAMPLES:
            self.examples.append(example)


@dataclass
class Report:
    """What a check of one folder found."""

    path: str
    labels: LabelSet
    rows: int = 0
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(split, label) -> readable rows."""
    tokens: Counter[int] = field(default_factory=Counter)
    """Tokens that an image takes in the prompt -> images."""
    bad_rows: Tally = field(default_factory=lambda: Tally("bad rows", True))
    unreadable: Tally = field(default_factory=lambda: Tally("unreadable images", True))
    empty: Tally = field(default_factory=lambda: Tally("empty training split", True))
    duplicates: Tally = field(default_factory=lambda: Tally("same image in two splits", False))
    torn_groups: Tally = field(default_factory=lambda: Tally("group in two splits", False))

    def tallies(self) -> tuple[Tally, ...]:
        return (self.bad_rows, self.unreadable, self.empty, self.duplicates, self.torn_groups)

    def breaks_training(self) -> bool:
        return any(tally.count and tally.breaks_training for tally in self.tallies())


def check(path: str, recipe: Recipe, processor: ProcessorMixin) -> Report:
    """Check every row and image of a folder against a recipe's settings.

    Images are opened one at a time; what is kept is a digest for each image and a name for each group.
    Raises UserError where the folder holds no manifest or the label set cannot be read.
    """
    folder, label_field = resolve_folder(path), recipe.data.label_field
    report = Report(path, label_set_for(recipe.data.labels, _found_labels(folder, label_field)))
    count_tokens = token_counter(processor, build_prompt(report.labels, recipe.prompt_template))
    seen = Seen()
    for where, line in manifest_lines(folder):
        report.rows += 1
        try:
            sample = to_sample(parse_row(line, where), folder, report.labels, label_field, where)
        except UserError as error:
            report.bad_rows.add(str(error))
            continue
        _compare(report, seen, sample, where)
        try:
            report.tokens[count_tokens(open_image(sample.image).size)] += 1
        except UserError as error:
            report.unreadable.add(f"{where}: {error}")
            continue
        report.counts[sample.split, sample.label] += 1
    split = recipe.data.split
    if not any(split in (None, found) for found, _ in report.counts):
        report.empty.add(f"no readable rows in split {split!r}")
    return report


@dataclass
class Seen:
    """What the rows so far held, to find repetitions."""

    ids: set[str] = field(default_factory=set)
    split_of_image: dict[bytes, str] = field(default_factory=dict)
    split_of_group: dict[str, str] = field(default_factory=dict)


def _compare(report: Report, seen: Seen, sample: Sample, where: str) -> None:
    """Note a repeated id, and an image or a group that an earlier row has in another split."""
    if sample.id in seen.ids:
        report.bad_rows.add(f"{where}: the id {sample.id!r} is used by an earlier row")
    seen.ids.add(sample.id)
    with Path(sample.image).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").digest()
    first_split = seen.split_of_image.setdefault(digest, sample.split)
    if first_split != sample.split:
        report.duplicates.add(f"{where}: {sample.id!r} in {sample.split!r} is also in {first_split!r}")
    if sample.group is not None:
        first_split = seen.split_of_group.setdefault(sample.group, sample.split)
        if first_split != sample.split:
            report.torn_groups.add(f"{where}: group {sample.group!r} in {sample.split!r} is also in {first_split!r}")


def _found_labels(folder: Path, label_field: str) -> Iterator[str]:
    for where, line in manifest_lines(folder):
        try:
            yield from named_labels(parse_row(line, where), label_field, where)
        except UserError:
            continue  # reported when the row is checked


def token_counter(processor: ProcessorMixin, prompt: str) -> Callable[[tuple[int, int]], int]:
    """Function from an image's size to the tokens it takes in the prompt; they depend on nothing else."""
    template = partial(processor.apply_chat_template, tokenize=False, add_generation_prompt=True)
    without_image = len(processor(text=[template(chat(prompt, False))])["input_ids"][0])

    @lru_cache(maxsize=4096)
    def count(size: tuple[int, int]) -> int:
        inputs = processor(text=[template(chat(prompt, True))], images=[Image.new("RGB", size)])
        return len(inputs["input_ids"][0]) - without_image

    return count


def describe(report: Report) -> Table:
    """A report as a person reads it."""
    table = Table(
        "", Column("", overflow="fold"), box=box.SIMPLE, show_header=False, title=f"{report.path}: {report.rows} rows"
    )
    table.add_row("label set", f"{report.labels.name}: {', '.join(report.labels.labels)}")
    for split in sorted({split for split, _ in report.counts}):
        per_label = {label: report.counts[split, label] for label in report.labels.labels}
        shares = ", ".join(f"{label} {count}" for label, count in per_label.items())
        table.add_row(split, f"{sum(per_label.values())} ({shares})")
    if report.tokens:
        low, high = min(report.tokens), max(report.tokens)
        mean = sum(tokens * images for tokens, images in report.tokens.items()) / report.tokens.total()
        table.add_row("tokens per image", f"{mean:.0f} on average, {low} to {high}")
    for tally in report.tallies():
        weight = "breaks training" if tally.breaks_training else "flatters evaluation"
        table.add_row(tally.what, f"{tally.count} ({weight})" if tally.count else "none")
        for example in tally.examples:
            table.add_row("", one_line(example))
    return table
