"""Read YAML as plain values, or in one line what is wrong with it; its anchors cannot fill the memory."""

from pathlib import Path
from typing import Any

import yaml

from emor3.errors import UserError, one_line
from emor3.storage.files import read_text

MOST = 200_000
"""Characters and values of a text, counted again wherever an alias (*name) repeats them: each stands in memory."""
LONGEST_NUMBER = 400
"""Characters; PyYAML takes quadratic time for some that are longer."""
NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")


def parse_yaml(text: str, what: str) -> Any:
    """YAML as plain values; `what` it should hold is named in the UserError if it is none, or too much of it."""
    if len(text) > MOST:
        raise UserError(f"{what} is too long: more than {MOST:,} characters")
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if node is None:
            return None
        if _size(node, {}) > MOST:
            raise UserError(f"{what} is too long: its aliases (*name) repeat more than {MOST:,} characters and values")
        return yaml.SafeLoader("").construct_document(node)
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError, RecursionError) as error:
        # PyYAML lets errors of its own converters through, as for the date 2026-13-01 or an empty `!!int`.
        raise UserError(f"{what} is not YAML: {one_line(str(error))}") from None


def read_yaml(path: Path, what: str) -> Any:
    """The content of a YAML file; `what` it should hold is named in the UserError if it cannot be read."""
    try:
        return parse_yaml(read_text(path, MOST + 1), f"the {what} {path}")
    except OSError as error:
        raise UserError(f"cannot read the {what} {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"the {what} {path} is not YAML: {error}") from None


def _size(node: yaml.Node, known: dict[int, int | None]) -> int:
    """Characters and values that a node comes to, those behind aliases each time. ValueError for one inside itself.

    Linear in the text, whatever the aliases multiply. None in `known` is a node that is being counted.
    """
    if id(node) not in known:
        known[id(node)] = None
        known[id(node)] = min(1 + _content_size(node, known), MOST + 1)  # more digits say no more
    size = known[id(node)]
    if size is None:
        raise ValueError("an anchor (&name) holds an alias of itself")
    return size


def _content_size(node: yaml.Node, known: dict[int, int | None]) -> int:
    if isinstance(node, yaml.ScalarNode):
        if node.tag in NUMBERS and len(node.value) > LONGEST_NUMBER:
            raise ValueError(f"a number of {len(node.value):,} characters")
        return len(node.value)
    if isinstance(node, yaml.MappingNode):
        return sum(_size(part, known) for pair in node.value for part in pair)
    return sum(_size(part, known) for part in node.value)
