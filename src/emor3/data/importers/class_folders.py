"""Sets whose folder names are the labels: FI, EmotionROI, CAER-S, UnBiasedEmo, WebEmo, and anyone's own folders."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from emor3.data.importers.items import Dropped, Found, Item, Options, WrongLayoutError
from emor3.data.importers.sources import is_read, listing, pictures_below, require, split_of, subfolders, unread
from emor3.method import labels as taxonomy
from emor3.method.labels import WEBEMO2, WEBEMO7, WEBEMO25, LabelSet

UNBIASED6 = LabelSet(
    "unbiasedemo6",
    ("anger", "fear", "joy", "love", "sadness", "surprise"),
    polarity={"joy": 1, "love": 1, "anger": -1, "fear": -1, "sadness": -1},
)


@dataclass(frozen=True)
class ClassFolders:
    """A layout `root/[split/]label/**/image`. Called with a source it yields what is there."""

    labels: LabelSet | None
    """Set that the folder names belong to (also by an alias, as `Happy` for joy); None takes them as they are."""
    splits: Mapping[str, str] | None = None
    """Folder -> split; None if the label folders stand at the root."""

    def __call__(self, source: Path, options: Options) -> Found:
        for folder, split in self._split_folders(source):
            for label_folder in subfolders(folder):
                label = self._label(label_folder, source)
                pictures = pictures_below(label_folder)
                if not pictures:
                    yield Dropped(f"{label_folder.relative_to(source).as_posix()}/", "it holds no picture", label)
                for path in pictures:
                    name = path.relative_to(source).as_posix()
                    yield Item(name, label, split) if is_read(path) else unread(path, source, label)

    def _split_folders(self, root: Path) -> Iterator[tuple[Path, str | None]]:
        if self.splits is None:
            yield root, None
            return
        found = [folder for folder in subfolders(root) if folder.name.lower() in self.splits]
        if not found:
            raise WrongLayoutError(f"none of the folders {', '.join(self.splits)}; {listing(root)}")
        for folder in found:
            yield folder, self.splits[folder.name.lower()]

    def _label(self, folder: Path, source: Path) -> str:
        if self.labels is None:
            return folder.name
        label = taxonomy.resolve(folder.name, self.labels)
        if label is None:
            names = ", ".join(self.labels.labels)
            raise WrongLayoutError(f"folder {folder.relative_to(source)}/, which is none of {names}")
        return label


INNER = {"images", "image", "imgs", "img", "pictures", "data", "video", "videos", "clips", "frames"}
"""Names of folders between a split and its labels; they are no labels themselves."""

Folders: TypeAlias = tuple[str, ...]
"""Names of the folders above a picture, from the source down."""


def own_folders(source: Path, options: Options) -> Found:
    """Anyone's class folders: labels, labels below splits or splits below labels, all in a wrapper or not.

    Raises WrongLayoutError, which draws what was found, if folders could be read in more than one way.
    """
    for found in labelled(source, pictures_below(source), "picture"):
        path = source / str(found.image) if isinstance(found, Item) else None
        yield found if path is None or is_read(path) else unread(path, source, found.label)


def labelled(source: Path, paths: Iterable[Path], kind: str) -> Found:
    """What lies in class folders, each with the label and the split of its folders; `kind` says what it is."""
    places = {path: path.relative_to(source).parts[:-1] for path in paths}
    read = _layout(Counter(places.values()), kind)
    for path, folders in places.items():
        split, label = read(folders)
        name = path.relative_to(source).as_posix()
        yield Dropped(name, "it lies in no folder of a label") if label is None else Item(name, label, split)
    for folder in _empty_beside(source, set(places.values()), set(places)):
        yield Dropped(f"{folder.relative_to(source).as_posix()}/", f"it holds no {kind}", folder.name)


def _empty_beside(source: Path, seen: set[Folders], found: set[Path]) -> Iterator[Path]:
    """Folders with nothing in them, beside others that hold something; what was found may be folders itself."""
    parents = {folders[:-1] for folders in seen if folders}
    filled = {folders[:depth] for folders in seen for depth in range(1, len(folders) + 1)}
    for parent in sorted(parents):
        for folder in subfolders(source.joinpath(*parent)):
            if (*parent, folder.name) not in filled and folder not in found:
                yield folder


def _layout(counts: Counter[Folders], kind: str) -> Callable[[Folders], tuple[str | None, str | None]]:
    """What reads split and label from the folders of a picture, or whatever its kind is."""
    inside = [folders for folders in counts if folders]
    depth = _wrappers(inside)
    tops = {folders[depth] for folders in inside if len(folders) > depth}
    of_splits = {top for top in tops if _is_split(top)}
    if of_splits and of_splits < tops:
        raise _unclear(counts, kind, f"{_names(of_splits)} beside {_names(tops - of_splits)}")
    below = {folders[: depth + 2] for folders in inside if len(folders) > depth + 1}
    if of_splits:
        place_in = {top: _label_place([f for f in inside if f[depth] == top], depth + 1) for top in tops}
        split_place, first_free = depth, depth + 2
    elif any(_is_split(name) for *_, name in below):
        if not all(len(folders) > depth + 1 and _is_split(folders[depth + 1]) for folders in inside):
            raise _unclear(counts, kind, "splits below some labels, beside other pictures of them")
        place_in, split_place, first_free = dict.fromkeys(tops, depth), depth + 1, depth + 2
    else:
        place_in, split_place, first_free = dict.fromkeys(tops, depth), None, depth + 1

    def read(folders: Folders) -> tuple[str | None, str | None]:
        if len(folders) <= depth:
            return None, None
        place = place_in[folders[depth]]
        split = None if split_place is None else split_of(folders[split_place])
        if any(map(_is_split, folders[max(place, split_place or 0, first_free - 1) + 1 :])):
            raise _unclear(counts, kind, "a split inside a label")
        return split, folders[place] if len(folders) > place and folders[place].lower() not in INNER else None

    for folders in inside:
        if (label := read(folders)[1]) is not None and _is_split(label):
            raise _unclear(counts, kind, f"a split inside a split, {label}")
    return read


def _wrappers(inside: Sequence[Folders]) -> int:
    """How many folders around everything are neither splits nor labels."""
    depth = 0
    while inside and all(len(folders) > depth + 1 for folders in inside):
        names = {folders[depth] for folders in inside}
        if len(names) > 1 or _is_split(next(iter(names))):
            break
        depth += 1
    return depth


def _label_place(inside: Sequence[Folders], place: int) -> int:
    """Where labels stand in a split; `train/train/` and `train/images/` hold them one further down."""
    while all(len(folders) > place + 1 for folders in inside):
        names = {folders[place].lower() for folders in inside}
        if len(names) > 1 or not names <= INNER | {inside[0][place - 1].lower()}:
            break
        place += 1
    return place


def _is_split(name: str) -> bool:
    return split_of(name) is not None


def _names(folders: Iterable[str]) -> str:
    return ", ".join(f"{name}/" for name in sorted(folders)[:4])


def _unclear(counts: Counter[Folders], kind: str, why: str) -> WrongLayoutError:
    drawn = [f"{'/'.join(folders)}/ ({count})" for folders, count in sorted(counts.items())]
    more = f" and {len(drawn) - 12} more" if len(drawn) > 12 else ""
    return WrongLayoutError(
        f"{why}, which can be read in more than one way. Folders and their {kind}s: {', '.join(drawn[:12])}{more}"
    )


# --- WebEmo: class indices, and three levels of labels ----------------------------------------------------------------

_SIX = tuple(label for label in WEBEMO7.labels if label != "confusion")
WEBEMO6 = LabelSet("webemo6", _SIX, polarity={label: WEBEMO7.polarity[label] for label in _SIX})
"""Six classes as other work has them: confusion is counted as sadness."""
WEBEMO_POLICIES = {"webemo25": WEBEMO25, "webemo7": WEBEMO7, "webemo6": WEBEMO6, "webemo2": WEBEMO2}


def webemo(source: Path, options: Options) -> Found:
    """`images/{train25,test25}/<0..24>/`: the indices are those of the sorted 25 names."""
    if (source / "test25.txt").exists() and not (source / "images").exists():
        raise WrongLayoutError("only the lists of addresses: download the images first to images/test25/<index>/")
    require(source, "images")
    layout = ClassFolders(None, splits={"train25": "train", "test25": "test"})
    for item in layout(source / "images", options):
        if isinstance(item, Dropped) or isinstance(item.image, bytes):
            if isinstance(item, Dropped):
                yield item
            continue
        name = item.label
        if name.isdecimal() and int(name) < len(WEBEMO25.labels):
            label: str | None = WEBEMO25.labels[int(name)]
        else:
            label = taxonomy.match(name, WEBEMO25) or WEBEMO25.aliases.get(name)
        if label is None:
            raise WrongLayoutError(f"folder {name}/, which is no index from 0 to 24 and no label of webemo25")
        yield Item(f"images/{item.image}", webemo_label(label, options.policy), item.split)


def webemo_label(label: str, policy: str) -> str:
    """A label of the 25 at the level of the policy: webemo25, webemo7, webemo6 or webemo2."""
    if policy != "webemo6":
        return taxonomy.fold(label, WEBEMO25, WEBEMO_POLICIES[policy])
    parent = taxonomy.fold(label, WEBEMO25, WEBEMO7)
    return "sadness" if parent == "confusion" else parent
