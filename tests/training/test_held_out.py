"""Evaluation during training: a curve without gaps, the best policy kept, and the training as if it were not there."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from test_ddp import launch_training
from test_train import (
    LEARNING,
    completions_of,
    metrics_of,
    run_of,
    same,
    weights_of,
    weights_of_path,
    write_recipe,
)
from transformers import TrainerCallback

from described import undescribed
from emor3.data.folders import load_samples
from emor3.errors import UserError
from emor3.evaluation.evaluate import complete, evaluate, load_candidate
from emor3.evaluation.settings import EvaluationSettings
from emor3.heldout.figures import Measurement
from emor3.models.checkpoints import resolve_checkpoint
from emor3.runs import directory
from emor3.runs.evaluations import is_best, policy_step
from emor3.runs.recipe import load_recipe
from emor3.runs.records import keep_steps, read_jsonl
from emor3.tools.reference import RUN_FILES
from emor3.training.callbacks import HeldOutEvaluation
from emor3.training.run import train

FROZEN = {"path": "embedded", "freeze": ["vision", "projector"]}  # so that image features are kept for a round
CYCLES = LEARNING | {"max_steps": 4, "save_steps": 2, "steps_per_generation": 2, "gradient_accumulation_steps": 1}
CYCLES |= {"save_total_limit": 1, "lr_scheduler_type": "linear"}


def curve_of(run: Path) -> list[Any]:
    return list(read_jsonl(run / "evaluations.jsonl"))


def best_of(run: Path) -> Any:
    return json.loads((run / "best" / "best.json").read_text())


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory, scenes: str) -> Path:
    """Four steps in two rounds of completions, evaluated after each, so also in the middle of a round."""
    folder = tmp_path_factory.mktemp("watched")
    return run_of(folder, scenes, "embedded", model=FROZEN, grpo=CYCLES, evaluation={"every": 1})


# --- what it leaves ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_is_evaluated_at_its_start_every_so_many_steps_and_at_its_end(watched: Path, scenes: str) -> None:
    rows = curve_of(watched)
    assert [row["step"] for row in rows] == [0, 1, 2, 3, 4]
    assert all(row.keys() == {"step", "n", "accuracy", "format", "perception"} for row in rows)
    assert [undescribed(row, RUN_FILES["evaluations.jsonl"]) for row in rows] == [[]] * 5
    held_out = json.loads((watched / "held_out.json").read_text())
    assert undescribed(held_out, RUN_FILES["held_out.json"]) == []
    assert held_out["sample_ids"] == [sample.id for sample in load_samples(scenes, split="test")]
    assert {row["sample"] for row in read_jsonl(watched / "rollouts.jsonl")}.isdisjoint(held_out["sample_ids"])


@pytest.mark.slow
def test_training_is_bit_for_bit_what_it_is_without_evaluation(watched: Path, tmp_path: Path, scenes: str) -> None:
    alone = run_of(tmp_path, scenes, "embedded", model=FROZEN, grpo=CYCLES)
    assert same(weights_of(watched / "final"), weights_of(alone / "final"))
    assert not same(weights_of(watched / "final"), weights_of_path(resolve_checkpoint("embedded")))
    assert completions_of(watched) == completions_of(alone)
    assert metrics_of(watched) == metrics_of(alone)
    assert not (alone / "evaluations.jsonl").exists()
    assert not (alone / "best").exists()


@pytest.mark.slow
def test_the_best_policy_is_kept_whatever_checkpoints_are_removed_and_is_what_its_record_says(
    watched: Path, tmp_path: Path, scenes: str
) -> None:
    assert [path.name for path in (watched / "checkpoints").iterdir()] == ["checkpoint-4"]  # save_total_limit
    rows, best = curve_of(watched), best_of(watched)
    assert best["value"] == max(row["accuracy"] for row in rows)
    first = next(row for row in rows if row["accuracy"] == best["value"])
    assert (best["step"], best["metric"], best["n"]) == (first["step"], "accuracy", 8)
    assert policy_step(watched, watched / "best") == best["step"]
    for policy, accuracy in (("best", best["value"]), (".", rows[-1]["accuracy"])):  # the run itself is its end
        candidate = load_candidate(str(watched / policy))
        settings = EvaluationSettings(max_new_tokens=64)
        (found,) = evaluate(candidate, [scenes], settings, tmp_path / f"e{policy}")
        assert found.figures["accuracy"].value == accuracy


# --- going on (in any other way a run may be killed: test_train.py) ---------------------------------------------------


@pytest.mark.slow
def test_an_evaluation_that_failed_after_its_step_was_saved_is_made_up_for(watched: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(watched, run)
    shutil.rmtree(run / "final")
    keep_steps(run / "evaluations.jsonl", 3)
    train(directory.resumed_recipe(run), resume=True)
    assert curve_of(run) == curve_of(watched)
    assert best_of(run) == best_of(watched)


@pytest.mark.slow
def test_other_held_out_samples_are_refused_when_a_run_goes_on_and_another_rhythm_is_not(
    watched: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(watched, run)
    shutil.rmtree(run / "final")
    keep_steps(run / "evaluations.jsonl", 3)
    with pytest.raises(UserError, match=r"cannot resume .* with evaluation\.samples 64 -> 4"):
        train(directory.resumed_recipe(run, ["evaluation.samples=4"]), resume=True)
    config = json.loads((run / "config.json").read_text())
    config["evaluation"]["data"] = config["data"]["train"]  # as if it had been named
    (run / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="with other held-out samples"):
        train(directory.resumed_recipe(run, ["evaluation.data=embedded:scenes8"]), resume=True)
    train(directory.resumed_recipe(run, ["evaluation.every=3"]), resume=True)
    assert [row["step"] for row in curve_of(run)] == [0, 1, 2, 3, 4]
    assert "evaluation.every 1 -> 3" in capsys.readouterr().out


# --- ways to train ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_best_policy_of_a_run_with_adapters_holds_these_and_is_evaluated_like_any_other(
    tmp_path: Path, scenes: str
) -> None:
    model = {"path": "embedded", "lora": {"r": 2, "alpha": 4}}
    cold = {"samples": 4, "steps": 1, "batch_size": 2, "learning_rate": 1e-4}
    changes = {"evaluation": {"every": 1}, "cold_start": cold, "grpo": LEARNING | {"learning_rate": 3e-2}}
    run = run_of(tmp_path, scenes, "embedded", model=model, **changes)
    assert {path.name for path in (run / "best").iterdir()} >= {"adapter_config.json", "adapter_model.safetensors"}
    assert list(run.rglob("README.md")) == []
    (row,) = [row for row in curve_of(run) if row["step"] == best_of(run)["step"]]
    (found,) = evaluate(
        load_candidate(str(run / "best")), [scenes], EvaluationSettings(max_new_tokens=64), tmp_path / "e"
    )
    assert {name: found.figures[name].value for name in ("accuracy", "format")} == {
        name: row[name] for name in ("accuracy", "format")
    }


@pytest.mark.slow
@pytest.mark.parametrize("lora", [None, {"r": 2, "alpha": 4}], ids=["full", "lora"])
def test_a_supervised_run_is_evaluated_at_its_own_steps(
    tmp_path: Path, scenes: str, lora: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    cold = {"samples": None, "steps": 3, "batch_size": 4, "learning_rate": 1e-3}
    model = {"path": "embedded", "lora": lora}
    changes = {"model": model, "thinking": "direct", "cold_start": cold, "evaluation": {"every": 2}}
    path = write_recipe(tmp_path, scenes, "embedded", **changes)
    run = train(load_recipe(path, ["grpo=null"]))
    curve = curve_of(run)
    assert [row["step"] for row in curve] == [0, 2, 3]
    settings = EvaluationSettings(thinking="direct", template="direct")
    for policy, row in (("best", next(row for row in curve if row["step"] == best_of(run)["step"])), (".", curve[-1])):
        (found,) = evaluate(load_candidate(str(run / policy)), [scenes], settings, tmp_path / f"e{policy}")
        assert found.figures["accuracy"].value == row["accuracy"]
    assert f"best held-out accuracy: {best_of(run)['value']:.3f} at step" in capsys.readouterr().out
    shutil.rmtree(run / "final")  # killed before the end: nothing of the stage is done again
    train(load_recipe(path, ["grpo=null"]), resume=True)
    assert curve_of(run) == curve


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, scenes: str) -> Path:
    return launch_training(tmp_path_factory.mktemp("one"), scenes, "alone", **ON_TWO)


ON_TWO: dict[str, Any] = {"evaluation": {"every": 2, "samples": 3}, "max_steps": 2, "max_completion_length": 64}


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["ddp", "fsdp2", "zero3"])
def test_two_processes_share_the_held_out_samples_and_find_what_one_finds(
    tmp_path: Path, scenes: str, alone: Path, layout: str
) -> None:
    together = launch_training(tmp_path, scenes, layout, **ON_TWO)  # three samples, two for each
    assert [row["n"] for row in curve_of(together)] == [3, 3]
    assert curve_of(together) == curve_of(alone)
    assert curve_of(alone)[0]["format"] > 0  # whole completions
    assert best_of(together) == best_of(alone)
    assert weights_of(together / "best").keys() == weights_of(alone / "best").keys()


# --- what it is made of -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_trackers_get_the_figures_as_eval_and_the_step_is_still_logged(
    tmp_path: Path, scenes: str, random_checkpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    logged = []

    class Tracker(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any, **_: Any) -> None:
            logged.append((state.global_step, {name for name in logs if name.startswith("eval_") or name == "loss"}))

    original = HeldOutEvaluation.follow

    def follow(self: Any, trainer: Any, *args: Any) -> None:
        trainer.add_callback(Tracker())
        original(self, trainer, *args)

    monkeypatch.setattr(HeldOutEvaluation, "follow", follow)
    run = run_of(tmp_path, scenes, random_checkpoint, grpo={"max_steps": 1}, evaluation={"every": 1, "samples": 2})
    figures = {"eval_accuracy", "eval_format", "eval_perception"}
    assert [entry for entry in logged if entry[1]] == [(0, figures), (1, figures), (1, {"loss"})]
    (row,) = read_jsonl(run / "metrics.jsonl")
    assert row["time/evaluate"] > 0
    assert not [name for name in row if name.startswith("eval")]


def test_the_figures_are_shares_of_the_answers_to_the_prompts_of_emor3_evaluate(scenes: str) -> None:
    candidate = load_candidate("embedded")
    samples = load_samples(scenes, split="test")[:4]
    found = complete(candidate, samples, EvaluationSettings(max_new_tokens=64))
    read: list[Any] = []

    def is_first(prediction: Any) -> bool:
        read.append((prediction.sample.id, prediction.completion))
        return bool(prediction.sample.id == samples[0].id)

    measurement = Measurement(samples, {"first": is_first}, "steps", "steps", 64, batch_size=3)
    assert measurement.figures(candidate.engine.model, candidate.processor) == {"first": 0.25}
    assert read == [(sample.id, text) for sample, text in zip(samples, found, strict=True)]


def test_the_earlier_of_two_equal_evaluations_is_the_best() -> None:
    assert is_best({"accuracy": 0.0}, [], "accuracy")
    assert not is_best({"accuracy": 0.5}, [{"accuracy": 0.5}], "accuracy")
    assert is_best({"accuracy": 0.6}, [{"accuracy": 0.5}, {"accuracy": 0.2}], "accuracy")


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"every": 0}, r"evaluation\.every: .* greater than or equal to 1"),
        ({"samples": 0}, r"evaluation\.samples: .* greater than or equal to 1"),
        ({"metric": "f1"}, r"evaluation\.metric: .*'accuracy', 'format' or 'perception'"),
        ({"evry": 5}, "did you mean 'evaluation.every'"),
        ({"data": "/no/such/folder"}, "no such folder"),
        ({"data": "embedded:scenes6", "metric": "perception", "samples": 1}, None),  # some labels are the same
    ],
)
def test_a_mistake_in_the_block_is_one_line_before_the_run_exists(
    tmp_path: Path, scenes: str, random_checkpoint: str, settings: Any, message: str | None
) -> None:
    path = write_recipe(tmp_path, scenes, random_checkpoint, evaluation=settings, grpo={"max_steps": 1})
    if message is None:
        train(load_recipe(path))
        return
    with pytest.raises(UserError, match=message):
        train(load_recipe(path))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["eval_strategy", "do_eval"])
def test_trl_s_own_evaluation_is_refused_with_the_setting_to_use(tmp_path: Path, scenes: str, name: str) -> None:
    with pytest.raises(UserError, match=rf"'{name}' is set by emor3; use evaluation\.every"):
        load_recipe(write_recipe(tmp_path, scenes, "embedded", grpo={name: "steps"}))
