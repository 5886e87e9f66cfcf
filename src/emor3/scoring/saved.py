"""`emor3 score`: score saved completions, one JSON line after another, with a judge's saved replies or asking one."""

import json
import reprlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from emor3.errors import UserError
from emor3.method.reflection import ScriptedJudge, ask, reflect
from emor3.method.rewards import PAPER, Formula, RewardSettings, check_thinking, reflective, score
from emor3.method.thinking import TAGS, Thinking, parse, way_named
from emor3.method.types import Aspect, EmotionalThought, Finding, Judge, Reflection, Sample, Verdict
from emor3.scoring.rows import row_clip, row_content, row_sample
from emor3.storage.files import regular


def score_file(path: str | Path, formula: Formula = "paper", judge: Judge | None = None) -> Iterator[dict[str, Any]]:
    """One result for every line of the file, in order, with the keys that `score_format` lists.

    {"id", "error"} for a row that cannot be scored. The judge is asked about rows without saved replies.
    Raises UserError if the file cannot be read.
    """
    try:
        with open(path, "rb", opener=regular) as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield _score_line(line, number, formula, judge, Path(path).parent)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None


def _score_line(line: bytes, number: int, formula: Formula, judge: Judge | None, folder: Path) -> dict[str, Any]:
    try:
        row = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        return {"id": None, "error": f"line {number} is not JSON in UTF-8: {error}"}
    if not isinstance(row, dict):
        return {"id": None, "error": f"line {number} is not a JSON object"}
    try:
        return score_row(row, formula, judge, folder)
    except UserError as error:
        return {"id": row["id"] if _is_id(row.get("id")) else None, "error": str(error)}


def _is_id(value: object) -> bool:
    return isinstance(value, str | int | float)


def score_row(
    row: Mapping[str, Any], formula: Formula, judge: Judge | None = None, folder: Path | None = None
) -> dict[str, Any]:
    """Every part of one row's reward; images of a row that the judge is asked about lie in the folder.

    Raises UserError for a row that cannot be scored.

    >>> row = {"id": 1, "label": "fear", "response": r"\\boxed{fear}", "judge": {}}
    >>> result = score_row(row | {"weights": {"reflective": 0, "format": 0.2}}, "paper")
    >>> result["accuracy"], result["format"], result["overall"], result["problem"].value
    (1.0, 0.0, 0.8, 'step_missing')
    """
    if not _is_id(row.get("id")):
        raise UserError(f"'id' must be a string or a number, found {reprlib.repr(row.get('id'))}")
    response = row.get("response")
    if not isinstance(response, str):
        raise UserError(f"'response' must be a string, found {reprlib.repr(response)}")
    sample = row_sample(row, str(row["id"]))
    settings = _settings(row, formula)
    thinking = _thinking(row)
    check_thinking(settings, thinking)
    thought = parse(response, thinking)
    saved = _saved_replies(row)
    if saved is None and judge is not None:
        reflection = reflect(judge, [(_shown(sample, row, folder or Path()), thought)], frozenset(Aspect))[0]
    else:
        reflection = _reflect(sample, thought, saved)
    breakdown = score(thought, sample, reflection, settings)
    return {
        "id": row["id"],
        **{name: breakdown.parts[name] for name in ("format", "accuracy", "consistency", "coherence")},
        **({"confidence": breakdown.parts["confidence"]} if settings.confidence > 0 else {}),
        "reflective": reflective(breakdown.parts),
        "overall": breakdown.total,
        "asked": {name: f is not None and f.verdict is not Verdict.NOT_ASKED for name, f in vars(reflection).items()},
        "answer": thought.answer,
        "problem": thought.problem,
        **({} if judge is None else {"judge": {name: _reply_text(found) for name, found in vars(reflection).items()}}),
    }


def _reply_text(finding: Finding | None) -> str | None:
    return None if finding is None or finding.reply is None else finding.reply.text


def _shown(sample: Sample, row: Mapping[str, Any], folder: Path) -> Sample:
    """The sample with what a judge looks at. Raises UserError if that is missing or cannot be opened."""
    from emor3.storage.images import open_image  # here, so that scoring alone does not pay for numpy

    images, text = row_content(row)
    paths = tuple(str(folder / image) for image in images)
    for path in paths:
        open_image(path)
    return replace(sample, images=paths, text=text, clip=row_clip(row))


def _settings(row: Mapping[str, Any], formula: Formula) -> RewardSettings:
    given = {} if row.get("weights") is None else row["weights"]
    if not isinstance(given, dict) or not given.keys() <= {"reflective", "format", "confidence"}:
        raise UserError(f"'weights' may hold 'reflective', 'format' and 'confidence', found {reprlib.repr(given)}")
    for name, weight in given.items():
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight <= 1:
            raise UserError(f"weight {name!r} must be a number from 0 to 1, found {reprlib.repr(weight)}")
    return RewardSettings(**PAPER | given, formula=formula)


def _thinking(row: Mapping[str, Any]) -> Thinking:
    given = "steps" if row.get("thinking") is None else row["thinking"]
    if (known := way_named(given)) is None:
        raise UserError(f"'thinking' must be one of {', '.join(TAGS)}, found {reprlib.repr(given)}")
    return known


def _saved_replies(row: Mapping[str, Any]) -> dict[Aspect, str | None] | None:
    given = row.get("judge")
    if given is None:
        return None
    if not isinstance(given, dict):
        raise UserError(f"'judge' must hold 'consistency' and 'coherence' or be null, found {reprlib.repr(given)}")
    replies = {aspect: given.get(aspect.value) for aspect in Aspect}
    for aspect, reply in replies.items():
        if reply is not None and not isinstance(reply, str):
            raise UserError(f"the judge's reply on {aspect} must be a string or null, found {reprlib.repr(reply)}")
    return replies


def _reflect(sample: Sample, thought: EmotionalThought, replies: Mapping[Aspect, str | None] | None) -> Reflection:
    """The reflection that the saved replies hold. A question without a saved reply was never asked of the judge."""
    if replies is None:
        return Reflection()
    asked = ask(sample, thought, frozenset(Aspect))
    ran = frozenset(aspect for aspect, entry in asked.items() if isinstance(entry, str) or replies[aspect] is not None)
    judge = ScriptedJudge(lambda question: replies[question.aspect] or "")
    return reflect(judge, [(sample, thought)], ran)[0]
