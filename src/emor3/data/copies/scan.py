"""Digest and perceptual hash of every image of some sets: about 60 bytes an image in memory, on several processes."""

import hashlib
import os
import signal
from array import array
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from itertools import groupby, islice
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from emor3.data.copies.hashes import BYTES, DISTANCE, PIXELS, Hashes, perceptual_hash
from emor3.data.folders import EMBEDDED, resolve_folder
from emor3.data.importers.sources import images_below, split_of
from emor3.data.rows import MANIFEST, manifest_lines, parse_row, row_content, row_id, row_split
from emor3.errors import UserError, printable
from emor3.progress import Bar
from emor3.storage.files import file_digest
from emor3.storage.images import open_image

ALL = "all"
"""Split of what has none."""
TOGETHER = 64
"""Images that a process is given at a time."""
DECODED = 2 * PIXELS
"""Pixels of the shorter side below which a JPEG is not decoded smaller: at half of it hashes move by up to 8 bits."""
SEPARATOR = "\x1f"
"""Between the fields of a name; no file name or label holds it."""


class Name(NamedTuple):
    """What tells an image from others."""

    set: str
    split: str
    label: str
    """Empty if the set has none."""
    id: str
    path: str


class Cell(NamedTuple):
    """One split of one set."""

    set: str
    split: str


class Look(NamedTuple):
    """What one image file is known by."""

    digest: bytes
    """SHA-256 of the file; empty if it cannot be read."""
    hash: bytes
    """Perceptual hash; empty for a blank picture."""
    fault: str = ""


@dataclass
class Scan:
    """N images of some sets."""

    sets: Sequence[str]
    cells: list[Cell] = field(default_factory=list)
    """In the order in which they were met."""
    rows: Counter[str] = field(default_factory=Counter)
    """set -> rows of its manifest, or images of its folder."""
    faults: list[str] = field(default_factory=list)
    """Rows and images that cannot be used."""
    cell: NDArray[np.intp] = field(default_factory=lambda: np.empty(0, np.intp))
    """[N]: place of each image in `cells`."""
    digests: Hashes = field(default_factory=lambda: np.empty((0, BYTES), np.uint8))
    """[N, 32]"""
    hashes: Hashes = field(default_factory=lambda: np.empty((0, BYTES), np.uint8))
    """[N, 32]; those of blank pictures are 255 throughout, which no hash is."""
    names: "Names" = field(default_factory=lambda: Names())

    @property
    def blank(self) -> NDArray[np.bool_]:
        """[N]: which pictures have nothing in them that a hash could tell apart."""
        return np.asarray(self.hashes[:, 0] == 255)


BLANK = b"\xff" * BYTES


class Names:
    """Names of images in a file that vanishes with the process; where each begins is all that is kept in memory."""

    def __init__(self) -> None:
        self._file: BinaryIO = TemporaryFile()  # noqa: SIM115 - open as long as this is
        self._starts = array("q")

    def add(self, name: Name) -> None:
        """Append a name."""
        self._starts.append(self._file.tell())
        self._file.write(f"{SEPARATOR.join(name)}\n".encode(errors="surrogateescape"))

    def __getitem__(self, place: int) -> Name:
        self._file.seek(self._starts[place])
        line = self._file.readline()
        self._file.seek(0, os.SEEK_END)
        return Name(*line[:-1].decode(errors="surrogateescape").split(SEPARATOR))


def scan(sets: Sequence[str], workers: int) -> Scan:
    """Look at every image of the sets, each given as a data folder, `embedded:NAME` or a folder of images.

    Rows that share one image file in one split count once, and so do images of one row that look alike. Raises
    UserError for a set without images or given twice.
    """
    if len(set(sets)) < len(sets):
        raise UserError(f"a folder is given twice: {', '.join(sets)}")
    found = Scan(sets)
    cells, cell_of = dict[Cell, int](), array("q")
    digests, hashes = bytearray(), bytearray()
    total = sum(map(_count, sets))
    with Bar("images", *Progress.get_default_columns()[1:], error=True, transient=True) as progress:
        task = progress.add_task(f"{len(sets)} sets" if len(sets) > 1 else printable(sets[0]), total=total)
        for _, row in groupby(_looks(_entries(found), workers), lambda seen: (seen[0].set, seen[0].id)):
            for name, look in _apart(list(row)):
                if look.fault:
                    found.faults.append(f"{name.set}, {name.id}: {look.fault}")
                    continue
                cell_of.append(cells.setdefault(Cell(name.set, name.split), len(cells)))
                digests += look.digest
                hashes += look.hash or BLANK
                found.names.add(name)
            progress.advance(task)
    found.cells = list(cells)
    found.cell = np.frombuffer(cell_of, np.int64).astype(np.intp)
    found.digests = np.frombuffer(digests, np.uint8).reshape(-1, BYTES)
    found.hashes = np.frombuffer(hashes, np.uint8).reshape(-1, BYTES)
    if missing := [name for name in sets if name not in {cell.set for cell in cells}]:
        raise UserError(f"{missing[0]}: no image there can be read, of {found.rows[missing[0]]:,} rows or files")
    return found


def _apart(row: Sequence[tuple[Name, Look]]) -> Iterator[tuple[Name, Look]]:
    """Images of one row, of several the ones that differ: frames of a still clip are no copies, nor are blank ones."""
    kept = list[int]()
    for name, look in row:
        value = int.from_bytes(look.hash)
        if len(row) == 1 or look.fault:
            yield name, look
        elif look.hash and all((value ^ other).bit_count() > DISTANCE for other in kept):
            kept.append(value)
            yield name, look


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def content_sums(found: Scan) -> dict[str, str]:
    """Set -> SHA-256 of the sorted digests of its image files: the same images in any order and under any names."""
    of_set = np.array([found.sets.index(cell.set) for cell in found.cells])[found.cell]
    keys = found.digests.view(f"V{BYTES}").ravel()
    return {
        name: hashlib.sha256(np.sort(keys[of_set == place]).tobytes()).hexdigest()
        for place, name in enumerate(found.sets)
    }


def manifest_sum(name: str) -> str | None:
    """SHA-256 of a set's manifest; None for a folder of images alone."""
    folder = _folder(name)
    if not (folder / MANIFEST).is_file():
        return None
    return file_digest(folder / MANIFEST).hex()


def _folder(name: str) -> Path:
    folder = Path(name).expanduser()
    if name.startswith(EMBEDDED) or (folder / MANIFEST).is_file():
        return resolve_folder(name)
    if not folder.is_dir():
        raise UserError(f"{name}: no such folder; give data folders, folders of images, or embedded:scenes8")
    return folder


def _count(name: str) -> int:
    folder = _folder(name)
    return sum(1 for _ in (manifest_lines(folder) if (folder / MANIFEST).is_file() else images_below(folder)))


def _entries(found: Scan) -> Iterator[Name]:
    """Each image of the sets, once for each of its splits."""
    for name in found.sets:
        folder = _folder(name)
        rows = _rows if (folder / MANIFEST).is_file() else _files
        seen = set[int]()
        for entry in rows(name, folder, found):
            key = hash((entry.split, entry.path))
            if key not in seen:
                seen.add(key)
                yield entry


def _rows(name: str, folder: Path, found: Scan) -> Iterator[Name]:
    for where, line, *_ in manifest_lines(folder):
        found.rows[name] += 1
        try:
            row = parse_row(line, where)
            images, _ = row_content(row, folder, where)
        except UserError as error:
            found.faults.append(str(error))
            continue
        label = row.get("label")
        for path in images:
            yield Name(name, row_split(row), label if isinstance(label, str) else "", row_id(row), path)


def _files(name: str, folder: Path, found: Scan) -> Iterator[Name]:
    """Images of a folder without a manifest; the first folder that is named after a split is theirs."""
    for path in images_below(folder):
        found.rows[name] += 1
        below = path.relative_to(folder)
        split = next(filter(None, map(split_of, below.parts[:-1])), ALL)
        yield Name(name, split, "", below.as_posix(), str(path))


def look_at(path: str) -> Look:
    """Digest and hash of an image file, decoded no larger than the hash needs."""
    try:
        digest = file_digest(path)
        value = perceptual_hash(open_image(path, at_least=DECODED))
    except (OSError, UserError) as error:
        return Look(b"", b"", str(error))
    return Look(digest, b"" if value is None else value.to_bytes(BYTES))


def look_at_all(paths: Sequence[str]) -> list[Look]:
    """`look_at` for one batch of a process."""
    return [look_at(path) for path in paths]


def _looks(entries: Iterable[Name], workers: int) -> Iterator[tuple[Name, Look]]:
    """Each entry with what its image looks like, in order; on other processes if there are to be several."""
    entries = iter(entries)
    batches = iter(lambda: list(islice(entries, TOGETHER)), [])
    if workers == 1:
        for batch in batches:
            yield from zip(batch, look_at_all([name.path for name in batch]), strict=True)
        return
    waiting: deque[tuple[list[Name], Future[list[Look]]]] = deque()
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_ignore_interrupts)
    try:
        for batch in batches:
            waiting.append((batch, pool.submit(look_at_all, [name.path for name in batch])))
            if len(waiting) > 4 * workers:  # no more is read ahead than keeps the processes busy
                done, looks = waiting.popleft()
                yield from zip(done, looks.result(), strict=True)
        for done, looks in waiting:
            yield from zip(done, looks.result(), strict=True)
    finally:
        pool.shutdown(cancel_futures=True)


def _ignore_interrupts() -> None:
    """Leave Ctrl-C to the process that asked."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
