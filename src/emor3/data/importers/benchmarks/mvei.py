"""MVEI (arXiv 2509.21950): statements about the emotion of an image, each correct or incorrect.

Layout of the authors' own inference and metrics: `MVEI_metadata.json`, a list of `image_id` and `statement_list` with
`statement`, `label` and `class`, beside `images/`.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from emor3.data.importers.items import Dropped, Found, Item, Options, WrongLayoutError
from emor3.data.importers.sources import require
from emor3.method import labels as taxonomy
from emor3.method.labels import LabelSet

METADATA = "MVEI_metadata.json"
STATEMENT2 = LabelSet("statement2", ("correct", "incorrect"))
ALL = "all"
CLASSES = {
    "polarity": "sentiment polarity",
    "interpretation": "emotion interpretation",
    "context": "scene context",
    "subjectivity": "perception subjectivity",
}
POLICIES: Mapping[str, LabelSet | None] = dict.fromkeys((ALL, *CLASSES), STATEMENT2)
"""All statements, or those of one of the four dimensions."""


def mvei(source: Path, options: Options) -> Found:
    """One test row for each statement of the policy's dimension: the image, and the statement as its text."""
    require(source, METADATA, "images")
    try:
        entries = json.loads((source / METADATA).read_bytes())
    except (ValueError, RecursionError) as error:
        raise WrongLayoutError(f"{METADATA}, which is not JSON ({error})") from None
    if not isinstance(entries, list):
        raise WrongLayoutError(f"{METADATA}, which holds no list")
    for number, entry in enumerate(entries):
        where = f"{METADATA} entry {number}"
        if not isinstance(entry, dict) or not isinstance(entry.get("statement_list"), list):
            raise WrongLayoutError(f"{where} without a statement_list")
        for place, statement in enumerate(entry["statement_list"]):
            if options.policy == ALL or _class(statement) == CLASSES[options.policy]:
                yield _item(str(entry.get("image_id")), statement, f"{where}, statement {place}", place)


def _class(statement: Any) -> str:
    return str(statement.get("class", "")).strip().lower() if isinstance(statement, dict) else ""


def _item(image: str, statement: Mapping[str, Any] | Any, where: str, place: int) -> Item | Dropped:
    if not isinstance(statement, dict):
        return Dropped(where, f"it is {str(statement)[:80]!r}, no statement")
    text, label = statement.get("statement"), taxonomy.match(str(statement.get("label")), STATEMENT2)
    if label is None or not isinstance(text, str) or not text.strip():
        return Dropped(where, "a statement and the label correct or incorrect expected")
    attributes = {"class": _class(statement)}
    return Item(
        f"images/{image}", label, "test", group=image, attributes=attributes, id=f"{image}#{place}", text=text.strip()
    )
