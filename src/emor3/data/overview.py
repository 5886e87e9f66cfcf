"""`emor3 data stats`: how many images each label and split has, and a page that shows some of them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader
from rich import box
from rich.table import Table

from emor3.data.folders import load_samples
from emor3.data.subsets import first_of, ranked
from emor3.errors import UserError
from emor3.method.labels import LabelSet
from emor3.method.types import Sample
from emor3.storage.images import data_uri, open_image
from emor3.storage.outputs import check_absent, write_whole

THUMBNAIL = 128


@dataclass(frozen=True)
class Stats:
    """Class balance of one folder."""

    path: str
    labels: LabelSet
    samples: Sequence[Sample]
    counts: Counter[tuple[str, str]]
    """(split, label) -> samples."""

    @property
    def splits(self) -> list[str]:
        return sorted({split for split, _ in self.counts})


def stats(path: str) -> Stats:
    """Class balance of a data folder. Raises UserError if it cannot be loaded."""
    samples = load_samples(path)
    counts = Counter((sample.split, sample.label) for sample in samples)
    return Stats(path, samples[0].labels, samples, counts)


def balance_table(found: Stats) -> Table:
    """Rows of labels, columns of splits; the last rows say how even the labels are."""
    counts, splits = found.counts, found.splits
    table = Table("label", *splits, box=box.SIMPLE, title=f"{found.path}: {len(found.samples)} samples")
    for label in found.labels.labels:
        table.add_row(label, *(_cell(counts[split, label], _total(found, split)) for split in splits))
    table.add_row("all", *(str(_total(found, split)) for split in splits))
    most = (max(counts[split, label] for label in found.labels.labels) for split in splits)
    table.add_row("majority class", *(f"{n / _total(found, split):.1%}" for n, split in zip(most, splits, strict=True)))
    return table


def _total(found: Stats, split: str) -> int:
    return sum(count for (name, _), count in found.counts.items() if name == split)


def _cell(count: int, total: int) -> str:
    return f"{count} ({count / total:.1%})"


def write_page(found: Stats, path: Path, per_label: int, seed: int) -> None:
    """One HTML file without outside references: counts, and pictures of each label drawn with the seed.

    Ids and labels are escaped. Raises UserError if the file exists.
    """
    check_absent(path)
    order = ranked(found.samples, seed)
    rows = [
        {
            "label": label,
            "counts": [found.counts[split, label] for split in found.splits],
            "pictures": [picture(found.samples[place]) for place in first_of(label, order, per_label)],
        }
        for label in found.labels.labels
    ]
    page = Environment(loader=PackageLoader("emor3", "data/templates"), autoescape=True).get_template("stats.html")
    text = page.render(path=found.path, n=len(found.samples), splits=found.splits, rows=rows, seed=seed, side=THUMBNAIL)
    write_whole(path, text)


def picture(sample: Sample) -> dict[str, Any]:
    """Text and small JPEGs as data addresses of a sample, or the fault of a picture that cannot be opened."""
    shown = {"id": sample.id, "split": sample.split, "text": sample.text}
    try:
        return {**shown, "addresses": [_address(path) for path in sample.images]}
    except UserError as error:
        return {**shown, "fault": str(error)}


def _address(path: str) -> str:
    image = open_image(path)
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    return data_uri(image, "JPEG", quality=80)
