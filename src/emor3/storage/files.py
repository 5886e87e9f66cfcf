"""Open a file that a person names: regular files only, since a reader of a pipe or a device might wait for ever."""

import errno
import hashlib
import os
import stat


class IrregularFileError(OSError):
    """A pipe, a socket or a device in place of a file."""

    def __str__(self) -> str:
        return str(self.strerror)


def regular(path: str, flags: int) -> int:
    """Opener for `open`: raises an OSError for pipes, sockets and devices, at which a reader might wait for ever."""
    descriptor = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # else the opening of a pipe waits for a writer
    kind = os.fstat(descriptor).st_mode
    if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):  # of a folder, `open` says itself what it is
        os.close(descriptor)
        raise IrregularFileError(errno.EINVAL, "not a regular file", path)
    return descriptor


def file_digest(path: str | os.PathLike[str]) -> bytes:
    """SHA-256 of a regular file. Raises OSError as `open` does."""
    with open(path, "rb", opener=regular) as file:
        return hashlib.file_digest(file, "sha256").digest()


def read_text(path: str | os.PathLike[str], most: int = -1) -> str:
    """The text of a regular file in UTF-8, or its first `most` characters.

    Raises OSError and UnicodeDecodeError as `open` does.
    """
    with open(path, encoding="utf-8", opener=regular) as file:
        return file.read(most)
