"""What readers ask of a source: its folders, its pictures, the splits in its names, its lines and their numbers."""

import csv
import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path

from emor3.data.importers.items import Dropped, WrongLayoutError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
UNREAD_SUFFIXES = frozenset({".avif", ".heic", ".heif", ".jxl", ".jp2", ".svg", ".psd", ".tga", ".ico", ".dng", ".cr2"})
"""Pictures in forms that are never opened: they are named, never left out silently."""

SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev", "development"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""Folder names of splits, in lower case, and what we call them."""


def split_of(name: str) -> str | None:
    """The split that a name stands for in any case, also as `tests`, `test_set` or `Testset`, or None."""
    return SPLITS.get(re.sub(r"(s|[ _-]?sets?)$", "", name.strip().casefold()))


def require(folder: Path, *names: str) -> None:
    """Raises WrongLayoutError if one of the files or folders is missing."""
    for name in names:
        if not (folder / name).exists():
            raise WrongLayoutError(f"no {name}; {listing(folder)}")


def listing(folder: Path) -> str:
    """What a folder holds, in a few words."""
    if not folder.is_dir():
        return f"{folder} is no folder"
    names = sorted(f"{path.name}/" if path.is_dir() else path.name for path in folder.iterdir())
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return f"the folder holds {', '.join(names[:8])}{more}" if names else "the folder is empty"


def subfolders(folder: Path) -> list[Path]:
    """Folders in a folder, less those that `is_system` knows."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not is_system(path.name))


_SYSTEM = {"__macosx", "@eadir", "lost+found", "$recycle.bin", "#recycle", "system volume information", "__pycache__"}


def is_system(name: str) -> bool:
    """Whether a file or folder is hidden, or made by a system, an archiver or a server rather than by a person."""
    return name.startswith(".") or name.casefold() in _SYSTEM


def images_below(folder: Path) -> Iterator[Path]:
    """Image files at any depth, in order; hidden files (`._1.jpg`, `.DS_Store`) and system folders hold no images."""
    return (path for path in pictures_below(folder) if is_read(path))


def pictures_below(folder: Path) -> list[Path]:
    """As `images_below`, with the pictures in forms that are not read."""
    return files_below(folder, IMAGE_SUFFIXES | UNREAD_SUFFIXES)


def files_below(folder: Path, suffixes: Collection[str]) -> list[Path]:
    """Files with one of these suffixes at any depth, in order, less those that `is_system` knows."""
    found = []
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not is_system(name)]
        found += [Path(place, name) for name in files if not is_system(name)]
    return sorted(path for path in found if path.suffix.lower() in suffixes and path.is_file())


def is_read(picture: Path) -> bool:
    """Whether a picture's suffix is one of those that are opened."""
    return picture.suffix.lower() in IMAGE_SUFFIXES


def unread(picture: Path, source: Path, label: str | None = None) -> Dropped:
    """A picture in a form that is never opened."""
    reason = f"{picture.suffix.lower()} files are not read: save it as PNG or JPEG"
    return Dropped(picture.relative_to(source).as_posix(), reason, label)


def rows_of(path: Path, delimiter: str | None) -> Iterator[tuple[str, list[str]]]:
    """Cells of each non-blank line, less spaces and quotes around them, with its place; None splits at white space."""
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        lines = map(str.split, file) if delimiter is None else csv.reader(file, delimiter=delimiter)
        for number, cells in enumerate(lines, start=1):
            if any(cells):
                yield f"{path.name} line {number}", [cell.strip().strip("'\"").strip() for cell in cells]


def number(text: str) -> float | None:
    """The number that a cell holds, also with a decimal comma, or None."""
    text = text.strip()
    found = re.fullmatch(r"[+-]?([0-9]+[.,]?[0-9]*|[.,][0-9]+)([eE][+-]?[0-9]{1,3})?", text)
    return float(text.replace(",", ".")) if found else None
