"""Blocks of settings as YAML has them: unknown keys are refused with the nearest known one."""

import difflib
import reprlib
from collections.abc import Iterable
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from emor3.bounds import odd_number

_SHORT = reprlib.Repr()
_SHORT.maxlevel = 2


class Block(BaseModel):
    """Settings that refuse unknown keys, and numbers that are infinite or of over 32 bits, and never change."""

    # The text under a setting is its description in the schema, from which docs/reference.md is made.
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    @field_validator("*")
    @classmethod
    def _holds_usable_numbers(cls, value: Any) -> Any:
        odd = odd_number(value)
        if odd is not None:
            raise ValueError(odd)
        return value


def describe_fault(error: ValidationError, schema: type[BaseModel]) -> str:
    """The first fault in one line, with the nearest known key where a key is unknown."""
    fault = error.errors()[0]
    place = ".".join(map(short, fault["loc"]))
    if fault["type"] == "extra_forbidden":
        *parents, key = map(short, fault["loc"])
        known = _known_keys(schema, parents)
        near = difflib.get_close_matches(key, known, n=1)
        hint = f"did you mean {'.'.join([*parents, *near])!r}?" if near else f"known here: {', '.join(known)}"
        return f"unknown setting {place!r}; {hint}"
    if fault["type"] == "missing":
        return f"setting {place!r} is missing"
    if fault["type"] == "value_error":  # our own words
        return f"{place}: {fault['msg'].removeprefix('Value error, ')}"
    return f"{place}: {fault['msg']} (found {short(fault['input'], quoted=True)})"


def short(value: object, quoted: bool = False) -> str:
    """A value of any size in a few words: YAML's anchors make megabytes of a line, and Python prints no huge number."""
    if isinstance(value, str) and not quoted:
        return value
    try:
        return _SHORT.repr(value)
    except ValueError:
        return "a number of thousands of digits"


def _known_keys(schema: type[BaseModel], location: Iterable[str]) -> list[str]:
    for part in location:
        schema = _block_of(schema.model_fields[part].annotation)
    return list(schema.model_fields)


def _block_of(annotation: Any) -> type[BaseModel]:
    """The settings block of a field's type, optional or not."""
    return next(
        part for part in (annotation, *get_args(annotation)) if isinstance(part, type) and issubclass(part, Block)
    )
