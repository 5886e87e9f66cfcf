"""Data folders: `metadata.jsonl` beside the images, loaded as samples of one label set, or several folders mixed.

A file `labels.yaml` beside the manifest names the label set of its labels. What a row holds: `emor3.data.rows`.
"""

import os
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any, TypeAlias, overload
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from emor3.data.rows import (
    MANIFEST,
    MAX_ROW_BYTES,
    line_name,
    manifest_lines,
    named_labels,
    parse_row,
    row_id,
    row_split,
    shown,
    to_sample,
)
from emor3.errors import UserError
from emor3.method import labels as taxonomy
from emor3.method.labels import LabelSet
from emor3.method.types import Sample
from emor3.storage.files import regular

LABELS = "labels.yaml"
EMBEDDED = "embedded:"
"""Prefix of the drawn domains that come with the package, as in `embedded:scenes8`."""

LabelSpec: TypeAlias = LabelSet | str | Sequence[str] | None
"""A label set, a built-in one's name, a YAML file, labels (a list or `a,b`), or None for the labels in the data."""


@dataclass(frozen=True)
class Source:
    """A manifest whose rows were checked, and how they are read again."""

    folder: Path
    labels: LabelSet
    label_field: str
    prefix: str = ""
    """What ids and groups begin with."""

    def read(self, number: int, start: int, checksum: int) -> Sample:
        """The row in a line that begins at a byte. Raises UserError if it is no longer what was loaded."""
        manifest = self.folder / MANIFEST
        try:
            with open(manifest, "rb", opener=regular) as file:  # each time, so that processes share no position
                file.seek(start)
                line = file.readline(MAX_ROW_BYTES + 1)
        except OSError as error:
            raise UserError(f"{manifest} cannot be read any more ({error}): put it back and start again") from None
        if crc32(line) != checksum:
            raise UserError(f"{manifest} has changed since it was loaded: start again")
        where = line_name(self.folder, number)
        sample = to_sample(parse_row(line, where), self.folder, self.labels, self.label_field, where)
        return replace(sample, id=self.prefix + sample.id, group=sample.group and self.prefix + sample.group)


class LazySamples(Sequence[Sample]):
    """Samples that stay in their manifests until each is asked for; 32 bytes a row are kept."""

    def __init__(self, sources: Sequence[Source], rows: NDArray[np.int64]) -> None:
        """`rows` (N, 4): place in `sources`; number, first byte and checksum of the manifest's line."""
        self.sources = sources
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, place: int) -> Sample: ...

    @overload
    def __getitem__(self, place: slice) -> "LazySamples": ...

    def __getitem__(self, place: int | slice) -> "Sample | LazySamples":
        if isinstance(place, slice):
            return LazySamples(self.sources, self.rows[place])
        source, *line = self.rows[place].tolist()
        sample: Sample = self.sources[source].read(*line)
        return sample

    def pick(self, places: Sequence[int]) -> "LazySamples":
        """The samples at these places, in their order."""
        return LazySamples(self.sources, self.rows[np.asarray(places)])


def load_samples(
    path: str, *, split: str | None = None, labels: LabelSpec = None, label_field: str = "label"
) -> LazySamples:
    """Samples of one split (None: all of them) in the manifest's order; all are checked here, and read again on use.

    Every row of the manifest decides which labels are found in the data, so all splits share one label set.
    Raises UserError for a missing folder or image, a malformed row, a label outside the set, a repeated id and a split
    without rows, naming the row. Images are not opened.

    >>> from tempfile import TemporaryDirectory
    >>> from emor3.data.manifest import write_rows
    >>> rows = [
    ...     {"id": "1", "text": "It rains.", "label": "gloomy"},
    ...     {"id": "2", "text": "The sun is out!", "label": "glad"},
    ...     {"id": "3", "text": "It snows.", "label": "calm", "split": "test"},
    ... ]
    >>> with TemporaryDirectory() as folder:
    ...     _ = write_rows(Path(folder), rows)
    ...     samples = load_samples(folder, split="train")
    ...     [(sample.id, sample.label) for sample in samples], samples[0].labels.labels
    ([('1', 'gloomy'), ('2', 'glad')], ('calm', 'glad', 'gloomy'))
    """
    folder = resolve_folder(path)
    label_set = label_set_for(label_spec(folder, labels, label_field), found_labels(folder, label_field))
    rows, repetitions = array("q"), Repetitions(folder)
    for where, line, number, start in manifest_lines(folder):
        row = parse_row(line, where)
        if split is not None and row_split(row) != split:
            continue
        sample = to_sample(row, folder, label_set, label_field, where)
        if repetitions.has(sample.id):
            raise UserError(f"{where}: the id {shown(sample.id)} is used by an earlier row: ids must be unique")
        rows.extend((0, number, start, crc32(line)))
    if not rows:
        found = describe_splits(parse_row(line, where) for where, line, *_ in manifest_lines(folder))
        raise UserError(f"{path}: no rows{in_split(split)}; {found}")
    return LazySamples([Source(folder, label_set, label_field)], np.frombuffer(rows, np.int64).reshape(-1, 4))


class Repetitions:
    """Finds the ids that a manifest repeats.

    It is first gone through for the hashes that come twice; of the ids only those with such a hash are then kept.
    """

    def __init__(self, folder: Path) -> None:
        hashes = array("q")
        for where, line, *_ in manifest_lines(folder):
            with suppress(UserError, LookupError, TypeError):  # a bad row, which its reader reports
                hashes.append(hash(row_id(parse_row(line, where))))
        found, counts = np.unique(np.array(hashes, np.int64), return_counts=True)
        self._suspects = set(found[counts > 1].tolist())
        self._seen = set[str]()

    def has(self, name: str) -> bool:
        """Whether this was asked of the id before."""
        if hash(name) not in self._suspects:
            return False
        seen = name in self._seen
        self._seen.add(name)
        return seen


def load_mixture(
    paths: Sequence[str], *, split: str | None = None, labels: LabelSpec = None, label_field: str = "label"
) -> LazySamples:
    """Samples of several folders, each with its own label set if `labels` is None.

    Ids and groups then begin with their folder's path, so that two sets never share one; those of a single folder stay
    as they are. Raises UserError as `load_samples`, and for a folder given twice.
    """
    if len(set(paths)) < len(paths):
        raise UserError(f"data.train names a folder twice: {', '.join(paths)}")
    loaded = [load_samples(path, split=split, labels=labels, label_field=label_field) for path in paths]
    if len(paths) == 1:
        return loaded[0]
    sources = [replace(samples.sources[0], prefix=f"{path}:") for path, samples in zip(paths, loaded, strict=True)]
    return LazySamples(sources, np.concatenate([s.rows + np.array([place, 0, 0, 0]) for place, s in enumerate(loaded)]))


def label_spec(folder: Path, labels: LabelSpec, label_field: str = "label") -> LabelSpec:
    """The label set that was asked for, else that of the folder's own `labels.yaml`, else None."""
    if labels is None and label_field == "label" and os.path.lexists(folder / LABELS):
        return str(folder / LABELS)  # also if it is a link that leads nowhere, which reading it says
    return labels


def found_labels(folder: Path, label_field: str) -> list[str]:
    """Labels that the rows name, each once. Raises UserError for a malformed row or one without a label."""
    rows = ((where, parse_row(line, where)) for where, line, *_ in manifest_lines(folder))
    return list(dict.fromkeys(name for where, row in rows for name in named_labels(row, label_field, where)))


def resolve_folder(path: str) -> Path:
    """Folder of a data set, given as a path or as `embedded:NAME`. Raises UserError if there is no manifest."""
    if path.startswith(EMBEDDED):
        from emor3.tiny.folders import ensure_domain  # draws with the tiny model's world only when asked to

        return ensure_domain(path.removeprefix(EMBEDDED))
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise UserError(f"{path}: no such folder; give a folder with {MANIFEST} in it, or embedded:scenes8")
    if not (folder / MANIFEST).is_file():
        raise UserError(
            f"{path}: no {MANIFEST} in this folder; `emor3 init {path}` makes a data folder of class folders "
            "or a table, and docs/datasets.md tells what a row holds"
        )
    return folder


def drawn_folders(paths: Iterable[str]) -> list[Path]:
    """Folders of those data sets that are embedded, and so drawn: what their pictures show is known."""
    return [resolve_folder(path) for path in paths if path.startswith(EMBEDDED)]


def label_set_for(spec: LabelSpec, found: Iterable[str]) -> LabelSet:
    """The label set a person asked for; for None that of the labels found, a built-in one if they are the same.

    Raises UserError for an unknown name, a malformed file or fewer than two labels.
    """
    if spec is None:
        return _label_set_of(found)
    if isinstance(spec, LabelSet):
        return spec
    if not isinstance(spec, str):
        return taxonomy.label_set_from(list(spec), "custom")
    if Path(spec).suffix in (".yaml", ".yml"):
        return taxonomy.read_label_set(Path(spec))
    if "," in spec:
        return taxonomy.label_set_from([label.strip() for label in spec.split(",")], "custom")
    return taxonomy.get_label_set(spec)


def _label_set_of(found: Iterable[str]) -> LabelSet:
    spelt: dict[str, str] = {}
    for label in found:
        spelt.setdefault(taxonomy.normalise(label), label.strip())
    for built_in in taxonomy.BUILT_IN:
        if {taxonomy.normalise(label) for label in built_in.labels} == spelt.keys():
            return built_in
    return taxonomy.label_set_from(sorted(spelt.values()), "from the data")


def splits_of(folder: Path) -> set[str]:
    """Names of the splits that a folder has. Raises UserError for a malformed row."""
    return {row_split(parse_row(line, where)) for where, line, *_ in manifest_lines(folder)}


def fixed_subset(samples: LazySamples, limit: int | None) -> list[Sample]:
    """So many of the samples in their order, the same ones every time and in every run; None takes all."""
    if limit is None or limit >= len(samples):
        return list(samples)
    return list(samples.pick(sorted(Random(0).sample(range(len(samples)), limit))))


def in_split(split: str | None) -> str:
    return "" if split is None else f" in split {split!r}"


def describe_splits(rows: Iterable[Mapping[str, Any]]) -> str:
    """What a data set has instead, for messages: "it has test 249, train 495"."""
    counts = Counter(row_split(row) for row in rows)
    return "it has " + (", ".join(f"{name} {count}" for name, count in sorted(counts.items())) or "no rows at all")
