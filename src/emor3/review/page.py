"""The pages of `emor3 review`, from templates that escape every text of models and data."""

from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from emor3.errors import UserError
from emor3.method.thinking import name_content
from emor3.method.types import Sample
from emor3.review.draw import Drawn
from emor3.review.marks import Mark
from emor3.storage.images import image_size
from emor3.templating import page_environment

TEMPLATES = files("emor3") / "review" / "templates"
KEYS = "123456789acdefghijklmnopqrtuvwxyz"
"""Keys of the labels, in order; without s and b, which skip and go back, and 0, which is "none of these"."""
NONE_KEY = "0"
SMALL = 96
"""Pixels of the longer side of a drawing that is shown enlarged as it is, not smoothed."""

ENVIRONMENT = page_environment("review")


def completion_page(place: int, drawn: Drawn, mark: Mark | None, token: str, **progress: Any) -> str:
    """The page of one completion, with what was marked before; nothing on it tells model, judge, label or sample."""
    sample, thought = drawn.prediction.sample, drawn.prediction.thought
    return ENVIRONMENT.get_template("completion.html").render(
        place=place,
        token=token,
        texts={"Step 1": thought.trigger, "Step 2": thought.feeling},
        description=thought.trigger,
        conclusion=thought.conclusion,
        choices=_choices(sample.labels.labels),
        none_key=NONE_KEY,
        content=name_content(len(sample.images), sample.text, sample.is_video),
        pictures=[picture for number, path in enumerate(sample.images) if (picture := _picture(place, number, path))],
        wanted=len(sample.images),
        text=sample.text,
        given=_given(mark, sample),
        **progress,
    )


def message_page(heading: str, message: str, way: tuple[str, str] | None = None) -> str:
    """A page with one message, and an address with its name to go on to."""
    return ENVIRONMENT.get_template("message.html").render(heading=heading, message=message, way=way)


def asset(name: str) -> str:
    """The style or the script."""
    return (TEMPLATES / name).read_text(encoding="utf-8")


def _choices(labels: Sequence[str]) -> list[tuple[int, str, str]]:
    """Place, label and key of each label; labels after the last key have none."""
    return [(place, label, KEYS[place] if place < len(KEYS) else "") for place, label in enumerate(labels)]


def _given(mark: Mark | None, sample: Sample) -> Mapping[str, str]:
    """The answers of a mark as the form has them."""
    if mark is None:
        return {"emotion": "", "describes": "", "follows": ""}
    emotion = "none" if mark.emotion is None else str(sample.labels.labels.index(mark.emotion))
    return {"emotion": emotion, "describes": _yes_no(mark.describes), "follows": _yes_no(mark.follows)}


def _yes_no(value: bool | None) -> str:
    return {True: "yes", False: "no", None: ""}[value]


def _picture(place: int, number: int, path: str) -> tuple[str, bool] | None:
    """Address of a picture and whether it is small; None if it cannot be read."""
    try:
        return f"/image/{place}/{number}", max(image_size(path)) <= SMALL
    except UserError:
        return None
