"""The row that travels through a host: one JSON text in one column, which `emor3 data export` writes.

A host hands a reward what its data set holds and little more: EasyR1 one text, verl no other row of the batch. So all
that `score_rows` needs stands in that text: label, label set, paths of the images, and of those that a description must
not fit; and human votes and annotated words, if there are any. Equal texts are completions of one prompt.
"""

import json
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

from emor3.errors import UserError, one_line
from emor3.method.types import Sample

COLUMN = "emor3"
"""Column that holds the row, if the host lets a data set name its columns."""


def pack(sample: Sample, images: Sequence[str], distractors: Sequence[Sequence[str]]) -> str:
    """A sample as the text of its row, with the paths of its images, and for each distractor of its images.

    >>> from emor3.method.labels import LabelSet
    >>> moods = LabelSet("moods", ("fear", "joy"))
    >>> text = pack(Sample("1", ("fog.jpg",), "fear", moods), ["/data/fog.jpg"], [["/data/sun.jpg"]])
    >>> unpack(text, "row 0")["distractors"]
    [['/data/sun.jpg']]
    """
    row = {
        "id": sample.id,
        "label": sample.label,
        "labels": list(sample.labels.labels),
        "images": list(images),
        **({} if sample.text is None else {"text": sample.text}),
        **({} if sample.clip is None else {"clip": sample.clip}),
        "distractors": [list(paths) for paths in distractors],
        "distribution": None if sample.distribution is None else dict(sample.distribution),
        "attributes": dict(sample.attributes),
    }
    return json.dumps(row, ensure_ascii=False)


def unpack(text: Any, where: str) -> dict[str, Any]:
    """The row of a text. Raises UserError, which says where rows come from, for anything else."""
    try:
        row = json.loads(text)
    except (TypeError, ValueError, RecursionError):
        row = None
    if isinstance(row, dict) and "label" in row:
        return row
    raise UserError(
        f"{where}: expected the JSON text of a row with label, labels, images and distractors, found "
        f"{reprlib.repr(text)}: write the data by `emor3 data export DIR OUT --for HOST`"
    )


def image_paths(row: Mapping[str, Any], where: str) -> list[str]:
    """Paths of the images of a row, none if it has a text. Raises UserError, which says where rows come from."""
    paths = row.get("images")
    if paths is None and row.get("text"):
        return []
    if isinstance(paths, list) and all(isinstance(path, str) and path for path in paths) and (paths or row.get("text")):
        return paths
    raise UserError(
        f"{where} (sample {one_line(str(row.get('id')))}): expected 'images', a list of image files, found "
        f"{reprlib.repr(paths)}: write the data by `emor3 data export DIR OUT --for HOST`, which puts them there"
    )
