"""The one exception that reaches a person: what is wrong, where, and what to do."""

import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager

UNSHOWN = {"Cc", "Cs"}
"""Unicode categories of control characters, and of bytes in file names that are no text."""


def one_line(text: str) -> str:
    """A text from data or a model as one line that a terminal shows and does not obey: control characters escaped."""
    folded = " ".join(text.split())
    return "".join(c if unicodedata.category(c) not in UNSHOWN else ascii(c)[1:-1] for c in folded)


class UserError(Exception):
    """Bad input or settings. The CLI prints the message on one line and exits with status 2."""


@contextmanager
def refused_by(library: str) -> Iterator[None]:
    """What a library finds wrong inside with what a person set (ValueError) is told on one line."""
    try:
        yield
    except ValueError as error:
        raise UserError(f"{library} refuses these settings: {error}") from None
