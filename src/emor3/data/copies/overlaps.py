"""How many images of one split have a copy in another, and which images are copies of each other."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from emor3.data.copies.hashes import BYTES, DISTANCE, near_links
from emor3.data.copies.scan import Name, Scan

Counts = NDArray[np.int64]


class Overlap(NamedTuple):
    """Images of one cell with a copy in another cell, or, if both are the same, with another copy in it."""

    of: int
    within: int
    """Places in `Scan.cells`."""
    same_file: int
    near: int
    """Near copies, those of the same file among them."""


@dataclass(frozen=True)
class Group:
    """Images that are copies of each other, by one link after another."""

    members: tuple[Name, ...]
    distance: int
    """Most bits of a link; 0 if all hashes are equal."""
    same_file: bool

    @property
    def two_labels(self) -> bool:
        """Whether a set has two of them with different labels."""
        labels = {(member.set, member.label) for member in self.members if member.label}
        return len({name for name, _ in labels}) < len(labels)


@dataclass
class Copies:
    """What was found in a scan."""

    scan: Scan
    overlaps: list[Overlap]
    distances: Counter[int]
    """Bits -> pairs of different hashes that differ so much."""
    group_of: NDArray[np.intp]
    """[N]: number of each image's group."""
    widest: Counter[int]
    """Group -> most bits of a link in it."""

    def groups(self) -> Iterator[Group]:
        """Groups of two or more images, those of most sets and splits first."""
        order = np.argsort(self.group_of, kind="stable")
        edges = np.flatnonzero(np.diff(self.group_of[order], prepend=-1, append=-1))
        members = [order[start:end] for start, end in pairwise(edges.tolist()) if end - start > 1]
        for images in sorted(members, key=lambda images: -len(set(self.scan.cell[images].tolist()))):
            same = len(np.unique(self.scan.digests[images], axis=0)) == 1
            names = tuple(map(self.scan.names.__getitem__, images.tolist()))
            yield Group(names, self.widest[int(self.group_of[images[0]])], same)


def find_copies(scan: Scan, most: int = DISTANCE) -> Copies:
    """Count copies between all splits of all sets; near ones differ in at most `most` bits of their hash (up to 16).

    Blank pictures have no hash and are copies only if their files are the same.
    """
    files, file_of = _distinct(scan.digests)
    hashes, hash_of = _distinct(_with_files_for_blank(scan))
    pictures = np.flatnonzero(hashes[:, 0] < 128)  # a hash has 255 bits; what stands for a blank file begins with 255
    one, other, bits = _links(hashes[pictures], most)
    one, other = pictures[one], pictures[other]
    number = len(hashes)
    links = coo_array((np.ones(len(one), np.int8), (one, other)), shape=(number, number)).tocsr()
    _, component = connected_components(links, directed=False)
    widest: Counter[int] = Counter()
    for group, distance in zip(component[one].tolist(), bits.tolist(), strict=True):
        widest[group] = max(widest[group], distance)
    same, near = _per_cell(scan, file_of, len(files)), _per_cell(scan, hash_of, number)
    reached = (links + links.T).astype(np.int64) @ near + near
    return Copies(
        scan,
        [
            Overlap(a, b, _sharing(same, same, a, b), _sharing(near, reached, a, b))
            for a in range(len(scan.cells))
            for b in range(len(scan.cells))
        ],
        Counter(bits.tolist()),
        component[hash_of].astype(np.intp),
        widest,
    )


def _links(hashes: NDArray[np.uint8], most: int) -> tuple[NDArray[np.intp], ...]:
    found = list(near_links(np.ascontiguousarray(hashes), most))
    empty = np.empty(0, np.intp)
    return tuple(np.concatenate([empty, *(part[place] for part in found)]) for place in range(3))


def _with_files_for_blank(scan: Scan) -> NDArray[np.uint8]:
    """Hashes [N, 32], and for a blank picture the digest of its file behind a first byte of 255."""
    keys = scan.hashes.copy()
    keys[scan.blank, 1:] = scan.digests[scan.blank, 1:]
    return keys


def _distinct(rows: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.intp]]:
    """The distinct rows [U, 32], and for each of N rows which of them it is."""
    values, place = np.unique(np.ascontiguousarray(rows).view(f"V{BYTES}").ravel(), return_inverse=True)
    return values.view(np.uint8).reshape(-1, BYTES), place.astype(np.intp)


def _per_cell(scan: Scan, key: NDArray[np.intp], keys: int) -> Counts:
    """[keys, C]: images of each cell with each key."""
    counts = np.zeros((keys, len(scan.cells)), np.int64)
    np.add.at(counts, (key, scan.cell), 1)
    return counts


def _sharing(counts: Counts, reached: Counts, a: int, b: int) -> int:
    """Images of cell a with one of cell b within reach, itself aside."""
    others = reached[:, b] - (counts[:, a] > 0 if a == b else 0)
    return int(counts[others > 0, a].sum())
