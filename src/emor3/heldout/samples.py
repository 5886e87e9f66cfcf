"""Which samples are held out: a split of the data, a folder of its own, or a slice that training then never sees."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from emor3.data.folders import (
    LazySamples,
    Source,
    fixed_subset,
    load_mixture,
    load_samples,
    resolve_folder,
    splits_of,
)
from emor3.data.settings import DataBlock
from emor3.errors import UserError
from emor3.heldout.settings import HeldOutBlock
from emor3.method.labels import normalise
from emor3.method.types import Sample
from emor3.storage.images import image_fault

SPLITS = ("val", "test")
"""Splits that are held out, the first that there is: a policy chosen on test rows would be too good on them."""
LARGEST_SLICE = 0.2
"""Share of the training rows that is held out at most if the data have no such split."""


@dataclass(frozen=True)
class HeldOut:
    """The held-out samples, and where they come from."""

    samples: Sequence[Sample]
    data: str
    """The folder or folders."""
    sources: Sequence[Source]
    """The manifests that they come from."""
    split: str | None
    """Their split; None: all rows of a folder, or a slice of the training rows."""
    lines: Sequence[str]
    """What a person should know of them, said once."""


def training_rows(data: DataBlock, evaluation: HeldOutBlock | None, seed: int) -> LazySamples:
    """The rows that a recipe may train on: those of its split, without the slice that is held out if one is."""
    rows = load_mixture(data.folders, split=data.split, labels=data.labels, label_field=data.label_field)
    if evaluation is None or not _takes_slice(data, evaluation):
        return rows
    return rows.pick(slice_of(rows, evaluation.samples, seed)[1])


def held_out(data: DataBlock, evaluation: HeldOutBlock, seed: int, trained: LazySamples) -> HeldOut:
    """The samples to evaluate on. `trained` are the rows that are trained on.

    Raises UserError for data that cannot be read or are trained on, labels of which none is trained, and images that
    cannot be opened.
    """
    if _takes_slice(data, evaluation):
        rows, split, lines = _slice(data, evaluation, seed)
    else:
        rows, split, lines = _split(data, evaluation)
        _check_apart(rows, trained, evaluation)
        if len(rows) < evaluation.samples:
            lines.append(f"evaluation.samples {evaluation.samples}: there are {len(rows)}, all of them are taken")
    _check_labels(rows, trained)
    samples = fixed_subset(rows, evaluation.samples)
    _check_images(samples)
    return HeldOut(samples, evaluation.data or ", ".join(data.folders), rows.sources, split, lines)


def _takes_slice(data: DataBlock, evaluation: HeldOutBlock) -> bool:
    return evaluation.data is None and (data.split is None or _held_out_split(data.folders, data.split) is None)


def _held_out_split(folders: Sequence[str], trained: str | None) -> str | None:
    """The first of SPLITS that is not the one trained on and that each folder has; None if there is none."""
    found = [splits_of(resolve_folder(folder)) for folder in folders]
    return next((name for name in SPLITS if name != trained and all(name in splits for splits in found)), None)


Found = tuple[LazySamples, str | None, list[str]]
"""Rows, their split, and what to say of them."""


def _split(data: DataBlock, evaluation: HeldOutBlock) -> Found:
    folders = [evaluation.data] if evaluation.data else data.folders
    if evaluation.data is None or evaluation.data in data.folders:
        split = _held_out_split(folders, data.split)
        rows = load_mixture(folders, split=split, labels=data.labels, label_field=data.label_field)
    else:
        split = _held_out_split(folders, None)
        rows = load_samples(evaluation.data, split=split, label_field=data.label_field)
    chooses = "best/ is chosen on them, so they no longer test it: give a val split, or other evaluation.data"
    return rows, split, [f"evaluation: on test rows of {', '.join(folders)}; {chooses}"] if split == "test" else []


def _slice(data: DataBlock, evaluation: HeldOutBlock, seed: int) -> Found:
    rows = load_mixture(data.folders, split=data.split, labels=data.labels, label_field=data.label_field)
    places, _ = slice_of(rows, evaluation.samples, seed)
    line = (
        f"evaluation: {len(places)} of {len(rows)} training rows are held out, drawn with the seed, and never trained "
        f"on: {', '.join(data.folders)} has no other val or test rows"
    )
    return rows.pick(places), None, [line]


def slice_of(rows: Sequence[Sample], count: int, seed: int) -> tuple[list[int], list[int]]:
    """Places of the rows that are held out, and of those left to train on, each in order.

    A row whose group is held out, a near copy, is on neither side. Raises UserError if nothing would be left.
    """
    order = Random(f"held out/{seed}").sample(range(len(rows)), len(rows))
    number = min(count, max(1, int(LARGEST_SLICE * len(rows))))
    places = sorted(order[:number])
    groups = {group for place in places if (group := rows[place].group) is not None}
    left = [place for place in sorted(order[number:]) if not groups or rows[place].group not in groups]
    if not left:
        raise UserError("evaluation: too few training rows to hold some out: give evaluation.data, or leave it out")
    return places, left


def _check_apart(rows: LazySamples, trained: LazySamples, evaluation: HeldOutBlock) -> None:
    """Raise UserError if held-out rows are among those that are trained on."""
    both = _lines(rows) & _lines(trained)
    if both:
        raise UserError(
            f"evaluation.data {evaluation.data}: {len(both)} of its {len(rows)} rows are trained on: give other data, "
            "or mark rows as split val"
        )


def _lines(rows: LazySamples) -> set[tuple[str, int]]:
    folders = [str(source.folder.resolve()) for source in rows.sources]
    return {(folders[source], number) for source, number, *_ in rows.rows.tolist()}


def _check_labels(rows: LazySamples, trained: LazySamples) -> None:
    known, asked = (
        {normalise(label): label for source in part.sources for label in source.labels.labels}
        for part in (trained, rows)
    )
    if not known.keys() & asked.keys():
        raise UserError(
            f"evaluation.data has labels ({', '.join(asked.values())}) of which none is trained on "
            f"({', '.join(known.values())}): give data with the same labels"
        )


def _check_images(samples: Sequence[Sample]) -> None:
    for sample in samples:
        if fault := next(filter(None, map(image_fault, sample.images)), None):
            raise UserError(f"evaluation: held-out sample {sample.id!r}: {fault}: mend it, or take it out of the data")
