"""Data sets of rows with one image, several or none."""

import json
from pathlib import Path
from typing import Any

from PIL import Image

ROWS = (
    {"file_name": "{}-red.png", "label": "joy"},
    {"file_names": ["{}-red.png", "{}-blue.png"], "label": "fear"},
    {"text": "The <b>fog</b> <image> lifts. ({})", "label": "joy"},
    {"file_name": "{}-blue.png", "text": "At last. ({})", "label": "fear"},
)


def write_rows(folder: Path, rows: list[dict[str, Any]]) -> str:
    """Write rows as the data set of a folder; returns its path."""
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(folder)


def write_mixed(folder: Path) -> str:
    """Write four rows for each of two splits: one image, two, none but a text, one with a text; returns the path."""
    rows = []
    for shade, split in enumerate(("train", "test")):
        Image.new("RGB", (64, 64), (200, 0, shade)).save(folder / f"{split}-red.png")
        Image.new("RGB", (64, 64), (0, shade, 200)).save(folder / f"{split}-blue.png")
        filled = (json.loads(json.dumps(content).replace("{}", split)) for content in ROWS)
        rows += [{**row, "id": f"{split}-{number}", "split": split} for number, row in enumerate(filled)]
    return write_rows(folder, rows)
