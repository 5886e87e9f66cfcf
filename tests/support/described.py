"""Whether the reference page tells every key that is written."""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any


def undescribed(written: Mapping[str, Any], keys: Mapping[str, str]) -> list[str]:
    """Keys of a written record that the page does not list."""
    return [key for key in written if not any(fnmatchcase(key, pattern) for pattern in keys)]
