"""`emor3 data import`: every set by name, with its layout, its label policies and where it is obtained."""

import csv
import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

from emor3 import __version__
from emor3.data.folders import LABELS
from emor3.data.importers.class_folders import WEBEMO6, ClassFolders, own_folders, webemo
from emor3.data.importers.faces import FERPLUS_LABELS, fer2013, ferplus
from emor3.data.importers.items import (
    DROP_TIES,
    FIRST_OF_TIES,
    SPLITS,
    Dropped,
    Item,
    Options,
    Reader,
    WrongLayoutError,
    favourite,
    listing,
    why_no_favourite,
)
from emor3.data.importers.lists import (
    KEYWORD,
    OASIS_POLICIES,
    VOTES6,
    VOTES7,
    MikelsVotes,
    artphoto,
    emoset,
    emotion6,
    oasis,
    rafdb,
)
from emor3.data.importers.tables import hub, table
from emor3.data.manifest import copy_file, link, write_rows
from emor3.data.rows import named_labels, to_sample
from emor3.data.subsets import hold_out
from emor3.errors import UserError, did_you_mean, one_line
from emor3.method.labels import BUILT_IN, EKMAN6, EKMAN7, MIKELS8, WEBEMO2, WEBEMO7, WEBEMO25, LabelSet, normalise
from emor3.storage.images import FAULTS, open_known
from emor3.storage.outputs import new_output, write_json

RECORD = "import.json"
TEST_SHARE = 0.3
"""Share of each label held out as test if the set has no split."""
LINKED, WRITTEN = "images", "pictures"
"""Where a folder keeps its images: a link to the source (or copies), and pictures unpacked from a table."""

UNBIASED6 = LabelSet(
    "unbiasedemo6",
    ("anger", "fear", "joy", "love", "sadness", "surprise"),
    polarity={"joy": 1, "love": 1, "anger": -1, "fear": -1, "sadness": -1},
)
WEBEMO_SIX = LabelSet("webemo6", WEBEMO6, polarity={label: WEBEMO7.polarity[label] for label in WEBEMO6})
FERPLUS8 = LabelSet("ferplus8", FERPLUS_LABELS, polarity={**EKMAN7.polarity, "contempt": -1})

AS_GIVEN = "as-given"
TIES: Mapping[str, LabelSet | None] = {DROP_TIES: MIKELS8, FIRST_OF_TIES: MIKELS8}


@dataclass(frozen=True)
class DataSet:
    """One distributed set."""

    title: str
    read: Reader
    policies: Mapping[str, LabelSet | None]
    """Label policy -> the label set it gives; the first is the default, None takes the labels that are found."""
    expected: str
    obtain: str
    published: int | None = None
    """Images of the set as its authors count them."""
    terms: str = ""
    """What its authors ask of users, where they say it."""


def _plain(labels: LabelSet) -> Mapping[str, LabelSet | None]:
    return {AS_GIVEN: labels}


IMAGE_EMOTION = "www.imageemotion.org (Machajdik and Hanbury 2010)"
LDL = "the authors of the Flickr_LDL and Twitter_LDL sets (Yang, Sun and Sun, AAAI 2017)"
YOURS = "your own files: docs/datasets.md shows the layout"

SETS: Mapping[str, DataSet] = {
    "emoset": DataSet(
        "EmoSet-118K",
        emoset,
        _plain(MIKELS8),
        "info.json, {train,val,test}.json, annotation/<emotion>/*.json and image/<emotion>/*.jpg",
        "vcc.tech/EmoSet (Yang et al., ICCV 2023)",
        118_102,
    ),
    "emotion6": DataSet(
        "Emotion6",
        emotion6,
        {KEYWORD: EKMAN6, VOTES7: EKMAN7, VOTES6: EKMAN6},
        "ground_truth.txt (tab-separated) and images/<keyword>/<n>.jpg",
        "the Advanced Multimedia Processing Lab at Cornell (Peng et al., CVPR 2015)",
        1_980,
    ),
    "webemo": DataSet(
        "WebEmo",
        webemo,
        {"webemo25": WEBEMO25, "webemo7": WEBEMO7, "webemo6": WEBEMO_SIX, "webemo2": WEBEMO2},
        "images/train25/<0..24>/ and images/test25/<0..24>/ with the pictures that the lists of addresses name",
        "rpand002.github.io/emotion.html (Panda et al., ECCV 2018)",
    ),
    "fi": DataSet(
        "FI",
        ClassFolders(MIKELS8, splits=SPLITS),
        _plain(MIKELS8),
        "train/<Emotion>/ and test/<Emotion>/ with Mikels' eight labels",
        "its authors (You, Luo, Jin and Yang, AAAI 2016)",
    ),
    "unbiasedemo": DataSet(
        "UnBiasedEmo",
        ClassFolders(UNBIASED6),
        _plain(UNBIASED6),
        "the folders anger, fear, joy, love, sadness and surprise, with images at any depth",
        "rpand002.github.io/emotion.html (Panda et al., ECCV 2018)",
    ),
    "artphoto": DataSet(
        "ArtPhoto", artphoto, _plain(MIKELS8), "testImages_artphoto/<label>_<id>.jpg", IMAGE_EMOTION, 806
    ),
    "abstract": DataSet(
        "Abstract",
        MikelsVotes("ABSTRACT_groundTruth.csv", "testImages_abstract", ","),
        TIES,
        "ABSTRACT_groundTruth.csv and testImages_abstract/",
        IMAGE_EMOTION,
        280,
    ),
    "flickr-ldl": DataSet(
        "Flickr_LDL", MikelsVotes("ground_truth.txt", "images", None), TIES, "ground_truth.txt and images/", LDL
    ),
    "twitter-ldl": DataSet(
        "Twitter_LDL", MikelsVotes("ground_truth.txt", "images", None), TIES, "ground_truth.txt and images/", LDL
    ),
    "emotionroi": DataSet(
        "EmotionROI",
        ClassFolders(EKMAN6, splits=SPLITS),
        _plain(EKMAN6),
        "train/<emotion>/ and test/<emotion>/ with Ekman's six labels",
        "the Advanced Multimedia Processing Lab at Cornell (Peng et al., ICIP 2016)",
        1_980,
    ),
    "caer-s": DataSet(
        "CAER-S",
        ClassFolders(EKMAN7, splits=SPLITS),
        _plain(EKMAN7),
        "train/ and test/ with the folders Anger, Disgust, Fear, Happy, Neutral, Sad and Surprise",
        "caer-dataset.github.io (Lee et al., ICCV 2019)",
    ),
    "fer2013": DataSet(
        "FER2013",
        fer2013,
        _plain(EKMAN7),
        "fer2013.csv with the columns emotion, pixels and Usage",
        "Kaggle: Challenges in Representation Learning, Facial Expression Recognition",
        35_887,
    ),
    "ferplus": DataSet(
        "FER+",
        ferplus,
        {"ekman7": EKMAN7, "ferplus8": FERPLUS8},
        "fer2013.csv (pictures) and fer2013new.csv (votes) side by side",
        "github.com/microsoft/FERPlus for the votes, Kaggle for fer2013.csv",
    ),
    "raf-db": DataSet(
        "RAF-DB",
        rafdb,
        {"aligned": EKMAN7, "original": EKMAN7},
        "EmoLabel/list_patition_label.txt and Image/aligned/ (or Image/original/)",
        "its authors, on request (Li, Deng and Du, CVPR 2017)",
        15_339,
    ),
    "oasis": DataSet(
        "OASIS",
        oasis,
        OASIS_POLICIES,
        "OASIS.csv and images/<theme>.jpg",
        "github.com/bkurdi/shiny-server, by its first author (Kurdi, Lozano and Banaji 2017)",
        900,
        "free use in research, cite doi:10.3758/s13428-016-0715-3; single pictures belong to whom its column Source "
        "names; some show nudity, violence or people who can be recognised",
    ),
    "folders": DataSet(
        "class folders", own_folders, {AS_GIVEN: None}, "[train|val|test/]<label>/ with images at any depth", YOURS
    ),
    "table": DataSet(
        "a table",
        table,
        {AS_GIVEN: None},
        "a .csv, .tsv, .jsonl or .parquet file with a column for the image and one for the label",
        YOURS,
    ),
    "hub": DataSet(
        "a data set of the hub",
        hub,
        {AS_GIVEN: None},
        "a folder (or a hub name) that the datasets library loads, with columns such as images, problem and answer",
        "huggingface.co/datasets",
    ),
}


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
    terms: str = ""
    manifest_sha256: str = ""
    emor3: str = __version__


def import_data(
    name: str,
    source: str,
    out: Path,
    *,
    policy: str | None = None,
    columns: Mapping[str, str] | None = None,
    label_names: Mapping[int, str] | None = None,
    copy: bool = False,
    test_share: float | None = None,
    seed: int = 0,
) -> Imported:
    """Write a folder with the manifest of a set in its distributed layout; images are linked, or copied if asked.

    A set without a split of its own gets `test_share` (0.3) of each label as its test split, drawn with the seed.
    Raises UserError for an unknown set or policy, and for a source that is not in the layout: what was expected, what
    was found, and where the set is obtained.
    """
    data_set = _get(name)
    options = Options(_policy(data_set, name, policy), columns or {}, label_names or {})
    path = Path(source).expanduser()
    if data_set.read is not hub and not path.exists():
        raise UserError(
            f"{source} does not exist: {data_set.title} is expected as {data_set.expected}; "
            f"it is obtained from {data_set.obtain}"
        )
    labels = data_set.policies[options.policy]
    imported = Imported(
        name, source, options.policy, labels.name if labels else "from the data", "the set's own", terms=data_set.terms
    )
    root = path.parent if path.is_file() else path
    with new_output(out, path) as folder:  # a table may have its folder beside it, if nothing is linked
        writer = _Writer(root, folder, out, copy, imported)
        _read(writer, data_set, source, path, options)
        if labels is None:
            _refuse_free_text(source, writer.rows)
        imported.vanished = writer.vanished()
        if all(row["split"] is None for row in writer.rows):
            share = TEST_SHARE if test_share is None else test_share
            _split(writer.rows, share, seed)
            imported.split = f"{share:g} of each label held out as test, seed {seed}"
        elif test_share is not None:
            raise UserError("--test-share does nothing here: the set has splits of its own: leave it out")
        imported.rows = _counted(writer.rows)
        imported.manifest_sha256 = write_rows(folder, writer.rows)
        if labels is not None:
            (folder / LABELS).write_text(_label_file(labels), encoding="utf-8")
        write_json(folder / RECORD, asdict(imported))
    return imported


def _read(writer: "_Writer", data_set: DataSet, source: str, path: Path, options: Options) -> None:
    """Take all rows of a source. Raises UserError if it is not in the layout of its set, or nothing of it is usable."""
    try:
        for found in data_set.read(path, options):
            writer.take(found)
        if data_set.read in (table, hub):
            writer.merge_votes()
        writer.drop_unreadable(data_set.policies[options.policy])
        if not writer.rows:
            first = writer.imported.dropped[0] if writer.imported.dropped else {}
            detail = f"{first['what']}: {first['reason']}" if first else listing(writer.root)
            raise WrongLayoutError(f"no usable image; {detail}")
    except (WrongLayoutError, csv.Error, UnicodeDecodeError) as error:
        raise UserError(
            f"{source} is not {data_set.title} as it is distributed: expected {data_set.expected}; found {error}. "
            f"It is obtained from {data_set.obtain}"
        ) from None


def _counted(rows: Iterable[dict[str, Any]]) -> dict[str, dict[str, int]]:
    """split -> label -> rows, labels as first spelt; a row without a split goes to train."""
    counted: dict[str, dict[str, int]] = {}
    spelt: dict[str, str] = {}
    for row in rows:
        row["split"] = row["split"] or "train"
        counts = counted.setdefault(row["split"], {})
        label = spelt.setdefault(normalise(row["label"]), row["label"])
        counts[label] = counts.get(label, 0) + 1
    return counted


SHOWN = 5


def describe(imported: Imported, out: Path) -> Iterator[str]:
    """What was imported, in lines; the first dropped entries are named, `import.json` names all."""
    for split, counts in sorted(imported.rows.items()):
        labels = ", ".join(f"{label} {count}" for label, count in sorted(counts.items()))
        yield f"{split}: {sum(counts.values())} rows ({labels})"
    yield f"label set: {imported.labels}; label policy: {imported.policy}; split: {imported.split}"
    seen, published = sum(sum(counts.values()) for counts in imported.rows.values()), SETS[imported.set].published
    if published is not None and seen + len(imported.dropped) != published:
        yield f"the set was published with {published} images, this source names {seen + len(imported.dropped)}"
    yield f"kept: {seen} rows"
    if imported.votes:
        yield imported.votes
    if imported.dropped:
        yield f"dropped: {len(imported.dropped)}, all named in {out / RECORD}"
        yield from _reasons(imported.dropped)
    if imported.vanished:
        yield f"no row is left of: {one_line(', '.join(imported.vanished))}"
    if imported.terms:
        yield f"terms: {imported.terms}"
    yield f"written to: {out}"


def _reasons(dropped: Iterable[Mapping[str, str]]) -> Iterator[str]:
    """The commonest reasons, each with its count and its first entry."""
    first: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for entry in dropped:
        reason = entry["reason"].replace(repr(entry["what"]), "it")
        first.setdefault(reason, entry["what"])
        counts[reason] += 1
    for reason, count in counts.most_common(SHOWN):
        yield f"  {one_line(first[reason])}: {one_line(reason)}" + (f" ({count} such)" if count > 1 else "")
    if len(counts) > SHOWN:
        yield f"  and {counts.total() - sum(n for _, n in counts.most_common(SHOWN))} for other reasons"


MANY_ROWS, NEARLY_ONE_A_ROW = 8, 0.8


def _refuse_free_text(source: str, rows: list[dict[str, Any]]) -> None:
    """Raises UserError if nearly every row has a label of its own."""
    labels = {normalise(row["label"]) for row in rows}
    if len(rows) >= MANY_ROWS and len(labels) >= NEARLY_ONE_A_ROW * len(rows):
        raise UserError(
            f"{source}: {len(labels)} labels for {len(rows)} rows, as {one_line(rows[0]['label'])[:40]!r}: that is a "
            "free text, no label; give --column label=NAME"
        )


def _get(name: str) -> DataSet:
    if name in SETS:
        return SETS[name]
    hint = f"{did_you_mean(name, SETS)} There are".lstrip()
    raise UserError(f"unknown data set {name!r}: {hint} {', '.join(SETS)}")


def _policy(data_set: DataSet, name: str, policy: str | None) -> str:
    if policy is None:
        return next(iter(data_set.policies))
    if policy not in data_set.policies:
        raise UserError(f"{name} has no label policy {policy!r}: there are {', '.join(data_set.policies)}")
    return policy


def _split(rows: list[dict[str, Any]], share: float, seed: int) -> None:
    """Hold out whole groups, each counted with the label of its first row."""
    unit_of = [row["group"] or row.get("id") or row["file_name"] for row in rows]
    units: dict[str, str] = {}
    for unit, row in zip(unit_of, rows, strict=True):
        units.setdefault(unit, normalise(row["label"]))
    held_out = hold_out(units.items(), share, seed)
    for unit, row in zip(unit_of, rows, strict=True):
        row["split"] = "test" if unit in held_out else "train"


def _label_file(labels: LabelSet) -> str:
    if labels in BUILT_IN:
        return f"{labels.name}\n"
    return yaml.safe_dump({"labels": list(labels.labels), "polarity": dict(labels.polarity)}, sort_keys=False)


class _Writer:
    """Makes rows of items, puts their images in place, and notes what is dropped."""

    def __init__(self, root: Path, folder: Path, out: Path, copy: bool, imported: Imported) -> None:
        """`folder` is written to, and becomes `out` once it is whole."""
        self.root, self.folder, self.out, self.copy, self.imported = root, folder, out, copy, imported
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
        fields = {name: value for name, value in vars(found).items() if name != "image"}
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

    def merge_votes(self) -> None:
        """Make one row of those that share an image, if some image has several labels: each is then one vote.

        The label is the one with most votes; a tie is dropped. Where no labels differ, repeated rows are repetitions.
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
        self._sift(
            lambda row, where: found.update((normalise(name), name) for name in named_labels(row, "label", where))
        )
        label_set = labels or (LabelSet("from the data", tuple(found.values())) if found else None)
        if label_set is not None:
            self._sift(lambda row, where: to_sample(row, self.folder, label_set, "label", where))

    def _sift(self, check: Callable[[Mapping[str, Any], str], object]) -> None:
        kept = []
        for row in self.rows:
            where = row["id"] or row["file_name"]
            try:
                check(row, where)
                kept.append(row)
            except UserError as error:
                self._drop(where, str(error).removeprefix(f"{where}: "))
        self.rows = kept

    def _drop(self, what: str, reason: str) -> None:
        entry = {"what": what, "reason": reason}
        spelt = {field: text.encode(errors="backslashreplace").decode() for field, text in entry.items()}
        self.imported.dropped.append(spelt)

    def _refer(self, image: str) -> str:
        if image.startswith("/") or ".." in image.split("/"):
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
