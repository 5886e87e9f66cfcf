"""Write a data folder: `metadata.jsonl`, and images that are referenced through links unless copies are asked for.

Rows never name a place outside their folder. The folder reaches images elsewhere by a symbolic link inside it, so that
a row reads the same whether images were linked or copied; `cp -rL` makes a folder that can move.
"""

import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from emor3.data.rows import MANIFEST
from emor3.errors import UserError


def link(place: Path, target: Path) -> None:
    """Make `place` a symbolic link to the target. Raises UserError if the file system has none."""
    try:
        place.symlink_to(target.resolve(), target_is_directory=target.is_dir())
    except OSError as error:
        raise UserError(f"cannot link {place} to {target} ({error}): use --copy") from None


def copy_file(source: Path, place: Path) -> None:
    """Copy one file, making the folders above it."""
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, place)


def write_lines(path: Path, lines: Iterable[bytes]) -> str:
    """Write lines and return the SHA-256 of the file."""
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for line in lines:
            file.write(line)
            digest.update(line)
    return digest.hexdigest()


def write_rows(folder: Path, rows: Iterable[Mapping[str, Any]]) -> str:
    """Write the manifest of a folder and return its SHA-256. Fields without a value are left out."""
    kept = ({name: value for name, value in row.items() if value is not None} for row in rows)
    return write_lines(
        folder / MANIFEST, (f"{json.dumps(row, ensure_ascii=False)}\n".encode(errors="replace") for row in kept)
    )
