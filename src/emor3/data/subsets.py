"""Draw reproducible subsets: by the SHA-256 of seed and id, so neither row order nor library versions matter.

A smaller draw with the same seed is part of a larger one.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

from emor3.data.folders import LABELS, describe_splits, load_samples, resolve_folder
from emor3.data.manifest import copy_file, link, write_lines
from emor3.data.rows import MANIFEST, file_names, manifest_lines, parse_row, row_id
from emor3.errors import UserError
from emor3.method.types import Sample
from emor3.storage.files import file_digest, read_text
from emor3.storage.outputs import new_output, write_json

IDS = "ids.txt"
RECORD = "sample.json"


def rank(seed: int, name: str) -> bytes:
    """Place of a name in the random order of a seed."""
    return hashlib.sha256(f"{seed}/{name}".encode()).digest()


def ranked(samples: Iterable[Sample], seed: int) -> list[tuple[int, str, str]]:
    """Place, split and label of every sample, in the random order of a seed. Samples are gone through once."""
    order = sorted((rank(seed, sample.id), place, sample.split, sample.label) for place, sample in enumerate(samples))
    return [(place, split, label) for _, place, split, label in order]


def first_of(label: str, order: Iterable[tuple[int, str, str]], number: int) -> list[int]:
    """Places of the first samples with a label, from the order that `ranked` gives."""
    return list(islice((place for place, _, name in order if name == label), number))


def hold_out(units: Iterable[tuple[str, str]], share: float, seed: int) -> set[str]:
    """Names of the units, given as (name, label), that become the test split: this share of each label, rounded."""
    by_label: dict[str, list[str]] = defaultdict(list)
    for name, label in units:
        by_label[label].append(name)
    drawn = (sorted(names, key=lambda name: rank(seed, name)) for names in by_label.values())
    return {name for names in drawn for name in names[: round(share * len(names))]}


def draw(
    order: Sequence[tuple[int, str, str]], labels: Sequence[str], size: int, seed: int, balanced: bool
) -> list[int]:
    """Places of the first `size` samples of the order, ascending; balanced: label counts differ by one at most.

    Which labels get one more is drawn too. Raises UserError if there are too few samples.
    """
    if size > len(order):
        raise UserError(f"there are only {len(order)} samples to draw {size} from")
    if not balanced:
        return sorted(place for place, *_ in order[:size])
    quota = _quota(labels, Counter(label for *_, label in order), size, seed)
    return sorted(place for label, number in quota.items() for place in first_of(label, order, number))


def _quota(labels: Sequence[str], counts: Mapping[str, int], size: int, seed: int) -> dict[str, int]:
    """Samples to draw of each label."""
    with_one_more = sorted(labels, key=lambda label: rank(seed, label))[: size % len(labels)]
    quota = {label: size // len(labels) + (label in with_one_more) for label in labels}
    rarest = min(labels, key=lambda label: counts[label])
    if short := [label for label in labels if counts[label] < quota[label]]:
        raise UserError(
            f"a balanced draw of {size} needs {quota[short[0]]} of {short[0]!r}, there are {counts[short[0]]}: "
            f"draw at most {counts[rarest] * len(labels)}, or give --natural to keep the labels' shares"
        )
    return quota


@dataclass(frozen=True)
class Drawn:
    """A subset as it was written."""

    folder: Path
    counts: Mapping[tuple[str, str], int]
    """(split, label) -> rows."""
    manifest_sha256: str
    ids_sha256: str


def sample_data(
    path: str, out: Path, sizes: Mapping[str, int], *, seed: int = 0, balanced: bool = True, copy: bool = False
) -> Drawn:
    """Write a folder with `sizes[split]` rows of each split; splits not named are left out.

    Rows are those of the source, byte for byte; `ids.txt` lists their ids and `sample.json` how they were drawn.
    Raises UserError if the data cannot be loaded or a draw is not possible.
    """
    samples = load_samples(path)
    order, labels = ranked(samples, seed), samples[0].labels.labels
    chosen: list[Sample] = []
    for split, size in sizes.items():
        of_split = [entry for entry in order if entry[1] == split]
        if not of_split:
            found = describe_splits({"split": name} for _, name, _ in order)
            raise UserError(f"{path}: no rows in split {split!r}; {found}")
        chosen += samples.pick(draw(of_split, labels, size, seed, balanced))
    settings = {"sizes": dict(sizes), "seed": seed, "balanced": balanced}
    return _write(path, out, chosen, settings, copy)


def pick_data(path: str, out: Path, ids: Sequence[str], *, copy: bool = False) -> Drawn:
    """Write the folder that an id list describes. Raises UserError if the source lacks one of the ids."""
    wanted = set(ids)
    by_id = {sample.id: sample for sample in load_samples(path) if sample.id in wanted}
    if missing := [name for name in ids if name not in by_id]:
        raise UserError(f"{path}: {len(missing)} of {len(ids)} ids are not in this data, the first is {missing[0]!r}")
    return _write(path, out, [by_id[name] for name in ids], {"ids": len(ids)}, copy)


def read_ids(path: Path) -> list[str]:
    """Ids of an id list, one a line. Raises UserError if it cannot be read, or is empty or double."""
    try:
        ids = read_text(path).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot read the id list ({error})") from None
    if not ids or len(set(ids)) < len(ids):
        raise UserError(f"{path}: an id list holds ids, one a line and each once")
    return ids


def read_sizes(sizes: Mapping[str, str]) -> dict[str, int]:
    """Rows to draw of each split. Raises UserError if one is not a positive whole number."""
    for split, size in sizes.items():
        if not size.isdecimal() or int(size) == 0:
            raise UserError(f"--size {split}={size}: the number of rows must be a whole number above 0")
    return {split: int(size) for split, size in sizes.items()}


def sample_lines(drawn: Drawn) -> Iterator[str]:
    """What was drawn, in lines."""
    for split in sorted({split for split, _ in drawn.counts}):
        of_split = {label: count for (name, label), count in drawn.counts.items() if name == split}
        labels = ", ".join(f"{label} {count}" for label, count in sorted(of_split.items()))
        yield f"{split}: {sum(of_split.values())} rows ({labels})"
    yield f"sha256 of the ids: {drawn.ids_sha256}"
    yield f"written to: {drawn.folder}"


def _write(path: str, out: Path, chosen: Sequence[Sample], settings: Mapping[str, Any], copy: bool) -> Drawn:
    source = resolve_folder(path)
    ids = {sample.id for sample in chosen}
    lines, images = [], list[str]()
    for where, line, *_ in manifest_lines(source):
        row = parse_row(line, where)
        if row_id(row) in ids:
            lines.append(line.rstrip(b"\n") + b"\n")
            images += file_names(row)
    with new_output(out, source) as folder:
        _place(source, folder, images, copy)
        if (source / LABELS).is_file():
            copy_file(source / LABELS, folder / LABELS)
        manifest = write_lines(folder / MANIFEST, lines)
        id_list = write_lines(folder / IDS, (f"{name}\n".encode() for name in sorted(ids)))
        origin = file_digest(source / MANIFEST).hex()
        sums = {"source_manifest_sha256": origin, "manifest_sha256": manifest, "ids_sha256": id_list}
        write_json(folder / RECORD, {**settings, **sums})
    counts = Counter((sample.split, sample.label) for sample in chosen)
    return Drawn(out, counts, manifest, id_list)


def _place(source: Path, folder: Path, names: Sequence[str], copy: bool) -> None:
    """Copies of the images, or a link for each entry of the source folder that images lie in."""
    tops = {PurePosixPath(name).parts[0] for name in names}
    if ours := sorted(tops & {MANIFEST, LABELS, IDS, RECORD}):
        raise UserError(f"{source}: a row names {ours[0]!r} as its image, which is a file of the data folder itself")
    if copy:
        for name in names:
            copy_file(source / name, folder / name)
    else:
        for top in sorted(tops):
            link(folder / top, source / top)
