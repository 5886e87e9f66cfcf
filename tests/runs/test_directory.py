"""The run directory: whose it is, what a row holds, and what a killed run leaves."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from emor3.errors import UserError
from emor3.method.labels import MIKELS8
from emor3.method.reflection import reflect
from emor3.method.rewards import RewardSettings, score
from emor3.method.thinking import parse
from emor3.method.types import Aspect, Question, Reply, Rollout, Sample
from emor3.runs import directory, records
from emor3.runs.recipe import Recipe
from emor3.storage.outputs import write_json
from made_up import prepare_run
from rewards import paper_reward

SAMPLE = Sample("s1", ("a.png",), "awe", MIKELS8)
WHOLE = "<step1>A dog.</step1><step2>Awe.</step2><step3>Positive, high.</step3>\\boxed{awe}"


def recipe(folder: Any, **changes: Any) -> Recipe:
    content = {"output_dir": str(folder), "model": {"path": "embedded"}, "data": {"train": "x"}}
    return Recipe.model_validate(content | changes)


class Judge:
    """Yes to everything, with probabilities."""

    def answer(self, questions: list[Question]) -> list[Reply]:
        rest = {question: 0.4 / (len(question.candidates) - 1) for question in questions}
        replies = [("Yes" if question.aspect is Aspect.CONSISTENCY else "awe", question) for question in questions]
        return [
            Reply(text, {name: 0.6 if name == text else rest[question] for name in question.candidates})
            for text, question in replies
        ]


def row_of(text: str, settings: RewardSettings) -> dict[str, Any]:
    thought = parse(text)
    reflection = reflect(Judge(), [(SAMPLE, thought)], settings.aspects)[0]
    reward = score(thought, SAMPLE, reflection, settings)
    return records.rollout_row(3, 1, Rollout(SAMPLE, text, thought, reflection, reward))


def test_a_rollout_row_holds_everything_its_reward_came_from() -> None:
    row = json.loads(json.dumps(row_of(WHOLE, paper_reward())))
    place = {
        "step": 3,
        "group": 1,
        "sample": "s1",
        "images": ["a.png"],
        "text": None,
        "label": "awe",
        "completion": WHOLE,
    }
    assert {name: row[name] for name in place} == place
    assert row["thought"] == {
        "trigger": "A dog.",
        "feeling": "Awe.",
        "conclusion": "Positive, high.",
        "answer": "awe",
        "problem": None,
        "confidence": None,
    }
    consistency, coherence = row["reflection"]["consistency"], row["reflection"]["coherence"]
    assert (consistency["verdict"], consistency["reply"]) == ("supported", "Yes")
    assert consistency["probabilities"] == {"Yes": 0.6, "No": 0.4}
    assert "A dog." in consistency["question"]
    assert (coherence["verdict"], coherence["reply"]) == ("supported", "awe")
    assert coherence["probabilities"].keys() == set(MIKELS8.labels)
    assert row["parts"] == {"accuracy": 1, "format": 1, "consistency": 1, "coherence": 1}
    assert row["reward"] == pytest.approx(1.0)


def test_a_question_that_cannot_be_asked_has_its_reason_and_one_never_run_is_null() -> None:
    row = row_of("\\boxed{awe}", paper_reward(coherence=False))
    assert row["reflection"]["coherence"] is None
    assert row["reflection"]["consistency"]["verdict"] == "not_asked"
    assert "step1" in row["reflection"]["consistency"]["reason"]
    assert row["reflection"]["consistency"]["question"] is None
    assert row["parts"] == {"accuracy": 1, "format": 0, "consistency": 0, "coherence": None}
    assert row["reward"] == pytest.approx(0.8)  # accuracy alone: 1 - 0.1 - 0.1


@pytest.mark.parametrize("found", ["config.json", "notes.txt"], ids=["a run", "other files"])
def test_a_folder_that_holds_something_is_refused(tmp_path: Path, found: str) -> None:
    (tmp_path / found).write_text("{}")
    with pytest.raises(UserError, match="already holds files: give --resume"):
        prepare_run(recipe(tmp_path), resume=False, overwrite=False)


def test_overwrite_replaces_a_run_and_never_anything_else(tmp_path: Path) -> None:
    run, other = tmp_path / "run", tmp_path / "other"
    prepare_run(recipe(run), resume=False, overwrite=False)
    (run / "metrics.jsonl").write_text("{}\n")
    prepare_run(recipe(run, seed=1), resume=False, overwrite=True)
    assert not (run / "metrics.jsonl").exists()
    assert records.read_json(run / "config.json")["seed"] == 1
    other.mkdir()
    (other / "thesis.tex").touch()
    with pytest.raises(UserError, match="does not look like a run"):
        prepare_run(recipe(other), resume=False, overwrite=True)
    assert (other / "thesis.tex").exists()


def test_a_checkpoint_is_no_run_that_overwrite_may_replace(tmp_path: Path) -> None:
    """It holds a config.json, too, and would be gone once the new run has a checkpoint."""
    model = tmp_path / "model"
    model.mkdir()
    for name in ("config.json", "model.safetensors"):
        (model / name).write_text("{}")
    with pytest.raises(UserError, match="does not look like a run"):
        prepare_run(recipe(model), resume=False, overwrite=True)
    assert {path.name for path in model.iterdir()} == {"config.json", "model.safetensors"}


def test_a_run_resumes_under_its_own_recipe_in_whatever_folder_it_now_lies(tmp_path: Path) -> None:
    run, moved = tmp_path / "run", tmp_path / "moved"
    prepare_run(recipe(run), resume=False, overwrite=False)
    os.rename(run, moved)
    assert prepare_run(recipe(moved), resume=True, overwrite=False) == moved
    refusal = r"cannot resume .*moved with seed 0 -> 1, grpo.beta unset -> 0.5: that would change what is learnt"
    with pytest.raises(UserError, match=refusal):
        prepare_run(recipe(moved, seed=1, grpo={"beta": 0.5}), resume=True, overwrite=False)
    (moved / "config.json").unlink()
    with pytest.raises(UserError, match="nothing to resume"):
        prepare_run(recipe(moved), resume=True, overwrite=False)


def test_a_harmless_change_is_said_on_one_line_and_recorded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prepare_run(recipe(tmp_path, grpo={"save_steps": 50}), resume=False, overwrite=False)
    assert capsys.readouterr().out == ""
    changed = recipe(tmp_path, grpo={"save_steps": 10, "report_to": "wandb"})
    prepare_run(changed, resume=True, overwrite=False)
    assert capsys.readouterr().out == "resumed with grpo.save_steps 50 -> 10, grpo.report_to unset -> wandb\n"
    assert directory.read_recipe(tmp_path) == changed


def test_resuming_what_never_started_starts_it(tmp_path: Path) -> None:
    run = prepare_run(recipe(tmp_path / "run"), resume=True, overwrite=False)
    assert records.read_json(run / "environment.json")["packages"].keys() >= {"torch", "transformers", "trl"}
    assert directory.latest_checkpoint(run) is None


def test_a_json_file_is_the_old_one_or_the_new_one_never_half(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"a": 1})
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"a": object()})
    assert records.read_json(tmp_path / "a.json") == {"a": 1}


def test_a_broken_line_is_named_and_one_cut_short_at_the_end_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": "é"}\n{"a": 2', encoding="utf-8")
    assert list(records.read_jsonl(path)) == [{"a": "é"}]
    path.write_text('{"a": 1}\n{broken\n')
    with pytest.raises(UserError, match=r"rows\.jsonl line 2: not JSON"):
        list(records.read_jsonl(path))
    with pytest.raises(UserError, match=r"cannot read .*none\.jsonl: No such file"):
        list(records.read_jsonl(tmp_path / "none.jsonl"))


def test_rows_that_are_kept_are_kept_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "rollouts.jsonl"
    records.append_jsonl(path, [{"step": step, "text": "ü\n<b>"} for step in (1, 1, 2, 3)])
    before = path.read_text(encoding="utf-8").splitlines()
    records.keep_steps(path, 2)
    assert path.read_text(encoding="utf-8").splitlines() == before[:3]
    records.keep_steps(tmp_path / "none.jsonl", 2)  # a run killed before its first row


def test_a_run_of_another_version_is_one_line_that_says_what_to_do(tmp_path: Path) -> None:
    write_json(tmp_path / directory.CONFIG, {"output_dir": "x", "model": {"path": "y", "freeze_vision": False}})
    with pytest.raises(UserError, match=r"another version of emor3 .*freeze_vision.* copy .*final elsewhere"):
        directory.read_recipe(tmp_path)
