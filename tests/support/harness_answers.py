"""A small data folder and what a model of a harness answers about it, for tests of the adapters."""

import json
from pathlib import Path
from typing import Any

from PIL import Image

LABELS = ("joy", "fear", "calm")
WRITTEN = {
    "001": r"\boxed{joy}",
    "b 2": r"\boxed{Fear}",
    "NA": r"\boxed{fearful}",  # no label of the set, strictly
    "d": "I cannot tell.",
    "e": '<step1>fog\n\n\ta "wall"</step1><step2>tense</step2><step3>negative, high</step3>\n\\boxed{fear}',
    "f": r"\boxed{calm}",
}
"""Id -> completion. Ids and completions that tables take for numbers, for nothing or for two lines are among them."""


def write_answered_folder(folder: Path, **more: Any) -> str:
    """Six test rows of three labels: two of one group, three with votes; and a train row."""
    rows = [
        {"id": "001", "label": "joy", "group": "g", "distribution": {"joy": 3, "calm": 1}},
        {"id": "b 2", "label": "fear", "group": "g", "distribution": {"fear": 4}},
        {"id": "NA", "label": "fear"},
        {"id": "d", "label": "calm", "distribution": {"joy": 1, "calm": 1}},
        {"id": "e", "label": "fear"},
        {"id": "f", "label": "joy"},
    ]
    folder.mkdir(parents=True, exist_ok=True)
    for place, row in enumerate(rows):
        Image.new("RGB", (40, 30), (40 * place, 90, 120)).save(folder / f"{place}.png")
        row |= {"file_name": f"{place}.png", "split": "test", **more}
    rows.append({"id": "train", "label": "calm", "file_name": "0.png"})
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (folder / "labels.yaml").write_text("labels: [joy, fear, calm]\naliases: {fearful: fear}\n", encoding="utf-8")
    return str(folder)


def drawn(name: str, place: int) -> str:
    """The answer to a sample at one of M draws: another label at every draw, of some samples."""
    return WRITTEN[name] if place % 2 else rf"\boxed{{{LABELS[(place + len(name)) % 3]}}}"
