"""Blocks of settings as YAML has them: unknown keys are refused with the nearest known one."""

import difflib
from collections.abc import Iterable
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, ValidationError


class Block(BaseModel):
    """Settings that refuse unknown keys and never change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def describe_fault(error: ValidationError, schema: type[BaseModel]) -> str:
    """The first fault in one line, with the nearest known key where a key is unknown."""
    fault = error.errors()[0]
    place = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        *parents, key = (str(part) for part in fault["loc"])
        known = _known_keys(schema, parents)
        near = difflib.get_close_matches(key, known, n=1)
        hint = f"did you mean {'.'.join([*parents, *near])!r}?" if near else f"known here: {', '.join(known)}"
        return f"unknown setting {place!r}; {hint}"
    if fault["type"] == "missing":
        return f"setting {place!r} is missing"
    if fault["type"] == "value_error":  # our own words
        return f"{place}: {fault['msg'].removeprefix('Value error, ')}"
    return f"{place}: {fault['msg']} (found {fault['input']!r})"


def _known_keys(schema: type[BaseModel], location: Iterable[str]) -> list[str]:
    for part in location:
        schema = _block_of(schema.model_fields[part].annotation)
    return list(schema.model_fields)


def _block_of(annotation: Any) -> type[BaseModel]:
    """The settings block of a field's type, optional or not."""
    return next(
        part for part in (annotation, *get_args(annotation)) if isinstance(part, type) and issubclass(part, Block)
    )
