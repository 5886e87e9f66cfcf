"""Records as pandas tables: one row each, columns by the keys of the reference page, and a clear line for none."""

import json
from pathlib import Path

import pytest

import emor3
from emor3.errors import UserError
from emor3.method.rewards import RewardSettings, score
from emor3.method.types import Rollout
from emor3.runs.records import append_jsonl, rollout_row
from made_up import prediction, save_evaluation


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of two steps with a completion each, the second of which is being written."""
    made = [prediction("joy", answer, id=answer) for answer in ("joy", "fear")]
    rewards = [score(one.thought, one.sample, one.reflection, RewardSettings()) for one in made]
    rows = [
        rollout_row(step, 0, Rollout(one.sample, one.completion, one.thought, one.reflection, reward))
        for step, (one, reward) in enumerate(zip(made, rewards, strict=True), start=1)
    ]
    append_jsonl(tmp_path / "rollouts.jsonl", rows)
    append_jsonl(tmp_path / "metrics.jsonl", [{"step": 1, "reward": 1.0}])
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "rew')
    return tmp_path


def test_rollouts_are_a_row_each_with_what_stands_inside_by_dots(run: Path) -> None:
    rollouts = emor3.read_table(run, "rollouts")
    assert list(rollouts["thought.answer"]) == ["joy", "fear"]
    assert list(rollouts["parts.accuracy"]) == [1.0, 0.0]
    assert list(rollouts["reward"]) == pytest.approx([1.0, 0.4])  # 0.1 + 0.3 * (1 + 1) / 2 without the answer
    assert list(rollouts["reflection.consistency.verdict"]) == ["supported", "supported"]
    assert rollouts.groupby("step")["reward"].mean().index.tolist() == [1, 2]


def test_a_line_that_is_being_written_is_left_out(run: Path) -> None:
    assert emor3.read_table(str(run), "metrics").to_dict("records") == [{"step": 1, "reward": 1.0}]


def test_an_evaluation_gives_predictions_and_figures(tmp_path: Path) -> None:
    made = [prediction("joy", answer, id=answer, votes={"joy": 1.0}) for answer in ("joy", "fear")]
    folder = save_evaluation(tmp_path / "e", {"d": made})
    predictions = emor3.read_table(folder, "predictions")
    assert list(predictions["predicted"]) == ["joy", "fear"]
    assert list(predictions["votes.joy"]) == [1.0, 1.0]
    figures = emor3.read_table(folder, "figures").set_index(["data", "figure"])
    written = json.loads((folder / "results.json").read_text())["data"][0]["figures"]["accuracy"]
    assert figures.loc[("d", "accuracy")].to_dict() == written
    assert written["value"] == 0.5


def test_what_is_not_there_is_one_line_that_says_what_is(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no evaluations.jsonl for the table 'evaluations'; there: metrics, rollouts$"):
        emor3.read_table(run, "evaluations")
    with pytest.raises(UserError, match=r"gone has no results.json .*; it is no folder of a run or of an evaluation"):
        emor3.read_table(tmp_path / "gone", "figures")
    with pytest.raises(UserError, match=r"no table 'steps': there are metrics, rollouts, evaluations, predictions"):
        emor3.read_table(run, "steps")
    (run / "results.json").write_text('{"data": [{"data": "d", "figures": {"accuracy": 1}}]}')
    with pytest.raises(UserError, match=r"results.json: '0.figures.accuracy': "):
        emor3.read_table(run, "figures")
    (run / "rollouts.jsonl").write_text("[]\n")
    with pytest.raises(UserError, match=r"rollouts.jsonl line 1: "):
        emor3.read_table(run, "rollouts")
