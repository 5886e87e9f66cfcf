"""Frames of the clips of an import, as JPEG files; those that one which ends early has drawn are there for the next."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from emor3.data.importers.clips.finding import frame_files
from emor3.errors import UserError
from emor3.storage.clips import check_decoder, middles, too_few, write_frames

FRAMES = "frames"
"""Where an imported folder keeps the frames of its clips."""
JOURNAL = "drawn.jsonl"


class Drawing:
    """Draws the frames of one clip after another."""

    def __init__(self, place: Path, count: int) -> None:
        """`place` is where they are kept until the import ends; `count` frames are drawn of each clip."""
        self.place, self.count = place, count
        self.taken_up = 0
        """Clips whose frames an earlier import had drawn."""
        self._drawn = dict(_read(place / JOURNAL))
        self._wanted = set[str]()
        place.mkdir(parents=True, exist_ok=True)
        self._journal = (place / JOURNAL).open("a", encoding="utf-8")

    def frames(self, clip: Path, name: str) -> tuple[list[str], list[float] | None]:
        """Files of a clip's frames, relative to the imported folder, and their times in seconds, if these are known.

        Raises ValueError, which says what is wrong with the clip, and UserError if the decoder is not installed.
        """
        check_decoder()
        self._wanted.add(name)
        files = [f"{name}/{number:03d}.jpg" for number in range(1, self.count + 1)]
        stat = clip.stat()
        version = [stat.st_size, stat.st_mtime_ns, self.count]
        known = self._drawn.get(name)
        if known is not None and known["version"] == version and all((self.place / file).is_file() for file in files):
            self.taken_up += 1
        else:
            known = {"clip": name, "version": version, "times": self._draw(clip, files)}
            self._journal.write(json.dumps(known) + "\n")
            self._journal.flush()
        return [f"{FRAMES}/{file}" for file in files], known["times"]

    def _draw(self, clip: Path, files: list[str]) -> list[float] | None:
        folder = (self.place / files[0]).parent
        shutil.rmtree(folder, ignore_errors=True)  # of other frames, or half of them
        folder.mkdir(parents=True)
        try:
            times = write_frames(clip, [self.place / file for file in files])
        except UserError as error:
            folder.rmdir()
            raise ValueError(str(error).removeprefix(f"clip {clip} ")) from None
        return None if None in times else [time for time in times if time is not None]

    def settle(self, folder: Path) -> None:
        """Put the frames into the folder of the import, without those of clips that it no longer has."""
        self._journal.close()
        for name in self._drawn.keys() - self._wanted:
            shutil.rmtree(self.place / name, ignore_errors=True)
        if len(list(self.place.iterdir())) > 1:
            self.place.rename(folder / FRAMES)


@contextmanager
def drawing(folder: Path, out: Path, count: int) -> Iterator[Drawing]:
    """A drawing for the import that fills the draft `folder` and will become `out`; what it drew outlives a failure."""
    mounted = os.path.ismount(out)  # beside it lies another disk: then a failed import draws anew
    place = (folder if mounted else out.parent) / f".{out.name}.{FRAMES}"
    drawn = Drawing(place, count)
    try:
        yield drawn
    except BaseException:
        if (folder / FRAMES).is_dir() and not place.exists():
            (folder / FRAMES).rename(place)
        if not any(path.is_dir() for path in place.iterdir()):
            shutil.rmtree(place)  # nothing was drawn
        raise
    (folder / FRAMES / JOURNAL).unlink(missing_ok=True)
    shutil.rmtree(place, ignore_errors=True)


def pick_frames(clip: Path, name: str, count: int) -> list[str]:
    """Files in the middles of as many equal parts of a folder of frames, by name. Raises ValueError for too few."""
    files = frame_files(clip)
    if short := too_few(len(files), count):
        raise ValueError(short)
    return [f"{name}/{files[place].name}" for place in middles(len(files), count)]


def _read(journal: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Clip -> what was noted of it; a line cut short by a kill is left out."""
    if not journal.is_file():
        return
    for line in journal.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            noted = json.loads(line)
            yield noted["clip"], noted
        except (ValueError, LookupError, TypeError):
            continue
