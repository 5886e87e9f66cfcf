"""Sets whose folder names are the labels: FI, EmotionROI, CAER-S, UnBiasedEmo, WebEmo, and anyone's own folders."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from emor3 import taxonomy
from emor3.importers.items import (
    SPLITS,
    Dropped,
    Found,
    Item,
    Options,
    WrongLayoutError,
    images_below,
    listing,
    require,
)
from emor3.importers.items import subfolders as folders_of
from emor3.taxonomy import WEBEMO2, WEBEMO7, WEBEMO25, LabelSet


@dataclass(frozen=True)
class ClassFolders:
    """A layout `root/[split/]label/**/image`. Called with a source it yields what is there."""

    labels: LabelSet | None
    """Set that the folder names belong to (also by an alias, as `Happy` for joy); None takes them as they are."""
    root: str = "."
    splits: Mapping[str, str] | None = None
    """Folder -> split; None where the label folders stand at the root."""

    def __call__(self, source: Path, options: Options) -> Found:
        require(source, self.root)
        for folder, split in self._split_folders(source / self.root):
            for label_folder in folders_of(folder):
                label = self._label(label_folder.name)
                if label is None:
                    place = label_folder.relative_to(source)
                    raise WrongLayoutError(f"folder {place}/, which is none of {', '.join(self._names())}")
                for path in images_below(label_folder):
                    yield Item(path.relative_to(source).as_posix(), label, split)

    def _split_folders(self, root: Path) -> Iterator[tuple[Path, str | None]]:
        if self.splits is None:
            yield root, None
            return
        found = [folder for folder in folders_of(root) if folder.name.lower() in self.splits]
        if not found:
            raise WrongLayoutError(f"none of the folders {', '.join(self.splits)}; {listing(root)}")
        for folder in found:
            yield folder, self.splits[folder.name.lower()]

    def _label(self, name: str) -> str | None:
        return name if self.labels is None else taxonomy.resolve(name, self.labels)

    def _names(self) -> tuple[str, ...]:
        return () if self.labels is None else self.labels.labels


def own_folders(source: Path, options: Options) -> Found:
    """Anyone's class folders: below split folders where all top folders are named as splits."""
    tops = [folder.name.lower() for folder in folders_of(source)]
    splits = SPLITS if tops and all(name in SPLITS for name in tops) else None
    yield from ClassFolders(None, splits=splits)(source, options)


# --- WebEmo: class indices, and three levels of labels ----------------------------------------------------------------

WEBEMO_LEVELS = {"webemo25": WEBEMO25, "webemo7": WEBEMO7, "webemo2": WEBEMO2}
WEBEMO6 = tuple(label for label in WEBEMO7.labels if label != "confusion")
"""Six classes as other work has them: confusion is counted as sadness."""


def webemo(source: Path, options: Options) -> Found:
    """`images/{train25,test25}/<0..24>/`: the indices are those of the sorted 25 names."""
    if (source / "test25.txt").exists() and not (source / "images").exists():
        raise WrongLayoutError("only the lists of addresses: download the images first to images/test25/<index>/")
    require(source, "images")
    layout = ClassFolders(None, splits={"train25": "train", "test25": "test"})
    for item in layout(source / "images", options):
        if isinstance(item, Dropped) or isinstance(item.image, bytes):
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
        return taxonomy.fold(label, WEBEMO25, WEBEMO_LEVELS[policy])
    parent = taxonomy.fold(label, WEBEMO25, WEBEMO7)
    return "sadness" if parent == "confusion" else parent
