"""The one exception that reaches a person: what is wrong, where, and what to do."""

import difflib
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

UNSHOWN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Unicode categories of controls, of invisible orders to a reader such as another direction, and of broken text."""
JOINERS = "\u200c\u200d"
"""Of category Cf, yet part of how Persian and some emoji are spelt."""


def is_unshown(character: str) -> bool:
    """Whether a terminal or a reader would obey a character instead of showing it."""
    return unicodedata.category(character) in UNSHOWN and character not in JOINERS


def printable(text: str) -> str:
    """A text of data, a model or a server that a terminal shows and does not obey; its line breaks are kept."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(ascii(c)[1:-1] if is_unshown(c) and c != "\n" else c for c in text)


def one_line(text: str) -> str:
    """As `printable`, with white space and line breaks folded."""
    return printable(" ".join(text.split()))


def did_you_mean(name: str, known: Iterable[str], prefix: str = "") -> str:
    """The question after the known name that is nearest; "" if none is near.

    >>> did_you_mean("Mikels", ["mikels8", "ekman6"])
    "did you mean 'mikels8'?"
    """
    near = difflib.get_close_matches(name.lower(), list(known), n=1)
    return f"did you mean {prefix + near[0]!r}?" if near else ""


class UserError(Exception):
    """Bad input or settings. The CLI prints the message on one line and exits with status 2."""


@contextmanager
def refused_by(library: str) -> Iterator[None]:
    """What a library finds wrong inside with what a person set (ValueError) is told on one line."""
    try:
        yield
    except ValueError as error:
        raise UserError(f"{library} refuses these settings: {error}") from None
