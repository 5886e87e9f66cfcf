"""Code of one's own in a run: it counts, is recorded, is never run unasked, and a fault of it loses nothing."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from test_train import GRPO, write_recipe
from trl import GRPOTrainer

from emor3.data.folders import load_samples
from emor3.errors import UserError
from emor3.judges.build import recorded_judge
from emor3.judges.settings import JudgeBlock
from emor3.method.types import Question, Reply, Rollout
from emor3.runs.recipe import load_recipe
from emor3.runs.records import read_jsonl
from emor3.scoring.own import OwnJudge, import_parts, recorded_parts
from emor3.training.run import train

CODE = """
import pathlib
pathlib.Path("imported").touch()

def brevity(rollouts):
    return [1 / (1 + len(one.completion)) for one in rollouts]
"""
OWN = {"brevity": {"function": "mine_of_a_test:brevity", "weight": 0.3}}
BRIEF = {"own": OWN, "reflective": 0}


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a module of the user's own; when it was imported, there is a file `imported` in it."""
    (tmp_path / "mine_of_a_test.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "mine_of_a_test", raising=False)
    return tmp_path


def brevity(rollouts: list[Rollout]) -> list[float]:
    return [1 / (1 + len(one.completion)) for one in rollouts]


class SaysYes:
    """A judge that says yes, and names the first label."""

    def answer(self, questions: list[Question]) -> list[Reply]:
        return [Reply(question.candidates[0]) for question in questions]


# --- without a step of training ---------------------------------------------------------------------------------------


def test_a_recipe_alone_imports_nothing(mine: Path, scenes: str, main_with: Callable[..., int], capsys: Any) -> None:
    recipe = write_recipe(mine, scenes, "embedded", reward=BRIEF)
    assert main_with("train", recipe) == 2
    said = capsys.readouterr().err
    assert "reward.own.brevity is code of your own, mine_of_a_test:brevity, which a recipe alone never runs" in said
    assert "--allow-code mine_of_a_test:brevity" in said
    with pytest.raises(UserError, match="a recipe alone never runs"):
        train(load_recipe(recipe))
    assert main_with("plan", recipe, "--gpus", "1", "--memory", "24") in (0, 1)  # which needs no code
    assert not (mine / "imported").exists()
    assert not (mine / "run").exists()


@pytest.mark.parametrize(
    ("allowed", "complaint"),
    [
        (
            "mine_of_a_test:brevty",
            "--allow-code mine_of_a_test:brevty: the recipe names no such function; did",
        ),
        ("os:system", "--allow-code os:system: the recipe names no such function"),
    ],
)
def test_what_the_recipe_does_not_name_is_not_allowed(mine: Path, scenes: str, allowed: str, complaint: str) -> None:
    recipe = load_recipe(write_recipe(mine, scenes, "embedded", reward=BRIEF))
    with pytest.raises(UserError, match=complaint):
        import_parts(recipe.reward.own, [allowed])
    assert not (mine / "imported").exists()


@pytest.mark.parametrize(
    ("code", "complaint"),
    [
        ("brevity = 3", "mine_of_a_test:brevity is no function"),
        ("", r"cannot import mine_of_a_test:brevity: AttributeError: .*no attribute 'brevity'"),
        (
            "1 / 0",
            r"cannot import mine_of_a_test:brevity: ZeroDivisionError: .* \(mine_of_a_test.py, line 1",
        ),
    ],
)
def test_a_module_that_cannot_be_imported_is_one_line(mine: Path, scenes: str, code: str, complaint: str) -> None:
    (mine / "mine_of_a_test.py").write_text(code)
    recipe = load_recipe(write_recipe(mine, scenes, "embedded", reward=BRIEF))
    with pytest.raises(UserError, match=complaint) as refused:
        import_parts(recipe.reward.own, ["mine_of_a_test:brevity"])
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("own", "complaint"),
    [
        ({"accuracy": OWN["brevity"]}, r"reward.own: 'accuracy' is a part that emor3 has"),
        ({"votes": OWN["brevity"]}, r"'votes' is a part that emor3 has"),
        ({"My part": OWN["brevity"]}, r"a name of small letters, digits and _, at most 40; found 'My part'"),
        ({"brevity": {"function": "mine.brevity", "weight": 0.1}}, r"named as module:function, as in my_rewards"),
        ({"brevity": {"function": "mine:brevity", "weight": 0}}, r"reward.own.brevity.weight: .*greater than 0"),
        (
            {"brevity": {"function": "mine:brevity", "weight": 0.9}},
            r"format 0.1 \+ brevity 0.9 exceed 1",
        ),
    ],
)
def test_a_part_has_a_name_a_function_and_a_weight(tmp_path: Path, scenes: str, own: Any, complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        load_recipe(write_recipe(tmp_path, scenes, "embedded", reward={"own": own}))


def test_a_function_of_another_source_than_was_recorded_is_refused(tmp_path: Path, scenes: str) -> None:
    settings = load_recipe(write_recipe(tmp_path, scenes, "embedded", reward=BRIEF)).reward
    recorded = recorded_parts(settings, {"brevity": brevity})
    assert recorded_parts(recorded, {"brevity": brevity}) == recorded
    with pytest.raises(UserError, match=r"the source of mine_of_a_test:brevity is another than was recorded"):
        recorded_parts(recorded, {"brevity": lambda rollouts: [0.0] * len(rollouts)})


def test_a_judge_is_recorded_by_class_and_source_and_asked_for_by_name() -> None:
    recorded = recorded_judge(JudgeBlock(), OwnJudge(SaysYes()))
    assert (recorded.model, recorded.name) == ("own", "test_own_code:SaysYes")
    assert recorded_judge(recorded, OwnJudge(SaysYes())) == recorded

    class Other(SaysYes):
        """Another class, which a resumed run does not take."""

    with pytest.raises(UserError, match=r"the judge handed over has name .*Other and the recipe names .*SaysYes"):
        recorded_judge(recorded, OwnJudge(Other()))
    with pytest.raises(UserError, match=r"judge.model own is a judge that is handed over in Python"):
        recorded_judge(recorded, None)
    with pytest.raises(UserError, match=r"a judge is handed over and judge.model is reference"):
        recorded_judge(JudgeBlock(model="reference"), OwnJudge(SaysYes()))
    with pytest.raises(UserError, match=r"judge.name and judge.sha256 are of judge.model own, not policy"):
        JudgeBlock(name="mine:Judge")


# --- in training ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_part_is_the_same_number_in_records_metrics_and_trainer_and_is_resumed_with_the_same_code_only(
    mine: Path,
    scenes: str,
    random_checkpoint: str,
    main_with: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: Any,
) -> None:
    summed, original = [], GRPOTrainer._calculate_rewards

    def calculate(self: Any, *given: Any, **named: Any) -> Any:
        rewards = original(self, *given, **named)
        summed.append((rewards * self.reward_weights).nansum(1))
        return rewards

    monkeypatch.setattr(GRPOTrainer, "_calculate_rewards", calculate)
    judge = {"calibration": 0}
    recipe = write_recipe(mine, scenes, random_checkpoint, reward=BRIEF, judge=judge, grpo={"save_steps": 1})
    allowed = ("--allow-code", "mine_of_a_test:brevity")
    assert main_with("train", recipe, *allowed) == 0
    rows, metrics = list(read_jsonl(mine / "run" / "rollouts.jsonl")), list(read_jsonl(mine / "run" / "metrics.jsonl"))
    parts = [row["parts"]["brevity"] for row in rows]
    assert parts == [1 / (1 + len(row["completion"])) for row in rows]
    assert [row["reward"] for row in rows] == pytest.approx(torch.cat(summed).tolist(), abs=1e-6)
    # 0.6 accuracy + 0.1 format + 0.3 brevity: the random policy earns by brevity alone
    assert [row["reward"] for row in rows] == pytest.approx([0.3 * part for part in parts])
    half = len(parts) // 2
    means = [sum(parts[:half]) / half, sum(parts[half:]) / half]
    assert [row["rewards/brevity/mean"] for row in metrics] == pytest.approx(means)

    recorded = json.loads((mine / "run" / "config.json").read_text())["reward"]["own"]["brevity"]
    assert recorded == OWN["brevity"] | {"sha256": recorded["sha256"]}
    assert len(recorded["sha256"]) == 64
    assert main_with("train", "--resume", mine / "run") == 2
    assert "which a recipe alone never runs" in capsys.readouterr().err
    assert main_with("train", "--resume", mine / "run", *allowed) == 0
    (mine / "mine_of_a_test.py").write_text(CODE.replace("1 /", "2 /"))
    monkeypatch.delitem(sys.modules, "mine_of_a_test")
    for asked, complaint in ((mine / "run", "another than was recorded"), (recipe, "reward.own.brevity.sha256")):
        assert main_with("train", "--resume", asked, *allowed) == 2
        assert complaint in capsys.readouterr().err
    assert main_with("train", "--resume", recipe, "--set", "reward.own.brevity.weight=0.2", *allowed) == 2
    assert "reward.own.brevity.weight 0.3 -> 0.2" in capsys.readouterr().err


@pytest.mark.slow
def test_a_part_that_fails_ends_in_one_line_and_the_steps_before_it_are_kept(
    tmp_path: Path, scenes: str, random_checkpoint: str
) -> None:
    calls: list[int] = []

    def failing(rollouts: list[Rollout]) -> list[float]:
        calls.append(len(rollouts))
        return [0.5] * len(rollouts) if len(calls) == 1 else [0.5, *[float("nan")] * (len(rollouts) - 1)]

    given = {"reward": BRIEF, "judge": {"calibration": 0}, "grpo": {"save_steps": 5}}
    recipe = load_recipe(write_recipe(tmp_path, scenes, random_checkpoint, **given))
    with pytest.raises(UserError, match=r"gave nan for completion 2 of 4 .* goes on from .*checkpoint-1") as ended:
        train(recipe, own={"brevity": failing})
    assert "\n" not in str(ended.value)
    assert [row["step"] for row in read_jsonl(tmp_path / "run" / "metrics.jsonl")] == [1]
    assert (tmp_path / "run" / "checkpoints" / "checkpoint-1" / "complete").is_file()


@pytest.mark.slow
def test_a_judge_of_ones_own_trains_and_is_recorded(tmp_path: Path, scenes: str) -> None:
    asked: list[Question] = []

    class Listening(SaysYes):
        """Remembers what it was asked."""

        def answer(self, questions: list[Question]) -> list[Reply]:
            asked.extend(questions)
            return super().answer(questions)

    grpo = {"max_completion_length": 64, "max_steps": 1}
    recipe = load_recipe(
        write_recipe(tmp_path, scenes, "embedded", grpo=GRPO | grpo, judge={"model": "own", "calibration": 4})
    )
    run = train(recipe, judge=Listening())
    found = [row["reflection"]["consistency"] for row in read_jsonl(run / "rollouts.jsonl")]
    replies = [finding["reply"] for finding in found if finding["question"]]
    assert replies == ["Yes"] * len(replies)
    assert {finding["question"] for finding in found if finding["question"]} <= {question.text for question in asked}
    assert replies
    recorded = json.loads((run / "config.json").read_text())["judge"]
    assert (recorded["model"], recorded["name"].endswith("Listening")) == ("own", True)
    with pytest.raises(UserError, match="the judge handed over has name test_own_code:SaysYes and the recipe"):
        train(load_recipe(run / "config.json"), resume=True, judge=SaysYes())
    assert {question.images for question in asked} <= {(), *(sample.images for sample in load_samples(scenes))}
