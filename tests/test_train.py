"""Training end to end on a tiny random model: records, checkpoints, and resume that continues bit for bit."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText

from emor3 import records
from emor3.config import load_recipe
from emor3.data import load_samples
from emor3.errors import UserError
from emor3.records import latest_checkpoint, read_jsonl
from emor3.rewards import RewardSettings, score
from emor3.thinking import parse
from emor3.train import chosen_samples, grpo_config, lora_config, train, training_order
from emor3.types import Finding, Reflection, Verdict

GRPO = {
    "max_steps": 2,
    "num_generations": 2,
    "per_device_train_batch_size": 4,
    "max_completion_length": 6,
    "learning_rate": 1e-3,
    "save_steps": 1,
}


def write_recipe(folder, scenes, checkpoint, name="recipe.yaml", **changes):
    content = {
        "output_dir": str(folder / "run"),
        "model": {"path": checkpoint},
        "data": {"train": scenes},
        "grpo": GRPO | changes.pop("grpo", {}),
    }
    path = folder / name
    path.write_text(yaml.safe_dump(content | changes), encoding="utf-8")
    return path


def run_of(folder, scenes, checkpoint, **changes):
    """Train in this process; returns the run directory."""
    return train(load_recipe(write_recipe(folder, scenes, checkpoint, **changes)))


def weights_of(folder):
    return load_file(folder / "model.safetensors")


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def metrics_of(run):
    """Metrics without what depends on the clock."""
    timed = ("time/", "step_time", "train_")
    return [{k: v for k, v in row.items() if not k.startswith(timed)} for row in read_jsonl(run / "metrics.jsonl")]


# --- what a run leaves behind ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory, scenes, random_checkpoint):
    return run_of(tmp_path_factory.mktemp("run"), scenes, random_checkpoint, grpo={"beta": 0.1})


def test_every_part_is_in_the_metrics_with_kl_and_the_time_of_each_phase(run):
    rows = list(read_jsonl(run / "metrics.jsonl"))
    assert [row["step"] for row in rows] == [1, 2]
    parts = ("accuracy", "format", "consistency", "coherence")
    needed = {*(f"rewards/{part}/mean" for part in parts), "reward", "kl", "entropy", "frac_reward_zero_std"}
    phases = {f"time/{phase}" for phase in ("generate", "reflect", "log_probs", "update")}
    assert all(needed | phases <= row.keys() for row in rows)


def test_a_rollout_can_be_scored_again_from_its_record(run, scenes):
    samples = {sample.id: sample for sample in load_samples(scenes, split="train")}
    rows = list(read_jsonl(run / "rollouts.jsonl"))
    assert [(row["step"], row["group"]) for row in rows] == [(s, g) for s in (1, 2) for g in (0, 0, 1, 1)]
    for row in rows:
        sample = samples[row["sample"]]
        findings = {name: Finding(Verdict(part["verdict"])) for name, part in row["reflection"].items()}
        again = score(parse(row["completion"]), sample, Reflection(**findings), RewardSettings())
        assert (again.total, again.parts) == (row["reward"], row["parts"])
        assert row["reflection"]["consistency"]["reason"] or row["reflection"]["consistency"]["probabilities"]


def test_completions_of_a_group_share_the_sample_and_no_placeholder_is_among_them(run):
    rows = list(read_jsonl(run / "rollouts.jsonl"))
    assert all(rows[i]["sample"] == rows[i + 1]["sample"] for i in range(0, len(rows), 2))
    assert not any("<|" in row["completion"] for row in rows)


def test_checkpoints_and_the_final_policy_load_in_plain_transformers(run, random_checkpoint):
    assert {path.name for path in (run / "checkpoints").glob("*-*")} == {"checkpoint-1", "checkpoint-2"}
    final = AutoModelForImageTextToText.from_pretrained(run / "final")
    assert type(final).__name__ == "Qwen2_5_VLForConditionalGeneration"
    assert same(weights_of(run / "final"), weights_of(run / "checkpoints" / "checkpoint-2"))
    assert (run / "final" / "processor_config.json").is_file()


def test_settings_and_environment_are_stamped(run):
    config = json.loads((run / "config.json").read_text())
    assert config["grpo"]["beta"] == 0.1
    assert (config["reward"]["reflective"], config["reward"]["formula"]) == (0.1, "paper")
    assert json.loads((run / "environment.json").read_text())["packages"]["trl"]


def test_another_runs_folder_is_refused_and_a_changed_recipe_is_not_resumed(run, scenes, random_checkpoint):
    recipe = load_recipe(write_recipe(run.parent, scenes, random_checkpoint, grpo={"beta": 0.1}))
    with pytest.raises(UserError, match="already holds files"):
        train(recipe)
    with pytest.raises(UserError, match="differs in seed"):
        train(recipe.model_copy(update={"seed": 5}), resume=True)
    with pytest.raises(UserError, match="does not look like a run"):
        train(recipe.model_copy(update={"output_dir": scenes}), overwrite=True)


def test_a_finished_run_resumes_to_nothing_new(run, scenes, random_checkpoint):
    before, rows = weights_of(run / "final"), metrics_of(run)
    train(load_recipe(write_recipe(run.parent, scenes, random_checkpoint, grpo={"beta": 0.1})), resume=True)
    assert same(weights_of(run / "final"), before)
    assert metrics_of(run) == rows


# --- settings reach what they set -------------------------------------------------------------------------------------


def test_settings_of_the_recipe_reach_trl(tmp_path, scenes, random_checkpoint):
    chosen = {"beta": 0.3, "temperature": 0.7, "epsilon_high": 0.5, "loss_type": "dr_grpo", "num_generations": 4}
    recipe = load_recipe(write_recipe(tmp_path, scenes, random_checkpoint, seed=9, grpo=chosen))
    config = grpo_config(recipe, tmp_path, 24)
    assert {name: getattr(config, name) for name in chosen} == chosen
    assert (config.seed, config.logging_steps) == (9, 1)


@pytest.mark.parametrize(
    ("grpo", "message"),
    [
        ({"betta": 0.1}, r"grpo\.betta is no setting .* did you mean beta"),
        ({"output_dir": "x"}, "set by emor3"),
        ({"num_generations": 1}, "at least 2"),
        ({"per_device_train_batch_size": 3}, "TRL refuses"),
        ({"steps_per_generation": 2, "gradient_accumulation_steps": 1}, "save_steps must be a multiple of 2"),
    ],
)
def test_settings_that_cannot_work_are_refused(tmp_path, scenes, random_checkpoint, grpo, message):
    with pytest.raises(UserError, match=message):
        grpo_config(load_recipe(write_recipe(tmp_path, scenes, random_checkpoint, grpo=grpo)), tmp_path, 24)


def test_epochs_become_steps_where_no_number_of_steps_is_set(tmp_path, scenes, random_checkpoint):
    path = write_recipe(tmp_path, scenes, random_checkpoint, grpo={"max_steps": -1, "num_train_epochs": 2})
    assert grpo_config(load_recipe(path), tmp_path, 24).max_steps == 24  # 24 samples twice, 2 a step


def test_a_subset_and_its_order_are_drawn_with_the_seed(tmp_path, scenes, random_checkpoint):
    def ids(seed):
        path = write_recipe(tmp_path, scenes, random_checkpoint, seed=seed, data={"train": scenes, "limit": 5})
        return [sample.id for sample in chosen_samples(load_recipe(path))]

    assert ids(0) == ids(0) != ids(1)
    assert len(ids(0)) == 5
    order = training_order(3, 7, seed=0)
    assert sorted(order[:3]) == sorted(order[3:6]) == [0, 1, 2]
    assert training_order(3, 9, seed=0)[:7] == order


def test_a_recipe_that_trains_nothing_is_refused(tmp_path, scenes, random_checkpoint):
    path = write_recipe(tmp_path, scenes, random_checkpoint)
    with pytest.raises(UserError, match="nothing to train"):
        load_recipe(path, ["grpo=null"])


# --- ways to train ----------------------------------------------------------------------------------------------------


def test_a_frozen_vision_tower_stays_as_it_was_and_the_rest_learns(tmp_path, scenes, random_checkpoint):
    cold = {"samples": 4, "steps": 1, "batch_size": 2, "learning_rate": 1e-2}
    model = {"path": random_checkpoint, "freeze_vision": True}
    run = run_of(tmp_path, scenes, random_checkpoint, model=model, cold_start=cold, grpo={"max_steps": 1})
    before, after = weights_of_path(random_checkpoint), weights_of(run / "final")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert not any("visual" in name for name in changed)


def weights_of_path(path):
    return load_file(f"{path}/model.safetensors")


def test_lora_adapters_are_merged_into_the_final_policy(tmp_path, scenes, random_checkpoint):
    model = {"path": random_checkpoint, "lora": {"r": 2, "alpha": 4}}
    cold = {"samples": 4, "steps": 1, "batch_size": 2, "learning_rate": 1e-1}
    run = run_of(tmp_path, scenes, random_checkpoint, model=model, cold_start=cold, grpo={"max_steps": 1, "beta": 0.1})
    assert (run / "checkpoints" / "checkpoint-1" / "adapter_model.safetensors").is_file()
    before, after = weights_of_path(random_checkpoint), weights_of(run / "final")
    assert before.keys() == after.keys()
    assert not same(before, after)
    assert lora_config(None) is None


def test_the_generating_judge_runs_in_training(tmp_path, scenes, random_checkpoint):
    run = run_of(tmp_path, scenes, random_checkpoint, judge={"backend": "generate"}, grpo={"max_steps": 1})
    assert len(list(read_jsonl(run / "rollouts.jsonl"))) == 4


@pytest.mark.parametrize("targets", ["label", "reasoning"])
def test_a_supervised_run_needs_no_reinforcement(tmp_path, scenes, random_checkpoint, targets):
    cold = {"samples": None, "steps": 2, "batch_size": 4, "learning_rate": 1e-3, "targets": targets}
    path = write_recipe(tmp_path, scenes, random_checkpoint, cold_start=cold)
    run = train(load_recipe(path, ["grpo=null"]))
    assert same(weights_of(run / "final"), weights_of(run / "cold_start"))
    assert not same(weights_of(run / "final"), weights_of_path(random_checkpoint))
    assert not (run / "rollouts.jsonl").exists()


def test_dynamic_sampling_needs_whole_groups_and_records_its_retries(tmp_path, scenes, random_checkpoint):
    run = run_of(tmp_path, scenes, random_checkpoint, dynamic_sampling=2, grpo={"max_steps": 1})
    assert next(read_jsonl(run / "metrics.jsonl"))["dynamic_sampling/attempts"] == 2  # a random model earns nothing
    assert [row["group"] for row in read_jsonl(run / "rollouts.jsonl")] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]


# --- what can go wrong ------------------------------------------------------------------------------------------------


def test_a_non_finite_loss_stops_with_the_last_good_step_saved_and_can_be_resumed(
    tmp_path, scenes, random_checkpoint, monkeypatch
):
    path = write_recipe(tmp_path, scenes, random_checkpoint, grpo={"max_steps": 3, "save_steps": 3})
    original = training_step_of(monkeypatch, spoil_at=1)
    with pytest.raises(UserError, match="not finite at step 2"):
        train(load_recipe(path))
    run = tmp_path / "run"
    assert latest_checkpoint(run).name == "checkpoint-1"
    assert all(torch.isfinite(value).all() for value in weights_of(latest_checkpoint(run)).values())
    monkeypatch.setattr("emor3.grpo.EmoTrainer.training_step", original)
    train(load_recipe(path), resume=True)
    assert [row["step"] for row in metrics_of(run)] == [1, 2, 3]


def training_step_of(monkeypatch, spoil_at):
    """Make the gradient of one step NaN; returns the method as it was."""
    from emor3.grpo import EmoTrainer

    original = EmoTrainer.training_step

    def spoiled(self, *args, **kwargs):
        loss = original(self, *args, **kwargs)
        if self.state.global_step == spoil_at:
            next(p for p in self.model.parameters() if p.grad is not None).grad.fill_(float("nan"))
        return loss

    monkeypatch.setattr(EmoTrainer, "training_step", spoiled)
    return original


def test_a_checkpoint_without_its_mark_is_removed_and_the_one_before_is_taken(tmp_path):
    for step, complete in ((1, True), (2, True), (10, False)):
        folder = tmp_path / "checkpoints" / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        if complete:
            (folder / records.COMPLETE).touch()
    assert latest_checkpoint(tmp_path).name == "checkpoint-2"
    assert not (tmp_path / "checkpoints" / "checkpoint-10").exists()


def test_records_of_steps_that_will_be_repeated_are_dropped_and_half_a_line_too(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"ste')
    records.keep_steps(path, 2)
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n'


def start(recipe, *flags):
    return subprocess.Popen(
        [sys.executable, "-m", "emor3.cli", "train", str(recipe), *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


# Real completions on the embedded base, so that rewards differ and the weights move.
LEARNING = {"max_completion_length": 64, "per_device_train_batch_size": 8, "num_generations": 4, "beta": 0.1}


@pytest.mark.slow
@pytest.mark.parametrize("lora", [None, {"r": 2, "alpha": 4}], ids=["full", "lora"])
def test_a_killed_run_resumes_bit_for_bit(tmp_path, scenes, lora):
    changes = {
        "model": {"path": "embedded", "lora": lora},
        "cold_start": {"samples": 4, "steps": 2, "batch_size": 2, "learning_rate": 1e-3},
        "grpo": LEARNING | {"max_steps": 4, "save_steps": 2, "lr_scheduler_type": "linear"},
    }
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        folder.mkdir()
        write_recipe(folder, scenes, "embedded", **changes)
    out, err = start(whole / "recipe.yaml").communicate(timeout=200)
    assert "time: " in out, err
    process = start(killed / "recipe.yaml")
    deadline = time.monotonic() + 120
    metrics = killed / "run" / "metrics.jsonl"
    while time.monotonic() < deadline and not (metrics.exists() and metrics.read_text().count("\n") >= 3):
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (killed / "run" / "final").exists()
    out, err = start(killed / "recipe.yaml", "--resume").communicate(timeout=200)
    assert "run directory" in out, err
    assert same(weights_of(whole / "run" / "final"), weights_of(killed / "run" / "final"))
    assert metrics_of(whole / "run") == metrics_of(killed / "run")
    assert not same(weights_of(whole / "run" / "final"), weights_of(whole / "run" / "cold_start"))


@pytest.mark.slow
def test_two_processes_give_the_rollouts_and_rewards_of_one(tmp_path, scenes):
    # The same global batch, 8 completions of 2 prompts: all on one process, or one group on each of two.
    # Greedy decoding, since the ranks draw from generators of their own.
    rows = {}
    for name, size in (("one", 8), ("two", 4)):
        folder = tmp_path / name
        folder.mkdir()
        changes = LEARNING | {"max_steps": 1, "per_device_train_batch_size": size, "temperature": 0.001}
        recipe = write_recipe(folder, scenes, "embedded", grpo=changes)
        command = [sys.executable, "-m", "emor3.cli", "train", str(recipe)]
        if name == "two":
            launcher = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "29731", "-m"]
            command = [sys.executable, *launcher, "emor3.cli", "train", str(recipe)]
        env = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=200, check=False)
        assert done.returncode == 0, done.stderr
        rows[name] = list(read_jsonl(folder / "run" / "rollouts.jsonl"))
        metrics = next(read_jsonl(folder / "run" / "metrics.jsonl"))
        rows[name + " metrics"] = {k: v for k, v in metrics.items() if k.startswith("reward")}
    keys = ("sample", "group", "completion", "reward", "parts")
    assert len(rows["two"]) == 8  # both ranks wrote their half
    assert [[row[k] for k in keys] for row in rows["one"]] == [[row[k] for k in keys] for row in rows["two"]]
    assert rows["one metrics"] == pytest.approx(rows["two metrics"], abs=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"template": "no/such/file.txt"}, "template"),
        ({"model": {"path": "/no/such/model"}}, "no checkpoint"),
        ({"grpo": {"betta": 1}}, "betta"),
    ],
)
def test_a_mistake_in_the_recipe_leaves_nothing_behind(tmp_path, scenes, random_checkpoint, changes, message):
    with pytest.raises(UserError, match=message):
        run_of(tmp_path, scenes, random_checkpoint, **changes)
    assert not (tmp_path / "run").exists()
