"""Which clips a folder holds, and which of them a table means by a name."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from emor3.data.importers.sources import files_below, images_below
from emor3.storage.clips import CLIP_SUFFIXES


def clips_below(folder: Path) -> list[Path]:
    """Video files at any depth, in order; if there are none, the folders of images, as sets of frames have them."""
    videos = files_below(folder, CLIP_SUFFIXES)
    return videos or sorted({path.parent for path in images_below(folder)} - {folder})


def frame_files(folder: Path) -> list[Path]:
    """Images of one folder in the order of the numbers in their names: 2.jpg before 10.jpg."""
    return sorted((path for path in images_below(folder) if path.parent == folder), key=_numbered)


def _numbered(path: Path) -> list[tuple[int, str]]:
    """Text and digits of a name by turns, digits as numbers, so that names compare as people count."""
    return [(int(digits or -1), text) for text, digits in re.findall(r"([^0-9]*)([0-9]{0,18})", path.name)]


class Clips:
    """Clips of a folder by the names that tables give them: a path, a file name, with or without suffix or zeros."""

    def __init__(self, root: Path, places: Sequence[Path]) -> None:
        """`places` are the folders below `root` in which to look, the first that has any clip."""
        self._by_name: dict[str, list[str]] = {}
        found = next((paths for place in places if place.is_dir() and (paths := clips_below(place))), [])
        for path in found:
            below = path.relative_to(root)
            names = (below.as_posix(), below.with_suffix("").as_posix(), path.name, path.stem)
            for key in {key for name in names for key in _keys(name)}:
                self._by_name.setdefault(key, []).append(below.as_posix())

    def find(self, written: str) -> str:
        """Path of the clip of a name, relative to the root. Raises ValueError if there is none, or several."""
        name = written.strip().replace("\\", "/").removeprefix("./")
        found = next((self._by_name[key] for key in (name, *_keys(name)) if key in self._by_name), [])
        if not found:
            raise ValueError("there is no such clip")
        if len(found) > 1:
            raise ValueError(f"several clips have its name: {', '.join(found[:3])}")
        return found[0]


def _keys(name: str) -> Iterator[str]:
    """A name, and as a number without leading zeros, which spreadsheets lose: 00001 and 1 are one."""
    yield name
    if name.isascii() and name.isdecimal():
        yield f"#{int(name)}"
