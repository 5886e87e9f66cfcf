"""Marks as people make them, for tests of what is computed from them."""

from emor3.method.types import Prediction
from emor3.review.marks import Mark, fingerprint


def mark(
    of: Prediction,
    reviewer: str,
    emotion: str | None = "joy",
    *,
    describes: bool = True,
    follows: bool | None = True,
    data: str = "d",
) -> Mark:
    """What a reviewer said of a completion."""
    return Mark(
        data=data,
        id=of.sample.id,
        completion=fingerprint(of),
        reviewer=reviewer,
        emotion=emotion,
        describes=describes,
        follows=follows,
        seed=0,
        seconds=5.0,
        time="2026-11-27T12:00:00+00:00",
    )
