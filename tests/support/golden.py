"""The golden cases as a host sees them: a settings file, a packed row, and a judge that says what a case wants."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from emor3.method.rewards import RewardSettings
from emor3.method.types import Aspect, Question, Reply
from places import ROOT

FILE = ROOT / "tests" / "scoring" / "golden" / "rewards.jsonl"
CASES: list[dict[str, Any]] = [json.loads(line) for line in FILE.read_text(encoding="utf-8").splitlines()]
SCORED = [case for case in CASES if "error" not in case["expected"]]
PARTS = ("accuracy", "format", "consistency", "coherence")


class CaseJudge:
    """Says what a case has its judge say, whatever the question."""

    def __init__(self, case: dict[str, Any]) -> None:
        self.case = case

    def answer(self, questions: Sequence[Question]) -> list[Reply]:
        return [Reply(self.case["judge"][Aspect(question.aspect)]) for question in questions]


def reward_block(case: dict[str, Any]) -> dict[str, Any]:
    """The paper's reward with the weights of the case, as a settings file has it."""
    paper = {"reflective": 0.1, "format": 0.1, "soft": False, "contrastive": 0}
    return {**paper, **(case.get("weights") or {})}


def settings_file(folder: Path, case: dict[str, Any], judge: dict[str, Any] | None = None) -> str:
    """A settings file for the case (JSON is YAML), under a name of its own."""
    path = folder / f"{case['id']}.yaml"
    path.write_text(json.dumps({"reward": reward_block(case), **({} if judge is None else {"judge": judge})}))
    return str(path)


def row_text(case: dict[str, Any], image: str = "a.png") -> str:
    """The packed row of a case."""
    labels = {} if case.get("labels") is None else {"labels": case["labels"]}
    return json.dumps({"id": case["id"], "label": case["label"], "images": [image], **labels})


def total(case: dict[str, Any], parts: dict[str, float | None]) -> float:
    """What a host pays that sums the parts by their weights and leaves out None."""
    settings = RewardSettings(**reward_block(case))
    weight = {"accuracy": 1 - settings.reflective - settings.format, "format": settings.format}
    weight |= dict.fromkeys(("consistency", "coherence"), settings.reflective / 2)
    return sum(weight[name] * value for name, value in parts.items() if value is not None)
