"""What the gallery and the rollouts of a report show: cards as JSON, pictures scaled down, all bounded in size."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from random import Random
from typing import Any

from emor3.errors import UserError
from emor3.report.records import UNREADABLE, Evaluated, Run, by_decoding, is_number
from emor3.runs.predictions import prediction_row
from emor3.runs.records import read_content
from emor3.storage.images import data_uri, open_image

ITEMS = 120
"""Pictures of the gallery, over all data sets."""
TEXT = 600
"""Characters of a text that are shown."""
LONGEST_SIDE = 224
"""Pixels of a picture's longer side."""
BUDGET = 3_000_000
"""Characters that the cards of the gallery may take, and again the pictures of the page."""
OUTCOMES = ("unparsed", "inconsistent", "incoherent", "wrong", "correct")
"""What a card can be filtered by, the rarest in a good model first."""
ROUNDS = 3


class Pictures:
    """Pictures of the page as data URIs, each once; past the budget, or if one cannot be read, there is none."""

    _room = BUDGET
    """Characters that are left for pictures."""

    def __init__(self) -> None:
        self.uris: dict[str, str] = {}
        self.missing: list[str] = []
        self._keys: dict[str, str | None] = {}
        self.left_out = 0
        """Pictures for which there was no room."""

    @property
    def asked(self) -> int:
        """Pictures that the page would show."""
        return len(self._keys)

    def add(self, path: str) -> str | None:
        """Key of a picture in `uris`."""
        if path not in self._keys:
            self._keys[path] = self._read(path)
        return self._keys[path]

    def add_all(self, paths: Iterable[str]) -> list[str]:
        """Keys of those pictures that there are."""
        return [key for path in paths if (key := self.add(path)) is not None]

    def _read(self, path: str) -> str | None:
        if self._room <= 0:
            self.left_out += 1
            return None
        try:
            uri = thumbnail(path)
        except UserError:
            self.missing.append(path)
            return None
        self._room -= len(uri)
        key = f"p{len(self.uris)}"
        self.uris[key] = uri
        return key


def thumbnail(path: str) -> str:
    """A picture as a small data URI: PNG for small drawings, else JPEG. Raises UserError as open_image does."""
    image = open_image(path, at_least=2 * LONGEST_SIDE)
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    form = "PNG" if max(image.size) <= 96 else "JPEG"
    return data_uri(image, form, optimize=True, quality=82)


def gallery(evaluations: Sequence[Evaluated], pictures: Pictures) -> list[dict[str, Any]]:
    """For each data set and decoding some samples with every evaluation's card; as many as fit the budget."""
    groups = by_decoding(evaluations)
    items = -(-ITEMS // max(1, len(groups)))
    while True:
        sets = [_gallery_set(data, decoding, found, items) for (data, decoding), found in groups.items()]
        if items == 1 or len(json.dumps(sets, ensure_ascii=False)) < BUDGET:
            break
        items //= 2
    for item in (item for found in sets for item in found["items"]):
        item["pictures"] = pictures.add_all(item.pop("paths"))
    return sets


def _gallery_set(data: str, decoding: str, evaluations: Mapping[int, Evaluated], items: int) -> dict[str, Any]:
    rows = {
        place: {p.sample.id: prediction_row(data, p) for p in evaluated.saved.predictions[data]}
        for place, evaluated in evaluations.items()
    }
    every = {name: row for found in rows.values() for name, row in found.items()}
    chosen = _choose(rows, items)
    return {
        "data": f"{data}, {decoding}",
        "total": len(every),
        "evaluations": list(rows),
        "labels": sorted({every[name]["label"] for name in chosen}),
        "items": [
            {
                "id": name,
                "paths": every[name]["images"],
                "text": _clip(every[name]["text"]),
                "label": every[name]["label"],
                "votes": _shares(every[name]["votes"]),
                "cards": {place: card(found[name]) for place, found in rows.items() if name in found},
            }
            for name in chosen
        ],
    }


def _choose(rows: Mapping[int, Mapping[str, Mapping[str, Any]]], items: int) -> list[str]:
    """Ids to show: a few of every outcome of every evaluation, the rarest kinds first, then any."""
    every = list(dict.fromkeys(name for found in rows.values() for name in found))
    Random(0).shuffle(every)
    by_kind = {
        (outcome, place): [name for name in every if name in found and outcome in outcomes(found[name])]
        for outcome in OUTCOMES
        for place, found in rows.items()
    }
    rare_first = [names[turn] for turn in range(ROUNDS) for names in by_kind.values() if turn < len(names)]
    return list(dict.fromkeys([*rare_first, *every]))[:items]


def outcomes(row: Mapping[str, Any]) -> list[str]:
    """The outcomes that a prediction's row counts for."""
    answered = "unparsed" if row["predicted"] is None else "correct" if row["predicted"] == row["label"] else "wrong"
    refuted = {"inconsistent": row["consistency"], "incoherent": row["coherence"]}
    passed = ("supported", "error")  # a judge's error says nothing about the text
    return [answered, *(name for name, finding in refuted.items() if finding and finding["verdict"] not in passed)]


def card(row: Mapping[str, Any]) -> dict[str, Any]:
    """One completion for the page, from a row of `predictions.jsonl`."""
    return {
        "outcomes": outcomes(row),
        "answer": _clip(row["predicted"] if row["predicted"] is not None else row["answer"]),
        "sampled": _answer_shares(row["sampled"]),
        **_reasoning(row),
    }


def rollouts(runs: Sequence[Run], pictures: Pictures, faults: list[str]) -> list[dict[str, Any]]:
    """The best and worst rollouts of each run as cards."""
    shown = []
    for run in runs:
        items = list(_rollout_items(run, pictures, faults))
        if items:
            shown.append({"run": run.name, "steps": run.recorded_steps, "items": items})
    return shown


def _rollout_items(run: Run, pictures: Pictures, faults: list[str]) -> Iterator[dict[str, Any]]:
    broken = 0
    for row in run.rollouts:
        try:
            paths, text = read_content(row)
            found = {
                "step": row["step"],
                "rank": row["rank"],
                "of": row["of"],
                "reward": round(row["reward"], 4),
                "parts": _shares(row["parts"]),
                "id": _clip(row["sample"]),
                "label": _clip(row["label"]),
                "card": {
                    "outcomes": [],
                    "answer": _clip(row["thought"]["answer"]),
                    **_reasoning({**row["thought"], **row["reflection"], "completion": row["completion"]}),
                },
            }
            yield {**found, "pictures": pictures.add_all(map(str, paths)), "text": _clip(text)}
        except UNREADABLE:
            broken += 1
    if broken:
        faults.append(f"{run.name}: {broken} rollouts are not as emor3 writes them: left out")


def _reasoning(row: Mapping[str, Any]) -> dict[str, Any]:
    steps = [row["trigger"], row["feeling"], row["conclusion"]]
    return {
        "steps": [_clip(step) for step in steps],
        "problem": _clip(row["problem"]),
        "completion": _clip(row["completion"]) if row["problem"] or not any(steps) else None,
        **{aspect: _finding(row[aspect]) for aspect in ("consistency", "coherence")},
    }


def _finding(row: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if row is None:
        return None
    return {
        "verdict": _clip(row["verdict"]),
        "reason": _clip(row["reason"]),
        **_reply(row),
        "others": [_reply(other) for other in row.get("distractors", ())],
    }


def _reply(row: Mapping[str, Any]) -> dict[str, Any]:
    likely = sorted((_shares(row["probabilities"]) or {}).items(), key=lambda item: -item[1])[:3]
    return {"reply": _clip(row["reply"]), "likely": dict(likely)}


def _shares(values: object) -> dict[str, float] | None:
    """The numbers of a mapping, rounded; None if it is none."""
    if not isinstance(values, Mapping):
        return None
    return {_clip(name) or "": round(value, 4) for name, value in values.items() if is_number(value)}


def _answer_shares(sampled: Sequence[str | None] | None) -> dict[str, float] | None:
    if not sampled:
        return None
    counts = Counter("unparsed" if answer is None else answer for answer in sampled)
    return {name: round(count / len(sampled), 4) for name, count in counts.most_common()}


def _clip(text: object) -> str | None:
    if text is None:
        return None
    words = str(text)
    return words if len(words) <= TEXT else f"{words[:TEXT]} … ({len(words) - TEXT} more characters)"
