"""Structured Emotional Thinking: the prompt that asks for it and the parser that reads it, side by side."""

from functools import cache
from importlib.resources import files
from pathlib import Path

from jinja2.sandbox import SandboxedEnvironment

from emor3.errors import UserError
from emor3.taxonomy import LabelSet


@cache
def load_template(name: str) -> str:
    """Text of a shipped template by name ("steps", "direct", "consistency", "coherence") or of a user's file by path.

    Raises UserError where neither exists.
    """
    shipped = files("emor3") / "templates" / f"{name}.txt"
    if shipped.is_file():
        return shipped.read_text(encoding="utf-8").strip()
    if Path(name).is_file():
        return Path(name).read_text(encoding="utf-8").strip()
    raise UserError(f"template {name!r} is neither a shipped template nor a file: give the path of a text file")


def render(template: str, **values: str) -> str:
    """Fill a template. Values are inserted as data: braces inside them are never evaluated."""
    return SandboxedEnvironment(keep_trailing_newline=False).from_string(template).render(**values)


def build_prompt(labels: LabelSet, template: str = "steps") -> str:
    """User turn that goes with the image: the instruction, with the K labels of the sample's own label set."""
    return render(load_template(template), labels=", ".join(labels.labels))
