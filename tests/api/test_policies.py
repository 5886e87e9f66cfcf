"""Predict and evaluate from Python with the settings of the commands, and with a judge of one's own."""

import hashlib
import inspect
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from PIL import Image

import emor3
from emor3.method.reflection import ScriptedJudge
from emor3.method.types import Question, Reply
from emor3.runs.predictions import read_evaluation
from emor3.scoring.own import OwnJudge
from rewards import paper_reward


class FailsOnImages:
    """Reads the first label from all reasoning, and fails on images."""

    def answer(self, questions: list[Question]) -> list[Reply]:
        return [Reply("", error="HTTP 500") if one.images else Reply(one.candidates[0]) for one in questions]


@pytest.fixture(scope="module")
def policy() -> Any:
    return emor3.load_policy("embedded", judge=FailsOnImages())


def test_a_judge_of_ones_own_is_asked_and_named(policy: emor3.Policy) -> None:
    assert isinstance(policy.judge, OwnJudge)
    assert policy.judge_path == "test_policies:FailsOnImages"
    with pytest.raises(emor3.UserError, match="a judge is an object with a method answer"):
        emor3.load_policy("embedded", judge=FailsOnImages)


def test_what_it_fails_on_is_no_failure_of_the_policy_in_an_evaluation(
    policy: emor3.Policy, scenes: str, tmp_path: Path, few_draws: None
) -> None:
    (found,) = emor3.evaluate(policy, scenes, tmp_path / "e", limit=2, max_new_tokens=64)
    assert "consistency" not in found.figures  # it judged none: no figure, and not a figure of 0
    assert found.figures["coherence"].n == 2
    saved = read_evaluation(tmp_path / "e")
    assert saved.head["judge"] == "test_policies:FailsOnImages"
    assert {one.reflection.consistency.reason for one in saved.predictions[scenes]} == {"HTTP 500"}
    with pytest.raises(emor3.UserError, match="exists and is not empty"):
        emor3.evaluate(policy, scenes, tmp_path / "e", limit=2)


class Breaks:
    """Gives shares as numpy has them, in a mapping that nothing can change, and breaks at a call."""

    def __init__(self, calls: int) -> None:
        self.calls = calls

    def answer(self, questions: list[Question]) -> list[Reply]:
        self.calls -= 1
        if self.calls == 0:
            raise OSError("out of service")
        shares = [dict.fromkeys(one.candidates, np.float32(1 / len(one.candidates))) for one in questions]
        return [Reply(one.candidates[0], MappingProxyType(of)) for one, of in zip(questions, shares, strict=True)]


def test_an_evaluation_that_a_judge_of_ones_own_broke_goes_on(
    policy: emor3.Policy, scenes: str, tmp_path: Path, few_draws: None
) -> None:
    broken, whole = (replace(policy, judge=OwnJudge(Breaks(calls))) for calls in (2, 0))
    with pytest.raises(emor3.UserError, match="Breaks failed: OSError: out of service"):
        emor3.evaluate(broken, scenes, tmp_path / "e", limit=2, max_new_tokens=64)
    emor3.evaluate(whole, scenes, tmp_path / "e", limit=2, max_new_tokens=64, resume=True)
    emor3.evaluate(whole, scenes, tmp_path / "f", limit=2, max_new_tokens=64)
    written = [(tmp_path / name / "predictions.jsonl").read_text() for name in "ef"]
    assert written[0] == written[1]
    assert not (tmp_path / "e/unfinished.jsonl").exists()
    digest = read_evaluation(tmp_path / "e").head["checkpoints"][policy.judge_path]
    assert digest == hashlib.sha256(inspect.getsource(Breaks).encode()).hexdigest()


def test_one_picture_or_several_may_be_given(policy: emor3.Policy, scenes: str) -> None:
    path = emor3.load_samples(scenes, split="test")[0].image
    alone = list(emor3.predict(policy, path, ["awe", "fear"], max_new_tokens=8))
    several = list(emor3.predict(policy, [Path(path).read_bytes(), Image.open(path), b"?"], "ekman6", max_new_tokens=8))
    assert [picture for picture, _ in alone] == [path]
    assert alone[0][1].prediction.sample.labels.labels == ("awe", "fear")
    assert [isinstance(outcome, emor3.UserError) for _, outcome in several] == [False, False, True]


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"temprature": 1.0}, r"unknown setting 'temprature'; did you mean 'temperature'\?"),
        ({"samples": -1}, r"settings of the evaluation: samples: .*greater than or equal to 0"),
        ({"engine": "vllm"}, r"embedded is loaded in transformers: name engine vllm to load it"),
        ({"split": "test"}, r"split is a setting of evaluate: it does nothing in predict"),
        ({"labels": "mikels9"}, r"did you mean 'mikels8'"),
    ],
)
def test_settings_that_cannot_be_used_are_refused_before_anything_is_computed(
    policy: emor3.Policy, settings: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(emor3.UserError, match=complaint):
        emor3.predict(policy, "photo.jpg", **settings)


def test_reward_functions_check_judge_and_parts() -> None:
    judge = ScriptedJudge(lambda question: "Yes")
    functions, weights = emor3.reward_functions(judge, 2, paper_reward(coherence=False))
    assert [(one.__name__, weight) for one, weight in zip(functions, weights, strict=True)] == [
        *(("accuracy", 0.8), ("format", 0.1), ("consistency", 0.1)),
    ]
    with pytest.raises(emor3.UserError, match="a judge is an object"):
        emor3.reward_functions("embedded", 2)
    with pytest.raises(emor3.UserError, match="no weight for the part 'brevity'"):
        emor3.reward_functions(judge, 2, own={"brevity": len})
