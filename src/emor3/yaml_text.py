"""YAML as people write it: plain values, or one line that says what is wrong."""

from pathlib import Path
from typing import Any

import yaml

from emor3.errors import UserError, one_line
from emor3.files import read_text


def parse_yaml(text: str, what: str) -> Any:
    """YAML as plain values; `what` it should hold is named in the UserError where it is none."""
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError, RecursionError) as error:
        # PyYAML lets errors of its own converters through, as for the date 2026-13-01 or an empty `!!int`.
        raise UserError(f"{what} is not YAML: {one_line(str(error))}") from None


def read_yaml(path: Path, what: str) -> Any:
    """The content of a YAML file; `what` it should hold is named in the UserError where it cannot be read."""
    try:
        return parse_yaml(read_text(path), f"the {what} {path}")
    except OSError as error:
        raise UserError(f"cannot read the {what} {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"the {what} {path} is not YAML: {error}") from None
