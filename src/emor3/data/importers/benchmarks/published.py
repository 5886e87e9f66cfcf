"""What others published on a set, to stand beside our own figures: model, figure, value, and where it is written.

Only numbers that were read at their source are here, of figures that we compute in the same way. None of them was
measured by us, with our prompts or on our copy of the data.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emor3.data.importers.importing import RECORD


@dataclass(frozen=True)
class Published:
    """What one source says of one model on one set under one label policy."""

    model: str
    figures: Mapping[str, float]
    """Name of ours -> value as we print it: a share from 0 to 1, or a number."""
    source: str


EMOCALIBER = "github.com/wdqqdw/EmoCaliber, README (arXiv 2512.15528)"
_CALIBER = "EmoCaliber (7B)"


def _caliber(accuracy: float, f1: float, error: float, brier: float, auroc: float) -> tuple[Published, ...]:
    """A row of the README's table in percent; confidence is that of its group of tasks, not of the task alone."""
    names = ("stated_calibration_error", "stated_brier", "stated_auroc")
    group = dict(zip(names, (error / 100, brier / 100, auroc / 100), strict=True))
    return (
        Published(_CALIBER, {"accuracy": accuracy / 100, "weighted_f1": f1 / 100}, EMOCALIBER),
        Published(f"{_CALIBER}, its group of tasks", group, EMOCALIBER),
    )


_POLARITY, _CATEGORIES, _OUT_OF_DOMAIN = (4.76, 14.68, 66.09), (13.63, 22.77, 70.90), (12.17, 22.41, 72.17)
_VECBENCH = {
    "emoset-8": _caliber(68.10, 67.72, *_CATEGORIES),
    "fi-8": _caliber(69.70, 70.00, *_CATEGORIES),
    "webemo-7": _caliber(54.00, 52.81, *_CATEGORIES),
    "webemo-25": _caliber(28.28, 24.28, *_CATEGORIES),
    "fi-2": _caliber(88.10, 88.16, *_POLARITY),
    "webemo-2": _caliber(75.80, 75.78, *_POLARITY),
    "abstract-8": _caliber(29.26, 29.94, *_OUT_OF_DOMAIN),
    "artphoto-8": _caliber(41.94, 41.84, *_OUT_OF_DOMAIN),
    "unbiasedemo-6": _caliber(79.90, 80.41, *_OUT_OF_DOMAIN),
}

MVEI = "github.com/wdqqdw/MVEI, README, table 2; people: table 3 (arXiv 2509.21950)"
_STATEMENTS = {  # people on average, the best of them, GPT-4o, Qwen2.5-VL 7B, Qwen2-VL 7B, in percent
    "polarity": (92.3, 97.4, 72.5, 63.2, 70.7),
    "interpretation": (90.1, 95.8, 84.3, 81.5, 75.0),
    "context": (95.3, 98.7, 81.6, 83.9, 86.1),
    "subjectivity": (89.6, 94.7, 69.2, 66.3, 72.8),
    "all": (91.6, 95.2, 78.3, 75.9, 76.6),
}
_WHO = ("people, on average", "people, the best", "GPT-4o", "Qwen2.5-VL (7B)", "Qwen2-VL (7B)")

EEMO_BENCH = "github.com/workerred/EEmo-Bench, README, assessment (arXiv 2504.16405)"


def _assessment(model: str, *numbers: float) -> Published:
    """SRCC and PLCC of valence, then of arousal; from the logits of three words, not from numbers that are stated."""
    names = ("valence_srcc", "valence_plcc", "arousal_srcc", "arousal_plcc")
    return Published(f"{model}, from logits", dict(zip(names, numbers, strict=True)), EEMO_BENCH)


_ASSESSMENT = (
    _assessment("Qwen2.5-VL (7B)", 0.80, 0.74, 0.46, 0.46),
    _assessment("Qwen2-VL (7B)", 0.87, 0.88, 0.59, 0.57),
    _assessment("mPLUG-Owl3 (7B)", 0.85, 0.86, 0.56, 0.53),
)

PUBLISHED: Mapping[str, Mapping[str, tuple[Published, ...]]] = {
    "vecbench": _VECBENCH,
    "mvei": {
        policy: tuple(Published(who, {"accuracy": value / 100}, MVEI) for who, value in zip(_WHO, row, strict=True))
        for policy, row in _STATEMENTS.items()
    },
    "eemo-bench": {"drop-ties": _ASSESSMENT, "first-of-ties": _ASSESSMENT},
}
"""Set -> label policy -> what was published."""


def origin(folder: Path) -> dict[str, str] | None:
    """Set, label policy and manifest's checksum of an imported data folder; None for any other."""
    try:
        record = json.loads((folder / RECORD).read_bytes())
    except (OSError, ValueError, RecursionError):
        return None  # none, or somebody's own file of that name
    fields = record if isinstance(record, dict) else {}
    known = {name: fields.get(name) for name in ("set", "policy", "manifest_sha256")}
    return {name: str(value) for name, value in known.items()} if all(known.values()) else None


def published_on(imported: Mapping[str, Any] | None) -> tuple[Published, ...]:
    """What was published on the set and policy of an imported folder."""
    known = imported or {}
    return PUBLISHED.get(str(known.get("set")), {}).get(str(known.get("policy")), ())


def sources(published: Iterable[Published]) -> list[str]:
    """Where the numbers are written, each once."""
    return list(dict.fromkeys(entry.source for entry in published))
