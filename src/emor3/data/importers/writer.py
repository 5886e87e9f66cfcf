"""Writer of an imported data folder: rows of the manifest, their images in place, and a record of what was dropped."""

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from emor3 import __version__
from emor3.data.importers.clips.drawing import Drawing, pick_frames
from emor3.data.importers.items import Dropped, Item, favourite, why_no_favourite
from emor3.data.manifest import copy_file, link
from emor3.data.rows import leads_out, named_labels, to_sample
from emor3.errors import UserError
from emor3.method.labels import LabelSet, normalise
from emor3.storage.images import FAULTS, open_known

LINKED, WRITTEN = "images", "pictures"
"""Where a folder keeps its images: a link to the source (or copies), and pictures unpacked from a table."""


@dataclass
class Imported:
    """What an import wrote, as `import.json` keeps it."""

    set: str
    source: str
    policy: str
    labels: str
    """Name of the label set, or `from the data`."""
    split: str
    """Whose split it is."""
    rows: dict[str, dict[str, int]] = field(default_factory=dict)
    """split -> label -> rows."""
    dropped: list[dict[str, str]] = field(default_factory=list)
    """Each entry of the source that is no row, and why."""
    votes: str = ""
    """How rows that share an image became one."""
    vanished: list[str] = field(default_factory=list)
    """Labels of the source of which no row is left."""
    frames: int | None = None
    """Drawn of each clip; None for a set of images."""
    terms: str = ""
    manifest_sha256: str = ""
    emor3: str = __version__


class Writer:
    """Makes rows of items, puts their images in place, and notes what is dropped."""

    def __init__(
        self, root: Path, folder: Path, out: Path, copy: bool, imported: Imported, drawing: Drawing | None = None
    ) -> None:
        """`folder` is written to, and becomes `out` once it is whole; `drawing` draws the frames of clips."""
        self.root, self.folder, self.out, self.copy, self.imported = root, folder, out, copy, imported
        self.drawing = drawing
        self.rows: list[dict[str, Any]] = []
        self._seen: dict[str, dict[str, Any]] = {}
        self._repeated: list[tuple[dict[str, Any], dict[str, Any]]] = []
        self._labels: dict[str, str] = {}
        self._pictures: dict[str, str] = {}

    def take(self, found: Item | Dropped) -> None:
        """Add a row, or note why there is none."""
        if isinstance(found, Dropped):
            self._drop(found.what, found.reason)
            if found.label is not None:
                self._labels.setdefault(normalise(found.label), found.label)
            return
        self._labels.setdefault(normalise(found.label), found.label)
        fields = {name: value for name, value in vars(found).items() if name not in ("image", "is_clip")}
        if found.is_clip:
            self._take_clip(str(found.image), fields)
            return
        try:
            name = self._unpack(found.image) if isinstance(found.image, bytes) else self._refer(found.image)
            key = found.id or name
            f"{name}{key}{found.label}".encode()  # what UTF-8 cannot spell is refused here
            if key in self._seen:
                self._repeated.append((self._seen[key], {"file_name": name, **fields}))
                return
        except ValueError as error:
            what = found.id or (found.image if isinstance(found.image, str) else f"picture {len(self.rows)}")
            self._drop(what, str(error))
            return
        self.rows.append({"file_name": name, **fields})
        self._seen[key] = self.rows[-1]

    def _take_clip(self, clip: str, fields: Mapping[str, Any]) -> None:
        """Add a row of the frames of a clip, which is its id too unless it has one."""
        key = str(fields["id"] or clip)
        try:
            f"{clip}{key}{fields['label']}".encode()
            if key in self._seen:
                self._repeated.append((self._seen[key], {**fields, "id": key}))
                return
            shown = self._frames(clip)
        except ValueError as error:
            self._drop(key, str(error))
            return
        self.rows.append({**shown, **fields, "id": key})
        self._seen[key] = self.rows[-1]

    def _frames(self, clip: str) -> dict[str, Any]:
        """Files of the frames of a clip, its name, and the seconds at which they are shown."""
        if leads_out(clip):
            raise ValueError("it lies outside the folder of the set")
        place = self.root / clip
        assert self.drawing is not None
        if place.is_dir():
            names: list[str] = [self._refer(file) for file in pick_frames(place, clip, self.drawing.count)]
            return {"file_names": names, "clip": clip}
        if not place.is_file():
            raise ValueError("there is no such clip")
        names, times = self.drawing.frames(place, clip)
        return {"file_names": names, "clip": clip, "times": times}

    def merge_votes(self) -> None:
        """Make one row of those that share an image, if some image has several labels: each is then one vote.

        The label is the one with most votes; a tie is dropped. If no labels differ, repeated rows are repetitions.
        """
        by_image: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for row in (*self.rows, *(again for _, again in self._repeated)):
            by_image[self._pictures.get(row["file_name"], row["file_name"])].append(row)
        voted = [rows for rows in by_image.values() if len({normalise(row["label"]) for row in rows}) > 1]
        if not voted or any(row["distribution"] for rows in voted for row in rows):
            return
        self._repeated = []
        before = sum(map(len, by_image.values()))
        merged = [rows[0] if len(rows) == 1 else self._merge(rows) for rows in by_image.values()]
        self.rows = [row for row in merged if row is not None]
        self.imported.votes = (
            f"votes: {before} rows of {len(by_image)} images, one vote each, became {len(self.rows)} rows: the label "
            "is the one with most votes, a tie is dropped"
        )

    def _merge(self, rows: list[dict[str, Any]]) -> dict[str, Any] | None:
        spelt: dict[str, str] = {}
        votes = Counter(spelt.setdefault(normalise(row["label"]), row["label"]) for row in rows)
        label = favourite(votes)
        if label is None or len({row["split"] for row in rows}) > 1:
            why = why_no_favourite(votes) if label is None else "its votes are in several splits"
            self._drop(rows[0]["file_name"], f"{why} ({len(rows)} rows)")
            return None
        return {**rows[0], "id": None, "label": label, "distribution": dict(votes), **_means(rows)}

    def vanished(self) -> list[str]:
        """Labels of the source that no row has, as they were first spelt."""
        left = {normalise(row["label"]) for row in self.rows}
        return [label for form, label in self._labels.items() if form not in left]

    def drop_unreadable(self, labels: LabelSet | None) -> None:
        """Drop the rows that loading would refuse: a single one would make the folder useless."""
        for first, again in self._repeated:
            name = again["id"] or again["file_name"]
            other = "" if normalise(first["label"]) == normalise(again["label"]) else " with another label"
            self._drop(name, f"{name!r} is listed a second time{other}")
        found: dict[str, str] = {}
        self._sift(lambda row, where: found.update({normalise(n): n for n in named_labels(row, "label", where)}))
        label_set = labels or (LabelSet("from the data", tuple(found.values())) if found else None)
        if label_set is not None:
            self._sift(lambda row, where: to_sample(row, self.folder, label_set, "label", where))

    def _sift(self, check: Callable[[Mapping[str, Any], str], object]) -> None:
        usable = []
        for row in self.rows:
            where = row["id"] or row["file_name"]
            try:
                check(row, where)
                usable.append(row)
            except UserError as error:
                self._drop(where, str(error).removeprefix(f"{where}: "))
        self.rows = usable

    def _drop(self, what: str, reason: str) -> None:
        entry = {"what": what, "reason": reason}
        spelt = {field: text.encode(errors="backslashreplace").decode() for field, text in entry.items()}
        self.imported.dropped.append(spelt)

    def _refer(self, image: str) -> str:
        if leads_out(image):
            raise ValueError("its image lies outside the folder of the set")
        if not os.path.isfile(self.root / image):
            raise ValueError("there is no such image file")
        place = f"{LINKED}/{image}"
        if not self.copy and self.folder.resolve().is_relative_to(self.root.resolve()):
            raise UserError(
                f"{self.out} lies inside {self.root}, which images would be linked to: "
                "choose a folder outside it, or give --copy"
            )
        if self.copy:
            copy_file(self.root / image, self.folder / place)
        elif not (self.folder / LINKED).exists():
            link(self.folder / LINKED, self.root)
        return place

    def _unpack(self, content: bytes) -> str:
        try:
            with open_known(BytesIO(content)) as image:
                suffix = str(image.format).lower().replace("mpo", "jpeg")  # JPEGs of some telephones
        except (*FAULTS, Image.DecompressionBombError) as error:
            raise ValueError(f"its picture cannot be read ({error})") from None
        name = f"{WRITTEN}/{len(self._pictures):06d}.{suffix}"
        (self.folder / WRITTEN).mkdir(exist_ok=True)
        (self.folder / name).write_bytes(content)
        self._pictures[name] = hashlib.sha256(content).hexdigest()
        return name


def _means(rows: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Mean valence and arousal of the rows that give them."""
    given = {name: [row[name] for row in rows if row[name] is not None] for name in ("valence", "arousal")}
    return {name: sum(values) / len(values) for name, values in given.items() if values}
