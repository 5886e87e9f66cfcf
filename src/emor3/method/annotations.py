"""What people said of a sample beyond its label, read from a row: votes on labels, and words for what it shows.

Rows of a data folder and rows of other tools (`emor3.scoring.rows`) are read alike.
"""

import math
import reprlib
import sys
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from emor3.errors import UserError
from emor3.method import labels as taxonomy
from emor3.method.labels import LabelSet
from emor3.method.types import Attribute

match_label = lru_cache(maxsize=4096)(taxonomy.match)
"""`labels.match` for tables that write the same few labels again and again."""


def read_votes(row: Mapping[str, Any], labels: LabelSet) -> dict[str, float] | None:
    """The `distribution` of a row, votes or shares by label, as shares. Raises UserError if it is none.

    >>> read_votes({"distribution": {"Joy": 3, "fear": 1}}, LabelSet("moods", ("fear", "joy")))
    {'joy': 0.75, 'fear': 0.25}
    """
    votes = row.get("distribution")
    if votes is None:
        return None
    if not isinstance(votes, Mapping) or not all(is_finite(n) and n >= 0 for n in votes.values()):
        raise UserError("'distribution' must map labels to votes or shares of at least 0")
    total = sum(votes.values())
    shares = {match_label(name, labels): n / total for name, n in votes.items()} if 0 < total < math.inf else {}
    named = {label: share for label, share in shares.items() if label is not None}
    if len(named) != len(votes):
        raise UserError(f"'distribution' must hold votes for labels of the set {labels.name}, each once")
    return named


def read_attributes(row: Mapping[str, Any]) -> dict[str, Attribute]:
    """The `attributes` of a row: words, numbers or lists of words by name. Raises UserError for anything else."""
    values = row.get("attributes")
    if values is None:
        return {}
    if not isinstance(values, Mapping):
        raise UserError(
            f"'attributes' must map names to words, numbers or lists of words, found {reprlib.repr(values)}"
        )
    return {name: _attribute(name, value) for name, value in values.items()}


def _attribute(name: str, value: Any) -> Attribute:
    if isinstance(value, list | tuple) and all(isinstance(word, str) for word in value):
        return tuple(value)
    if isinstance(value, str) or (isinstance(value, int | float) and not isinstance(value, bool)):
        return value
    raise UserError(
        f"attribute {reprlib.repr(name)} must be a word, a number or a list of words, found {reprlib.repr(value)}"
    )


def is_finite(value: Any) -> bool:
    """Whether a value is a number that a float can hold: JSON has NaN, Infinity and whole numbers of any length."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
