"""Write files and folders whole or not at all, and over nothing; a place that cannot be written is one line."""

import errno
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from emor3.errors import UserError
from emor3.storage.locks import LOCK, held, name_held

DRAFT = ".tmp"
"""Suffix of what is being written, and the name of a draft folder inside the place where a disk is mounted."""
DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
UNWRITABLE = {
    *(errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR),
    *(errno.EEXIST, errno.ENAMETOOLONG, errno.EIO, errno.ESTALE),
}
TORCH_CUT_SHORT = ("PytorchStreamWriter failed", "unexpected pos", "cannot be opened")
"""What torch makes of a file that could not be written, without a number."""
_NUMBER = re.compile(r"os error (\d+)")  # as safetensors tells it


def fresh_folder(output: Path | None, kind: str) -> Path:
    """A folder to write to, absent or empty: the one asked for, or the next `runs/KIND-<n>`.

    Raises UserError as `check_free` if the one asked for holds something.
    """
    if output is None:
        return next(path for n in count(1) if not (path := Path("runs") / f"{kind}-{n}").exists())
    check_free(output)
    return output


@contextmanager
def fresh_output(output: Path | None, kind: str) -> Iterator[Path]:
    """`fresh_folder` for this process alone, written in place: what is done stays there if the command is killed.

    Raises UserError if another process writes to it.
    """
    folder = fresh_folder(output, kind)
    with written_to(folder), held(folder):
        check_free(folder)  # another process may have filled it meanwhile
        yield folder


@contextmanager
def new_output(out: Path, outside: Path | None = None) -> Iterator[Path]:
    """A draft folder that becomes `out` in one step when the block ends well, and vanishes when it does not.

    What a killed command left of its draft is replaced by the next one. Raises UserError if `out` exists with
    something in it, cannot be written to, is being written by another process, or lies inside the folder `outside`,
    to which it will refer.
    """
    out = out.expanduser().resolve()
    check_free(out)
    if outside is not None and out.is_relative_to(outside.resolve()):
        raise UserError(f"{out} lies inside {outside}, which it would refer to: choose a folder outside it")
    mounted = os.path.ismount(out)  # nothing can be put in its place, only into it
    with written_to(out), held(out) if mounted else name_held(out):
        check_free(out)  # another process may have filled it meanwhile
        draft = out / DRAFT if mounted else out.with_name(f".{out.name}{DRAFT}")
        shutil.rmtree(draft, ignore_errors=True)  # unlinks what is linked, and follows no link
        draft.mkdir()
        try:
            yield draft
            for part in draft.iterdir() if mounted else ():
                part.replace(out / part.name)
            if not mounted:
                draft.replace(out)
        finally:
            shutil.rmtree(draft, ignore_errors=True)


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """A draft folder that takes the place of `folder` if the block ends well, so that it is whole wherever it is found.

    What a killed command left of its draft is replaced by the next one.
    """
    draft = folder.with_name(f"{folder.name}{DRAFT}")
    shutil.rmtree(draft, ignore_errors=True)
    yield draft
    shutil.rmtree(folder, ignore_errors=True)
    draft.rename(folder)


def check_free(out: Path) -> None:
    """Raise UserError if a folder to be written holds something, or is none."""
    with written_to(out):
        if out.is_dir() and any(path.name not in (DRAFT, LOCK) for path in out.iterdir()):
            raise UserError(f"{out} exists and is not empty: choose a new folder, or delete that one")
        if out.exists() and not out.is_dir():
            raise UserError(f"{out} exists and is a file: choose a new folder")


def check_absent(path: Path) -> None:
    """Raise UserError if a file to be written exists."""
    if path.exists():
        raise UserError(f"{path} exists: choose another name, or delete it")


def write_whole(path: Path, content: str) -> None:
    """Write a file in one step, making the folders above it: a page or table that found no room is not there at all.

    Links and devices are written through. Raises UserError if the place cannot be written to.
    """
    text = content.encode("utf-8", "replace")  # records may hold halves of surrogate pairs
    with written_to(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_symlink() or (path.exists() and not path.is_file()):
            path.write_bytes(text)
            return
        with draft_of(path) as draft:
            draft.write_bytes(text)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file in one step: a killed run leaves the old file or the new one, never half of one."""
    # Halves of surrogate pairs, as in file names that are no text, become the escapes that JSON has for them.
    text = json.dumps(content, indent=2, ensure_ascii=False).encode(errors="backslashreplace")
    with draft_of(path) as draft:
        draft.write_bytes(text + b"\n")


@contextmanager
def draft_of(path: Path) -> Iterator[Path]:
    """A file beside `path` that takes its place in one step if the block ends well, and vanishes if it does not."""
    draft = path.with_name(path.name + DRAFT)
    try:
        yield draft
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)  # so that a disk too full for it leaves nothing that looks like a result


@contextmanager
def written_to(place: Path) -> Iterator[None]:
    """Turn what a place says that is read-only, full or no folder into one line that names it."""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        reason = hindrance(error)
        if reason is None:
            raise
        raise UserError(f"cannot write to {place}: {reason}") from None


def hindrance(error: Exception) -> str | None:
    """What hinders writing, in words; None if an error says something else."""
    if is_disk_full(error):
        return "the disk or a quota is full"
    number = _errno(error)
    if number in UNWRITABLE:
        return os.strerror(number)
    return "it is not writable, or full" if any(text in str(error) for text in TORCH_CUT_SHORT) else None


def is_disk_full(error: Exception) -> bool:
    """Whether a file could not be written for lack of room."""
    return _errno(error) in DISK_FULL or any(text in str(error) for text in TORCH_CUT_SHORT[:2])


def _errno(error: Exception) -> int:
    if isinstance(error, OSError):
        return error.errno or 0
    number = _NUMBER.search(str(error))
    return int(number[1]) if number else 0
