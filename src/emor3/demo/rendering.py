"""A look at an image as HTML, in which every text of a model or a person is escaped, and as JSON."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import jinja2

from emor3.demo.looking import DemoSettings, Look
from emor3.errors import one_line, printable
from emor3.evaluation.predict import Decision, Drawn, finding_text, outcome_row
from emor3.method.thinking import name_content
from emor3.report.cards import thumbnail
from emor3.runs.records import finding_row
from emor3.stats.format import hundredths
from emor3.templating import page_environment

LIKELIEST = 8
"""Labels whose share is shown."""


def looks_html(looks: Sequence[Look], picture: str | Drawn, other: str, settings: DemoSettings) -> str:
    """The models side by side, on the picture or frames of a clip and, for its description, on the other one."""
    paths = picture.images if isinstance(picture, Drawn) else (picture,)
    return (
        _environment()
        .get_template("looks.html")
        .render(
            looks=looks,
            pictures=[thumbnail(path) for path in paths],
            content=name_content(len(paths), None, isinstance(picture, Drawn)),
            other=thumbnail(other),
            settings=settings,
            ranked=ranked,
        )
    )


def fault_html(fault: str) -> str:
    """What is wrong with what was given, as a sentence."""
    sentence = f"{fault[:1].upper()}{fault[1:]}."
    return _environment().get_template("fault.html").render(fault=one_line(sentence))


def looks_rows(looks: Sequence[Look]) -> list[dict[str, Any]]:
    """The same as JSON: for each model its answer and its decision as `emor3 predict --json` writes them."""
    return [
        {
            "model": look.model,
            "judge": look.judge,
            "answer": _row(look.answer),
            "elsewhere": finding_row(look.elsewhere),
            "sampled": None if look.sampled is None else _row(look.sampled),
        }
        for look in looks
    ]


def _row(outcome: Any) -> dict[str, Any]:
    return {name: value for name, value in outcome_row("", outcome).items() if name != "image"}  # a path of the server


def ranked(decision: Decision) -> list[tuple[str, float]]:
    """The likeliest labels with their shares, without those of no share."""
    shares = sorted(decision.distribution.items(), key=lambda item: -item[1])
    return [(label, share) for label, share in shares if share > 0][:LIKELIEST]


@cache
def _environment() -> jinja2.Environment:
    environment = page_environment("demo")
    environment.finalize = lambda value: value if hasattr(value, "__html__") else printable(str(value))
    environment.filters |= {"finding": finding_text, "hundredths": hundredths, "one_line": one_line}
    return environment
