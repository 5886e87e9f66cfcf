"""A lock that lets one command at a time write to an output; the system releases it however its holder ends."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from emor3.errors import UserError
from emor3.signals import write_line

LOCK = ".lock"
PATIENCE = 1.0
"""Seconds that a process which was killed may take until it is gone."""
BETWEEN_TRIES = 0.05


@contextmanager
def held(folder: Path, patience: float | None = None) -> Iterator[None]:
    """Keep other commands out of a folder, which is made if it is missing, and removed again if it stays empty.

    Raises UserError if another process holds it for longer than `patience`, or it cannot be written to.
    """
    with _locked(folder / LOCK, folder, PATIENCE if patience is None else patience):
        yield


def is_held(folder: Path) -> bool:
    """Whether a command is writing to a folder just now. Makes and changes nothing there."""
    try:
        descriptor = os.open(folder / LOCK, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # a file system without locks
        return False
    finally:
        os.close(descriptor)
    return False


@contextmanager
def name_held(folder: Path) -> Iterator[None]:
    """As `held`, for a folder that appears under its name only when it is whole: the lock lies beside it."""
    place = folder.expanduser().resolve()
    with _locked(place.with_name(f".{place.name}{LOCK}"), folder, PATIENCE):
        yield


@contextmanager
def _locked(file: Path, folder: Path, patience: float) -> Iterator[None]:
    missing = [place for place in (file.parent, *file.parent.parents) if not place.exists()]
    descriptor = None
    try:
        descriptor = _take(file, folder, patience)
        yield
    finally:
        if descriptor is not None:
            _release(descriptor, file)
        for place in missing:
            with suppress(OSError):  # something was written there
                place.rmdir()


def _release(descriptor: int, file: Path) -> None:
    """Remove the lock and let it go, unless a person moved the folder meanwhile and another run began in its place."""
    with suppress(OSError):
        if _is_open_at(descriptor, file):
            file.unlink()
    os.close(descriptor)


def _take(file: Path, folder: Path, patience: float) -> int:
    """Descriptor of the locked file, which is the one that now lies there: its last holder removes it."""
    deadline = time.monotonic() + patience
    while True:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise UserError(f"cannot write to {folder}: {error.strerror}") from None
        if _try_to_lock(descriptor, folder) and _is_open_at(descriptor, file):
            with suppress(OSError):  # a full disk keeps the lock, and only its holder's number is not told
                os.truncate(descriptor, 0)
                os.write(descriptor, f"{os.getpid()}\n".encode())
            return descriptor
        os.close(descriptor)
        if time.monotonic() > deadline:
            raise UserError(
                f"another emor3 command{_holder(file)} is writing to {folder}: wait until it ends, stop it, or choose "
                "another output"
            )
        time.sleep(BETWEEN_TRIES)


def _try_to_lock(descriptor: int, folder: Path) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError as error:
        write_line(
            f"warning: the file system of {folder} has no locks ({error.strerror}): start no second command on it"
        )
    return True


def _is_open_at(descriptor: int, file: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), file.stat())
    except FileNotFoundError:
        return False


def _holder(file: Path) -> str:
    try:
        number = file.read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return ""
    return f" (process {number})" if number.isdecimal() else ""
