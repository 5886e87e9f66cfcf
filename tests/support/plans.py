"""A small plan of a reproduction, and made-up evaluations of its cells."""

from pathlib import Path
from typing import Any

import yaml

from emor3.experiments.plan import Cell, Plan
from made_up import prediction, save_evaluation


def write_plan(folder: Path, **changes: Any) -> Path:
    content = {
        "output_dir": str(folder / "out"),
        "seeds": [0, 1],
        "domains": ["a", "b"],
        "tests": ["a", "b", "c"],
        "reference": "grpo",
        "quick": {"methods": ["vanilla", "grpo"]},
        "base": {"model": {"path": "embedded"}, "grpo": {"max_steps": 4}},
        "methods": {
            "vanilla": {"grpo": None, "thinking": "direct"},
            "grpo": {"thinking": "free", "reward": {"reflective": 0.0}},
            "emo_r3": {},
        },
    }
    path = folder / "plan.yaml"
    path.write_text(yaml.safe_dump(content | changes, sort_keys=False), encoding="utf-8")
    return path


def finish(cell: Cell, plan: Plan, right: int) -> None:
    """Give a cell an evaluation in which the first `right` of ten items of every test set are correct."""
    made = {
        test: [prediction("joy", "joy" if place < right else "fear", id=f"s{place}") for place in range(10)]
        for test in plan.tests
    }
    save_evaluation(cell.evaluation, made, thinking=cell.recipe.thinking)
