"""`emor3 data check`: one pass over a data folder, image by image, for faults that break training or flatter a test."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

from rich import box
from rich.table import Column, Table
from transformers import ProcessorMixin

from emor3.data.copies.hashes import near_pairs, perceptual_hash
from emor3.data.folders import Repetitions, in_split, label_set_for, label_spec, resolve_folder
from emor3.data.importers.sources import split_of
from emor3.data.prompt_lengths import PROMPT_TOKENS, label_cost, suggest_max_pixels, text_tokens, token_counter
from emor3.data.rows import manifest_lines, named_labels, parse_row, to_sample
from emor3.data.settings import DataBlock
from emor3.errors import UserError, one_line
from emor3.method.labels import LabelSet
from emor3.method.thinking import build_prompt, sample_prompt
from emor3.method.types import Sample
from emor3.progress import told
from emor3.stats.format import percent_value, tenths, whole_percent
from emor3.storage.files import file_digest
from emor3.storage.images import open_image

EXAMPLES = 3
NOISE = "a hint at label noise"
SAME_SHARE = 1e-9


@dataclass
class Tally:
    """Cases of one kind."""

    what: str
    breaks_training: bool
    effect: str = "flatters evaluation"
    """Consequence of a kind that does not break training."""
    cases: list[str] = field(default_factory=list)

    def add(self, case: str) -> None:
        self.cases.append(case)


@dataclass
class Report:
    """Findings of the check of one folder."""

    path: str
    labels: LabelSet
    rows: int = 0
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(split, label) -> readable rows."""
    tokens: Counter[int] = field(default_factory=Counter)
    """Tokens that an image takes in the prompt -> images."""
    lengths: Counter[int] = field(default_factory=Counter)
    """Tokens of a prompt -> rows."""
    text_tokens: int = 0
    """Tokens of the prompt without its images; of the longest if rows have texts."""
    most_images: int = 0
    """Images of the row that has most."""
    label_cost: str | None = None
    """Tokens that the label set takes."""
    max_pixels: int | None = None
    """Suggested limit of image size if the longest prompt exceeds the paper's length."""
    bad_rows: Tally = field(default_factory=lambda: Tally("bad rows", True))
    unreadable: Tally = field(default_factory=lambda: Tally("unreadable images", True))
    empty: Tally = field(default_factory=lambda: Tally("empty training split", True))
    duplicates: Tally = field(default_factory=lambda: Tally("same image or text in two splits", False))
    near: Tally = field(default_factory=lambda: Tally("near copies in two splits", False))
    torn_groups: Tally = field(default_factory=lambda: Tally("group in two splits", False))
    two_labels: Tally = field(default_factory=lambda: Tally("near copies with two labels", False, NOISE))
    split_labels: Tally = field(
        default_factory=lambda: Tally("label with the name of a split", False, "class folders read a level too high?")
    )
    outvoted: Tally = field(default_factory=lambda: Tally("label not the votes' favourite", False, NOISE))
    tied: Tally = field(default_factory=lambda: Tally("votes tied for the label", False, NOISE))

    def tallies(self) -> tuple[Tally, ...]:
        return tuple(value for value in vars(self).values() if isinstance(value, Tally))

    def breaks_training(self) -> bool:
        return any(tally.cases and tally.breaks_training for tally in self.tallies())


def check(
    path: str, settings: DataBlock, processor: ProcessorMixin | None, *, template: str = "steps", trains: bool = True
) -> Report:
    """Check every row and image of a folder against a recipe's settings of data; without a processor the rows alone.

    Prompts are counted as the `template` makes them. Unless it `trains`, the folder may be a test set: it then needs
    readable rows, and none of the recipe's split. Images are opened one at a time; what is kept is a digest and a hash
    of each image and a name for each group.
    Raises UserError if the folder holds no manifest or the label set cannot be read.
    """
    folder, label_field = resolve_folder(path), settings.label_field
    labels = label_spec(folder, settings.labels, label_field)
    report = Report(path, label_set_for(labels, _found_labels(folder, label_field)))
    report.split_labels.cases += [label for label in report.labels.labels if split_of(label)]
    look = None if processor is None else _Look(report, processor, template)
    repetitions, groups = Repetitions(folder), dict[str, str]()
    for where, line, *_ in told(manifest_lines(folder), path, "rows checked"):
        report.rows += 1
        try:
            sample = to_sample(parse_row(line, where), folder, report.labels, label_field, where)
        except UserError as error:
            report.bad_rows.add(str(error))
            continue
        if repetitions.has(sample.id):
            report.bad_rows.add(f"{where}: the id {sample.id!r} is used by an earlier row")
        _check_group_and_votes(report, groups, sample, where)
        if look is None or look.at(sample, where):
            report.counts[sample.split, sample.label] += 1
    if look is not None:
        look.finish()
    split = settings.split if trains else None
    if not any(split in (None, found) for found, _ in report.counts):
        report.empty.add(f"no readable rows{in_split(split)}")
    return report


class _Picture(NamedTuple):
    digest: bytes
    id: str
    split: str
    label: str


class _Look:
    """Opens images and adds what it finds to the report."""

    def __init__(self, report: Report, processor: ProcessorMixin, template: str) -> None:
        prompt = build_prompt(report.labels, template)
        self.report, self.processor, self.template = report, processor, template
        report.label_cost = label_cost(processor, report.labels.labels)
        self._count_tokens = token_counter(processor, prompt)
        self._text_tokens = lru_cache(maxsize=4096)(partial(text_tokens, processor))
        self._split_of_content: dict[bytes, str] = {}
        self._told = ("", "")
        """Row and split of the last repetition: a clip has many frames, and is repeated once."""
        self._pictures: list[_Picture] = []
        self._hashes: list[int | None] = []

    def at(self, sample: Sample, where: str) -> bool:
        """Whether the images can be used."""
        if not sample.images and sample.text is not None:
            self._compare_splits(hashlib.sha256(sample.text.encode()).digest(), sample, where)
        tokens = [self._look_at(path, sample, where) for path in sample.images]
        known = [count for count in tokens if count is not None]
        if len(known) < len(tokens):
            return False
        text = self._text_tokens(sample_prompt(sample, self.template))
        self.report.text_tokens = max(self.report.text_tokens, text)
        self.report.most_images = max(self.report.most_images, len(known))
        self.report.tokens.update(known)
        self.report.lengths[text + sum(known)] += 1
        return True

    def _look_at(self, path: str, sample: Sample, where: str) -> int | None:
        """Tokens of an image; None if it cannot be used."""
        digest = file_digest(path)
        try:
            image = open_image(path)
            tokens = self._count_tokens(image.size)
        except UserError as error:
            self._compare_splits(digest, sample, where)
            self.report.unreadable.add(f"{where}: {error}")
            return None
        known_by = perceptual_hash(image)
        if known_by is not None or not sample.is_video:  # clips that fade from black are no copies
            self._compare_splits(digest, sample, where)
        self._pictures.append(_Picture(digest, sample.id, sample.split, sample.label))
        self._hashes.append(known_by)
        return tokens

    def _compare_splits(self, digest: bytes, sample: Sample, where: str) -> None:
        first_split = self._split_of_content.setdefault(digest, sample.split)
        if first_split != sample.split and self._told != (where, first_split):
            self._told = where, first_split
            self.report.duplicates.add(f"{where}: {sample.id!r} in {sample.split!r} is also in {first_split!r}")

    def finish(self) -> None:
        """Note near copies that are in two splits or have two labels, and what image size would fit.

        Two rows of several images are told once; rows that share a file are no near copies.
        """
        pairs, share_a_file = dict[tuple[str, str], tuple[_Picture, _Picture]](), set[tuple[str, str]]()
        for one, other in near_pairs(self._hashes):
            first, second = self._pictures[one], self._pictures[other]
            if first.split == second.split and first.label == second.label:
                continue
            pairs[first.id, second.id] = first, second
            if first.digest == second.digest:
                share_a_file.add((first.id, second.id))
        for rows, (first, second) in pairs.items():
            if first.split != second.split and rows not in share_a_file:
                self.report.near.add(f"{first.id!r} in {first.split!r} and {second.id!r} in {second.split!r}")
            if first.label != second.label:
                self.report.two_labels.add(f"{first.id!r} is {first.label!r} and {second.id!r} is {second.label!r}")
        if self.report.most_images and max(self.report.lengths) > PROMPT_TOKENS:
            text, images = self.report.text_tokens, self.report.most_images
            self.report.max_pixels = suggest_max_pixels(self.processor, text, images)


def _check_group_and_votes(report: Report, split_of_group: dict[str, str], sample: Sample, where: str) -> None:
    """Note a group that an earlier row has in another split, and votes against the label."""
    if sample.distribution:
        _check_votes(report, sample, sample.distribution)
    if sample.group is not None:
        first_split = split_of_group.setdefault(sample.group, sample.split)
        if first_split != sample.split:
            report.torn_groups.add(f"{where}: group {sample.group!r} in {sample.split!r} is also in {first_split!r}")


def _check_votes(report: Report, sample: Sample, shares: Mapping[str, float]) -> None:
    label = sample.label
    others = {other: share for other, share in shares.items() if other != label}
    rival = max(others, key=lambda other: others[other], default=None)
    if rival is None:
        return
    lead = shares.get(label, 0.0) - others[rival]
    share = whole_percent(others[rival])
    if abs(lead) <= SAME_SHARE:
        report.tied.add(f"{sample.id!r}: {label!r} and {rival!r} have {share} of the votes each")
    elif lead < 0:
        report.outvoted.add(f"{sample.id!r} is {label!r}, but {share} of the votes say {rival!r}")


def _found_labels(folder: Path, label_field: str) -> Iterator[str]:
    for where, line, *_ in manifest_lines(folder):
        try:
            yield from named_labels(parse_row(line, where), label_field, where)
        except UserError:
            continue  # reported when the row is checked


def report_table(report: Report) -> Table:
    """A report as a person reads it."""
    title = f"{report.path}: {report.rows} rows"
    table = Table("", Column("", overflow="fold"), box=box.SIMPLE, show_header=False, title=title)
    table.add_row("label set", f"{report.labels.name}: {', '.join(report.labels.labels)}")
    for split in sorted({split for split, _ in report.counts}):
        per_label = {label: report.counts[split, label] for label in report.labels.labels}
        shares = ", ".join(f"{label} {count}" for label, count in per_label.items())
        table.add_row(split, f"{sum(per_label.values())} ({shares})")
        table.add_row("", _balance(per_label))
    if report.label_cost:
        table.add_row("labels", report.label_cost)
    if report.tokens:
        low, high = min(report.tokens), max(report.tokens)
        mean = sum(tokens * images for tokens, images in report.tokens.items()) / report.tokens.total()
        table.add_row("tokens per image", f"{mean:.0f} on average, {low} to {high}")
    if report.lengths:
        table.add_row("tokens per prompt", _prompt_lengths(report))
    for tally in report.tallies():
        weight = "breaks training" if tally.breaks_training else tally.effect
        table.add_row(tally.what, f"{len(tally.cases)} ({weight})" if tally.cases else "none")
        for example in tally.cases[:EXAMPLES]:
            table.add_row("", one_line(example))
    return table


def _balance(per_label: Mapping[str, int]) -> str:
    most = max(per_label, key=lambda label: per_label[label])
    share = f"majority class {most} {percent_value(per_label[most] / sum(per_label.values()))}%"
    if absent := [label for label, count in per_label.items() if not count]:
        return f"{share}; no rows of {', '.join(absent)}"
    return f"{share}, {tenths(per_label[most] / min(per_label.values()))} times the rarest"


def _prompt_lengths(report: Report) -> str:
    longest = max(report.lengths)
    lengths = f"{min(report.lengths)} to {longest}, {report.text_tokens} of them text"
    if longest <= PROMPT_TOKENS:
        return f"{lengths}; all within the paper's {PROMPT_TOKENS}"
    over = sum(n for tokens, n in report.lengths.items() if tokens > PROMPT_TOKENS)
    scaled = report.max_pixels and f"set model.max_pixels={report.max_pixels}"
    advice = scaled or "use smaller images or shorter texts"
    return f"{lengths}; {over} exceed the paper's {PROMPT_TOKENS}: {advice}"
