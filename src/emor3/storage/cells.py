"""Cells of CSV and TSV files: texts that no spreadsheet computes and no terminal obeys, and that read back the same."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from emor3.errors import is_unshown

_COMPUTED = re.compile(r"'*[=+\-@\t\r]")
"""How a formula begins for a spreadsheet, after as many apostrophes as we or others have put before it."""
_CODE = r"x[0-9a-f]{2}|u[0-9a-f]{4}|U00(?:0[0-9a-f]|10)[0-9a-f]{4}"
_UNSHOWN = re.compile(rf"(\\*)([^\n\t -~])|(\\+)({_CODE})")
"""A character that may have to be escaped, and what looks like one that has been."""
_ESCAPED = re.compile(rf"(\\+)({_CODE})")


def to_cell(text: str) -> str:
    """A text as a cell: an apostrophe before what a spreadsheet would compute, control characters escaped.

    >>> to_cell("=1+1"), to_cell("1+1")
    ("'=1+1", '1+1')
    """
    shown = _UNSHOWN.sub(_escape, text)
    return f"'{shown}" if _COMPUTED.match(shown) else shown


def from_cell(cell: str) -> str:
    """The text of a cell that `to_cell` made.

    >>> from_cell("'=1+1")
    '=1+1'
    """
    shown = cell[1:] if cell.startswith("'") and _COMPUTED.match(cell) else cell
    return _ESCAPED.sub(_restore, shown)


def table_text(rows: Iterable[Mapping[str, Any]], separator: str = ",") -> str:
    """Rows as a table with their texts as cells; numbers are written as they are."""
    cells = [{name: to_cell(v) if isinstance(v, str) else v for name, v in row.items()} for row in rows]
    text: str = pd.DataFrame(cells).to_csv(sep=separator, index=False)
    return text


def _escape(found: re.Match[str]) -> str:
    """An odd number of backslashes before an escaped character, an even one before what only looks like it."""
    slashes, character, others, code = found.groups()
    if code is not None:
        return others * (1 + is_unshown(_character(code))) + code
    if not is_unshown(character):
        return found[0]
    place = ord(character)
    code = f"x{place:02x}" if place < 0x100 else f"u{place:04x}" if place < 0x10000 else f"U{place:08x}"
    return f"{slashes * 2}\\{code}"


def _restore(found: re.Match[str]) -> str:
    slashes, code = found.groups()
    if not is_unshown(_character(code)):
        return found[0]
    return slashes[: len(slashes) // 2] + (_character(code) if len(slashes) % 2 else code)


def _character(code: str) -> str:
    return chr(int(code[1:], 16))
