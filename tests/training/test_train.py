"""Training end to end on a tiny random model: records, checkpoints, and resume that continues bit for bit."""

import json
import os
import random
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from peft import PeftModel
from safetensors.torch import load_file
from torch.nn.modules.module import register_module_forward_hook
from transformers import AutoModelForImageTextToText
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VisionTransformerPretrainedModel
from trl import GRPOTrainer

from described import undescribed
from emor3.data.folders import load_samples
from emor3.data.settings import DataBlock
from emor3.errors import UserError
from emor3.heldout.settings import HeldOutBlock
from emor3.judges.settings import JudgeBlock
from emor3.method.labels import MIKELS8
from emor3.method.rewards import RewardSettings, score
from emor3.method.thinking import parse
from emor3.method.types import Finding, Reflection, Reply, Verdict
from emor3.models.checkpoints import load, resolve_checkpoint, save
from emor3.models.generation import encode, vision_token_ids
from emor3.models.processors import load_processor
from emor3.models.settings import LoraBlock, ModelBlock
from emor3.runs import directory, records
from emor3.runs.directory import latest_checkpoint
from emor3.runs.evaluations import evaluations_of
from emor3.runs.recipe import ColdStartBlock, Recipe, load_recipe
from emor3.runs.records import read_jsonl
from emor3.settings import Block
from emor3.tools.reference import RUN_FILES
from emor3.training.callbacks import RunCallback
from emor3.training.dataset import chosen_samples, prompt_dataset, training_order
from emor3.training.run import load_policy, lora_config, train
from emor3.training.scorer import BatchScorer, part_rewards
from emor3.training.trainer import EmoTrainer
from forked import Forked, end_of, start_ranks
from steps import at_step, batches_of, trainer_of
from waiting import wait_until

GRPO = {
    "max_steps": 2,
    "num_generations": 2,
    "per_device_train_batch_size": 4,
    "max_completion_length": 6,
    "learning_rate": 1e-3,
    "save_steps": 1,
}
# Real completions on the embedded base, so that rewards differ and the weights move.
LEARNING = {"max_completion_length": 64, "per_device_train_batch_size": 8, "num_generations": 4, "beta": 0.1}


def write_recipe(folder: Path, scenes: str, checkpoint: str, name: str = "recipe.yaml", **changes: Any) -> Any:
    content = {
        "output_dir": str(folder / "run"),
        "model": {"path": checkpoint},
        "data": {"train": scenes},
        "grpo": GRPO | changes.pop("grpo", {}),
    }
    path = folder / name
    path.write_text(yaml.safe_dump(content | changes), encoding="utf-8")
    return path


def run_of(folder: Any, scenes: str, checkpoint: str, **changes: Any) -> Any:
    """Train in this process; returns the run directory."""
    return train(load_recipe(write_recipe(folder, scenes, checkpoint, **changes)))


def weights_of(folder: Path) -> Any:
    return load_file(folder / "model.safetensors")


def same(one: Any, other: Any) -> Any:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def metrics_of(run: Path) -> list[Any]:
    """Metrics without what depends on the clock."""
    timed = ("time/", "step_time", "train_")
    return [{k: v for k, v in row.items() if not k.startswith(timed)} for row in read_jsonl(run / "metrics.jsonl")]


def completions_of(run: Path) -> list[Any]:
    return [(row["step"], row["group"], row["sample"], row["completion"]) for row in read_jsonl(run / "rollouts.jsonl")]


# --- what a run leaves behind ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, scenes: str) -> Path:
    return run_of(tmp_path_factory.mktemp("run"), scenes, "embedded", grpo=LEARNING)


def test_every_part_is_in_the_metrics_with_kl_and_the_time_of_each_phase(run: Path) -> None:
    rows = list(read_jsonl(run / "metrics.jsonl"))
    assert [row["step"] for row in rows] == [1, 2]
    parts = ("accuracy", "format", "consistency", "coherence")
    needed = {*(f"rewards/{part}/mean" for part in parts), "reward", "kl", "entropy", "frac_reward_zero_std"}
    phases = {f"time/{phase}" for phase in ("generate", "reflect", "log_probs", "update")}
    assert all(needed | phases <= row.keys() for row in rows)
    for row in rows:
        mean = {part: row[f"rewards/{part}/mean"] for part in parts}
        # R_overall = 0.6 R_acc + 0.3 (R_cons + R_coh) / 2 + 0.1 R_format
        total = 0.6 * mean["accuracy"] + 0.15 * (mean["consistency"] + mean["coherence"]) + 0.1 * mean["format"]
        assert row["reward"] == pytest.approx(total, abs=1e-6)
    # The reference is the start model, up to the last digits of log-probabilities that are computed in two ways.
    assert rows[0]["kl"] < 1e-6 < rows[1]["kl"]


def finding_of(part: Any) -> Finding:
    """A finding as it stands in a record."""
    reply, *others = (
        None if one["reply"] is None else Reply(one["reply"], one["probabilities"])
        for one in (part, *part["distractors"])
    )
    return Finding(Verdict(part["verdict"]), reply=reply, distractors=tuple(others))


def test_a_rollout_can_be_scored_again_from_its_record(run: Path, scenes: str) -> None:
    samples = {sample.id: sample for sample in load_samples(scenes, split="train")}
    rows = list(read_jsonl(run / "rollouts.jsonl"))
    assert [(row["step"], row["group"]) for row in rows] == [(s, g) for s in (1, 2) for g in [0] * 4 + [1] * 4]
    assert len({row["reward"] for row in rows}) > 1
    for row in rows:
        sample = samples[row["sample"]]
        findings = {name: finding_of(part) for name, part in row["reflection"].items()}
        again = score(parse(row["completion"]), sample, Reflection(**findings), RewardSettings())
        assert (again.total, again.parts) == (row["reward"], row["parts"])
        assert row["reflection"]["consistency"]["reason"] or row["reflection"]["consistency"]["probabilities"]
    for step, metrics in enumerate(read_jsonl(run / "metrics.jsonl"), start=1):
        rewards = [row["reward"] for row in rows if row["step"] == step]
        assert sum(rewards) / len(rewards) == pytest.approx(metrics["reward"], abs=1e-6)


def test_completions_of_a_group_share_the_sample_and_groups_do_not(run: Path) -> None:
    rows = list(read_jsonl(run / "rollouts.jsonl"))
    groups = [{row["sample"] for row in rows[i : i + 4]} for i in range(0, len(rows), 4)]
    assert all(len(group) == 1 for group in groups)
    assert len(set.union(*groups)) == 4


def test_checkpoints_and_the_final_policy_load_in_plain_transformers(run: Path) -> None:
    assert {path.name for path in (run / "checkpoints").glob("*-*")} == {"checkpoint-1", "checkpoint-2"}
    final = AutoModelForImageTextToText.from_pretrained(run / "final")
    assert type(final).__name__ == "Qwen2_5_VLForConditionalGeneration"
    assert same(weights_of(run / "final"), weights_of(run / "checkpoints" / "checkpoint-2"))
    assert all((run / "checkpoints" / f"checkpoint-{step}" / directory.COMPLETE).is_file() for step in (1, 2))
    for folder in (run / "final", run / "checkpoints" / "checkpoint-1"):
        assert type(load_processor(str(folder))).__name__ == "Qwen2_5_VLProcessor"
    assert not same(weights_of(run / "final"), weights_of(run / "checkpoints" / "checkpoint-1"))
    assert not (run / "cold_start").exists()  # the recipe has none


def test_every_figure_of_a_step_is_on_the_reference_page(run: Path) -> None:
    rows = list(read_jsonl(run / "metrics.jsonl"))
    assert [undescribed(row, RUN_FILES["metrics.jsonl"]) for row in rows] == [[], []]


def test_no_model_card_of_another_library_lies_in_a_run(run: Path) -> None:
    assert list(run.rglob("README.md")) == []


def test_settings_and_environment_are_stamped(run: Path) -> None:
    config = json.loads((run / "config.json").read_text())
    assert config["grpo"]["beta"] == 0.1
    assert (config["reward"]["reflective"], config["reward"]["formula"]) == (0.3, "paper")
    assert json.loads((run / "environment.json").read_text())["packages"]["trl"]


def test_another_runs_folder_is_refused_and_a_changed_recipe_is_not_resumed(run: Path, scenes: str) -> None:
    recipe = load_recipe(write_recipe(run.parent, scenes, "embedded", grpo=LEARNING))
    with pytest.raises(UserError, match="already holds files"):
        train(recipe)
    with pytest.raises(UserError, match=r"cannot resume .* with seed 0 -> 5"):
        train(recipe.model_copy(update={"seed": 5}), resume=True)
    with pytest.raises(UserError, match="does not look like a run"):
        train(recipe.model_copy(update={"output_dir": scenes}), overwrite=True)


def test_a_finished_run_resumes_to_nothing_new(run: Path, scenes: str) -> None:
    before, rows = weights_of(run / "final"), metrics_of(run)
    train(load_recipe(write_recipe(run.parent, scenes, "embedded", grpo=LEARNING)), resume=True)
    assert same(weights_of(run / "final"), before)
    assert metrics_of(run) == rows


@pytest.mark.slow
def test_a_longer_run_saved_more_often_ends_as_if_it_had_been_asked_for_at_once(tmp_path: Path, scenes: str) -> None:
    constant = LEARNING | {"lr_scheduler_type": "constant", "save_steps": 2}
    for name in ("whole", "prolonged"):
        (tmp_path / name).mkdir()
    whole = run_of(tmp_path / "whole", scenes, "embedded", grpo=constant | {"max_steps": 4})
    run_of(tmp_path / "prolonged", scenes, "embedded", grpo=constant)
    changed = constant | {"max_steps": 4, "save_steps": 1}
    prolonged = train(load_recipe(write_recipe(tmp_path / "prolonged", scenes, "embedded", grpo=changed)), resume=True)
    assert same(weights_of(prolonged / "final"), weights_of(whole / "final"))
    assert completions_of(prolonged) == completions_of(whole)
    assert [directory.checkpoint_step(folder) for folder in directory.complete_checkpoints(prolonged)] == [2, 3, 4]


@pytest.mark.slow
def test_a_run_that_lacks_memory_goes_on_with_other_settings_to_the_same_up_to_rounding(
    run: Path, tmp_path: Path, scenes: str
) -> None:
    shutil.copytree(run, tmp_path / "run")
    for folder in ("final", "checkpoints/checkpoint-2"):
        shutil.rmtree(tmp_path / "run" / folder)
    assert GRPO.get("gradient_checkpointing", True)  # TRL's default
    frugal = {"grpo": LEARNING | {"gradient_checkpointing": False}, "judge": {"batch_size": 1}}
    resumed = train(load_recipe(write_recipe(tmp_path, scenes, "embedded", **frugal)), resume=True)
    assert completions_of(resumed) == completions_of(run)
    # By their norms: single weights whose gradient is rounding alone move as far as others, thanks to Adam.
    start = weights_of(run / "checkpoints" / "checkpoint-1")
    wanted, found = weights_of(run / "final"), weights_of(resumed / "final")
    moved, apart = (sum(float((wanted[n] - other[n]).square().sum()) for n in wanted) for other in (start, found))
    assert apart**0.5 < moved**0.5 / 50


# --- settings reach what they set -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_every_setting_of_a_recipe_is_read_in_a_run(
    tmp_path: Path, scenes: str, random_checkpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = set()

    def recording(self: Any, name: str) -> Any:
        read.add((type(self), name))
        return super(Block, self).__getattribute__(name)

    path = write_recipe(
        tmp_path,
        scenes,
        random_checkpoint,
        model={"path": random_checkpoint, "freeze": ["vision"], "max_pixels": 2048, "lora": {"r": 2}},
        data={"train": scenes, "limit": 5},
        cold_start={"samples": 2, "steps": 1, "batch_size": 2},
        evaluation={"samples": 1},
        dynamic_sampling=1,
        grpo={"max_steps": 1},
    )
    # A moving average judges full fine-tuning only.
    runs = ([], ["model.lora=null", "judge.model=ema", f"output_dir={tmp_path / 'ema'}"])
    recipes = [load_recipe(path, overrides) for overrides in runs]
    # Our own: only here can be seen whether a setting is read, whatever it is read for.
    monkeypatch.setattr(Block, "__getattribute__", recording, raising=False)
    for recipe in recipes:
        train(recipe)
    blocks = (Recipe, ModelBlock, LoraBlock, DataBlock, ColdStartBlock, JudgeBlock, RewardSettings, HeldOutBlock)
    recorded = {(JudgeBlock, "name"), (JudgeBlock, "sha256")}  # of a judge of one's own; test_own_code.py compares them
    assert {(block, name) for block in blocks for name in block.model_fields} - recorded <= read


@pytest.fixture
def encoded() -> Iterator[list[int]]:
    """How many images each forward pass of a vision tower encodes, whoever runs it."""
    seen = []

    def count(module: Any, args: Any, given: Any, output: Any) -> None:
        if isinstance(module, Qwen2_5_VisionTransformerPretrainedModel):
            seen.append(len(given["grid_thw"]))

    hook = register_module_forward_hook(count, with_kwargs=True)
    yield seen
    hook.remove()


@pytest.mark.slow
def test_a_frozen_vision_tower_encodes_an_image_once_a_round_and_anew_in_the_next(
    tmp_path: Path, scenes: str, random_checkpoint: str, encoded: list[int]
) -> None:
    model = {"path": random_checkpoint, "freeze": ["vision", "projector"]}
    data = {"train": scenes, "limit": 2}  # the same two images in both steps
    run_of(tmp_path, scenes, random_checkpoint, model=model, data=data, judge={"calibration": 0})
    assert encoded == [2, 2]  # for the rollouts; the update finds them, and the step after does not


def test_a_vision_tower_that_learns_encodes_images_in_the_update_too(
    tmp_path: Path, scenes: str, random_checkpoint: str, encoded: list[int]
) -> None:
    run_of(tmp_path, scenes, random_checkpoint, judge={"calibration": 0}, grpo={"max_steps": 1})
    assert encoded[0] == 2
    assert sum(encoded[1:]) >= 2  # once for each prompt, whose completions share a row


def samples_of(recipe: Recipe) -> Any:
    return chosen_samples(recipe)


def policy_of(recipe: Recipe) -> Any:
    return load_policy(recipe, recipe.model.path, None)


def prompt_of(recipe: Recipe) -> Any:
    return prompt_dataset(chosen_samples(recipe), recipe.prompt_template, [0])[0]["prompt"][0]["content"]


REACHED = {  # setting -> what a run makes of it
    "data.split=test": lambda recipe: {sample.split for sample in samples_of(recipe)} == {"test"},
    "data.labels=mikels8": lambda recipe: samples_of(recipe)[0].labels == MIKELS8,
    "data.labels=[awe]": UserError,  # other labels are in the data
    "data.label_field=nothing": UserError,
    "model={path: embedded, dtype: bfloat16, lora: {r: 2}}": lambda recipe: (
        policy_of(recipe)[0].dtype == torch.bfloat16
    ),
    "model.max_pixels=2048": lambda recipe: policy_of(recipe)[1].image_processor.size["longest_edge"] == 2048,
    "model.lora={r: 3, alpha: 5, dropout: 0.5, target_modules: q_proj}": lambda recipe: (
        (lora := lora_config(recipe.model))
        and (lora.r, lora.lora_alpha, lora.lora_dropout, lora.target_modules) == (3, 5, 0.5, "q_proj")
    ),
    "thinking=free": lambda recipe: "<think>" in prompt_of(recipe) and "<step1>" not in prompt_of(recipe),
    "template=direct": lambda recipe: "<step1>" not in prompt_of(recipe),
}


@pytest.mark.parametrize("setting", REACHED)
def test_a_setting_reaches_what_it_sets(tmp_path: Path, scenes: str, random_checkpoint: str, setting: Any) -> None:
    before = load_recipe(write_recipe(tmp_path, scenes, random_checkpoint))
    after = load_recipe(write_recipe(tmp_path, scenes, random_checkpoint), [setting])
    reached = REACHED[setting]
    if reached is UserError:
        samples_of(before)
        with pytest.raises(UserError):
            samples_of(after)
    else:
        assert reached(after)
        assert not reached(before) or setting == "data.labels=mikels8"  # the data name those labels themselves


def test_a_subset_and_its_order_are_drawn_with_the_seed(tmp_path: Path, scenes: str, random_checkpoint: str) -> None:
    def ids(seed: int) -> list[Any]:
        path = write_recipe(tmp_path, scenes, random_checkpoint, seed=seed, data={"train": scenes, "limit": 5})
        return [sample.id for sample in chosen_samples(load_recipe(path))]

    assert ids(0) == ids(0) != ids(1)
    assert len(ids(0)) == 5
    order = training_order(3, 7, seed=0)
    assert sorted(order[:3]) == sorted(order[3:6]) == [0, 1, 2]
    assert training_order(3, 9, seed=0)[:7] == order


def test_a_recipe_that_trains_nothing_is_refused(tmp_path: Path, scenes: str, random_checkpoint: str) -> None:
    path = write_recipe(tmp_path, scenes, random_checkpoint)
    with pytest.raises(UserError, match="nothing to train"):
        load_recipe(path, ["grpo=null"])


# --- ways to train ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_frozen_vision_tower_stays_as_it_was_and_the_rest_learns(
    tmp_path: Path, scenes: str, random_checkpoint: str
) -> None:
    cold = {"samples": 4, "steps": 1, "batch_size": 2, "learning_rate": 1e-2}
    model = {"path": random_checkpoint, "freeze": ["vision", "projector"]}
    run = run_of(tmp_path, scenes, random_checkpoint, model=model, cold_start=cold, grpo={"max_steps": 1})
    before, after = weights_of_path(random_checkpoint), weights_of(run / "final")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert not any("visual" in name for name in changed)


def weights_of_path(path: Any) -> Any:
    return load_file(f"{path}/model.safetensors")


@pytest.mark.parametrize("freeze", [False, True], ids=["all", "vision frozen"])
@pytest.mark.slow
def test_the_final_policy_is_the_base_with_its_adapters_merged(tmp_path: Path, scenes: str, freeze: bool) -> None:
    model = {"path": "embedded", "lora": {"r": 2, "alpha": 4}, "freeze": ["vision", "projector"] if freeze else []}
    run = run_of(tmp_path, scenes, "embedded", model=model, grpo=LEARNING | {"learning_rate": 1e-2})
    checkpoint = run / "checkpoints" / "checkpoint-2"
    base, processor = load("embedded")
    assert list(run.rglob("README.md")) == []  # peft's beside its adapters
    before, after = base.state_dict(), load(str(run / "final"))[0].state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert any("visual" in name for name in changed) != freeze
    assert any("visual" in name for name in load_file(checkpoint / "adapter_model.safetensors")) != freeze
    image = load_samples(scenes, split="test")[0].image
    inputs = encode(processor, [((image,), "What is this?")])
    with torch.no_grad():
        plain = base(**inputs).logits
        adapted = PeftModel.from_pretrained(base, checkpoint).eval()(**inputs).logits
        merged = load(str(run / "final"))[0](**inputs).logits
    assert torch.allclose(adapted, merged, atol=1e-4)
    assert not torch.allclose(plain, merged, atol=1e-2)


def wanting(tokens: Any, checkpoint: str, folder: Path) -> str:
    """A checkpoint that wants these tokens and no other: of opposite rows of its head, one is far above all."""
    model, processor = load(checkpoint)
    head = torch.zeros_like(model.lm_head.weight)
    signs = torch.tensor([(-1.0) ** place for place in range(len(tokens))])
    head[tokens] = 1000 * signs[:, None] * torch.randn(head.shape[1], generator=torch.Generator().manual_seed(0))
    model.config.tie_word_embeddings = False
    model.lm_head.weight = torch.nn.Parameter(head)
    save(model, processor, folder)
    return str(folder)


@pytest.mark.slow
def test_placeholders_are_never_sampled_in_training_even_by_a_policy_that_wants_nothing_else(
    tmp_path: Path, scenes: str, random_checkpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    placeholders = torch.tensor(vision_token_ids(load_processor(random_checkpoint)))
    path = wanting(placeholders, random_checkpoint, tmp_path / "wanting")
    model, processor = load(path)
    with torch.no_grad():
        wanted = model(**encode(processor, [((), "What is felt?")])).logits[0, -1].softmax(-1)
    assert wanted[placeholders].sum() > 0.99
    batches = batches_of(monkeypatch)
    run_of(tmp_path, scenes, path, grpo={"max_steps": 1})
    sampled = batches[0]["completion_ids"][batches[0]["completion_mask"].bool()]
    assert len(sampled) > 4
    assert not torch.isin(sampled, placeholders).any()


def test_a_group_of_equal_rewards_has_advantages_of_exactly_zero_and_moves_nothing(
    tmp_path: Path, scenes: str, random_checkpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Equal but for the last digits of one, as sums of equal parts may be: TRL alone makes an advantage of the rest.
    def pay(completions: list[str], **_: Any) -> list[Any]:
        return [1.0 + 2.0**-21, *[1.0] * (len(completions) - 1)]

    batches = batches_of(monkeypatch)
    settings = {"num_generations": 8, "per_device_train_batch_size": 8}
    trained = []
    for cls in (EmoTrainer, GRPOTrainer):
        trainer = trainer_of(cls, tmp_path, scenes, random_checkpoint, [pay], **settings)
        trainer.train()
        trained.append(trainer.model.state_dict())
    ours, trl = (batch["advantages"] for batch in batches)
    assert ours.tolist() == [0.0] * 8
    assert trl.abs().max() > 1e-4
    start = load(random_checkpoint)[0].state_dict()
    assert same(trained[0], start)
    assert not same(trained[1], start)


def test_all_reward_functions_of_a_step_get_the_same_list_so_the_judge_is_asked_once(
    tmp_path: Path, scenes: str, random_checkpoint: str
) -> None:
    asked, recorded = [], []

    class Judge:
        def answer(self, questions: Any) -> list[Any]:
            asked.append(questions)
            return []

    scorer = BatchScorer("steps", RewardSettings(), 2, Judge, lambda step, _: recorded.append(step))
    functions, _ = part_rewards(scorer)
    assert len(functions) == 4
    settings = {"num_generations": 2, "per_device_train_batch_size": 4, "max_steps": 2}
    trainer_of(EmoTrainer, tmp_path, scenes, random_checkpoint, functions, **settings).train()
    assert recorded == [1, 2]
    assert list(map(list, asked)) == [[], []]  # once a step; of what a random policy writes nothing can be asked


@pytest.mark.slow
def test_the_time_of_each_phase_is_printed_at_the_end(
    tmp_path: Path, scenes: str, random_checkpoint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run_of(tmp_path, scenes, random_checkpoint, grpo={"max_steps": 1})
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("time per step: "))
    assert all(f" {phase} " in line for phase in ("generate", "reflect", "log_probs", "update"))


@pytest.mark.slow
def test_the_generating_judge_runs_in_training(tmp_path: Path, scenes: str, random_checkpoint: str) -> None:
    run = run_of(tmp_path, scenes, random_checkpoint, judge={"backend": "generate"}, grpo={"max_steps": 1})
    assert len(list(read_jsonl(run / "rollouts.jsonl"))) == 4


@pytest.mark.slow
@pytest.mark.parametrize("targets", ["label", "reasoning"])
def test_a_supervised_run_needs_no_reinforcement(
    tmp_path: Path, scenes: str, random_checkpoint: str, targets: str
) -> None:
    cold = {"samples": None, "steps": 2, "batch_size": 4, "learning_rate": 1e-3, "targets": targets}
    path = write_recipe(tmp_path, scenes, random_checkpoint, cold_start=cold)
    run = train(load_recipe(path, ["grpo=null"]))
    assert same(weights_of(run / "final"), weights_of(run / "cold_start"))
    assert not same(weights_of(run / "final"), weights_of_path(random_checkpoint))
    assert not (run / "rollouts.jsonl").exists()


@pytest.mark.slow
def test_dynamic_sampling_needs_whole_groups_and_records_its_retries(
    tmp_path: Path, scenes: str, random_checkpoint: str
) -> None:
    run = run_of(tmp_path, scenes, random_checkpoint, dynamic_sampling=2, grpo={"max_steps": 1})
    assert next(read_jsonl(run / "metrics.jsonl"))["dynamic_sampling/attempts"] == 2  # a random model earns nothing
    assert [row["group"] for row in read_jsonl(run / "rollouts.jsonl")] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]


# --- what can go wrong ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_non_finite_loss_ends_the_command_with_one_line_and_leaves_a_checkpoint_that_was_due_as_it_was(
    tmp_path: Path,
    scenes: str,
    random_checkpoint: str,
    main_with: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("whole", "stopped"):
        (tmp_path / name).mkdir()
    whole = run_of(tmp_path / "whole", scenes, random_checkpoint)
    path = write_recipe(tmp_path / "stopped", scenes, random_checkpoint)
    at_step(monkeypatch, 2, spoil)
    assert main_with("train", path) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "lower grpo.learning_rate" in errors[0]
    run = train(load_recipe(path), resume=True)
    assert completions_of(run) == completions_of(whole)  # so the state of the sampler was not saved anew


def spoil(weights: Any) -> None:
    next(weight for weight in weights if weight.grad is not None).grad.fill_(float("nan"))


def test_a_checkpoint_without_its_mark_is_removed_and_the_one_before_is_taken(tmp_path: Path) -> None:
    for step, complete in ((1, True), (2, True), (10, False)):
        folder = tmp_path / "checkpoints" / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        if complete:
            (folder / directory.COMPLETE).touch()
    assert latest_checkpoint(tmp_path).name == "checkpoint-2"
    directory.remove_incomplete(tmp_path)
    assert latest_checkpoint(tmp_path).name == "checkpoint-2"
    assert not (tmp_path / "checkpoints" / "checkpoint-10").exists()


def test_a_checkpoint_is_marked_when_every_process_has_written_its_part_and_all_wait_for_that(
    tmp_path: Path, random_checkpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "checkpoints" / "checkpoint-3"
    folder.mkdir(parents=True)
    marked = []  # at each wait

    def wait(_: Any) -> None:
        marked.append((folder / directory.COMPLETE).exists())

    monkeypatch.setattr("emor3.training.callbacks.PartialState.wait_for_everyone", wait)
    processor = load_processor(random_checkpoint)
    for rank in (1, 0):
        state = SimpleNamespace(global_step=3, is_world_process_zero=rank == 0)
        RunCallback(tmp_path, processor, None).on_save(None, state, None)
        assert (folder / directory.COMPLETE).exists() == (rank == 0)
    assert marked == [False, False]


def test_records_of_steps_that_will_be_repeated_are_dropped_and_half_a_line_too(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"ste')
    records.keep_steps(path, 2)
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n'


# What a kill leaves at some point of a run of four steps, made from the folder of a whole run: the last complete
# checkpoint, the one being written, and the step of the last record.
KILLED = {
    "in the cold start": (None, None, 0),
    "before any checkpoint": (None, None, 1),
    "while a checkpoint was written": (2, 4, 4),
    "in the middle of a line": (2, None, 3),
    "before the final policy": (4, None, 4),
}
WAYS = {
    "full": {},
    "lora": {"model": {"path": "embedded", "lora": {"r": 2, "alpha": 4, "dropout": 0.1}}},
    "two updates a round": {"grpo": {"steps_per_generation": 2, "gradient_accumulation_steps": 1}},
    "dynamic sampling": {"dynamic_sampling": 1},
    "moving average as judge": {"judge": {"model": "ema", "ema_decay": 0.5}},
    "judge at a schedule": {"judge": {"model": "ema", "every": 3}},  # refreshed once, after the checkpoint
    "evaluated": {"evaluation": {"every": 1}},
    "annealed placebo": {"reward": {"anneal": True, "placebo": True}},
}


def cut_back(run: Path, point: Any) -> None:
    """Turn the folder of a whole run into what a kill would have left."""
    complete, unmarked, recorded = KILLED[point]
    shutil.rmtree(run / "final")
    for folder in (run / "checkpoints").glob("checkpoint-*"):
        step = directory.checkpoint_step(folder)
        if step == unmarked:
            (folder / directory.COMPLETE).unlink()
            (folder / "optimizer.pt").write_bytes(b"half")
        elif step > (complete or 0):
            shutil.rmtree(folder)
    for name in ("metrics.jsonl", "rollouts.jsonl", *(["evaluations.jsonl"] if evaluations_of(run) else [])):
        records.keep_steps(run / name, recorded)
        with (run / name).open("a") as file:
            file.write('{"step": ')
    if point == "in the cold start":
        (run / "cold_start" / directory.COMPLETE).unlink()
        (run / "cold_start" / "model.safetensors").write_bytes(b"half")


def resumes_exactly(tmp_path: Path, scenes: str, way: Any, points: Any) -> None:
    changes = WAYS[way] | {
        "cold_start": {"samples": 4, "steps": 1, "batch_size": 2, "learning_rate": 1e-4},
        "grpo": LEARNING | {"max_steps": 4, "save_steps": 2, "lr_scheduler_type": "linear"} | WAYS[way].get("grpo", {}),
    }
    path = write_recipe(tmp_path, scenes, "embedded", **changes)
    run = train(load_recipe(path))
    final, metrics, completions = weights_of(run / "final"), metrics_of(run), completions_of(run)
    curve, best = evaluations_of(run), weights_of(run / "best") if "evaluation" in changes else None
    assert not same(final, weights_of(run / "cold_start"))
    for point in points:
        cut_back(run, point)
        found = latest_checkpoint(run)
        # From here on, not from the start, which would end with the same weights too.
        assert (found and directory.checkpoint_step(found)) == KILLED[point][0], point
        train(load_recipe(path), resume=True)
        assert same(weights_of(run / "final"), final), point
        assert metrics_of(run) == metrics, point
        assert completions_of(run) == completions, point
        assert evaluations_of(run) == curve, point
        assert best is None or same(weights_of(run / "best"), best), point


@pytest.mark.slow
def test_a_run_resumes_exactly_from_wherever_it_was_killed(tmp_path: Path, scenes: str) -> None:
    resumes_exactly(tmp_path, scenes, "full", KILLED)


@pytest.mark.slow
@pytest.mark.parametrize("way", [way for way in WAYS if way != "full"])
def test_every_way_to_train_resumes_exactly(tmp_path: Path, scenes: str, way: Any) -> None:
    resumes_exactly(tmp_path, scenes, way, ["while a checkpoint was written"])


def test_a_resumed_policy_has_the_checkpoints_weights_and_the_start_models_name(run: Path, scenes: str) -> None:
    # TRL loads the KL reference by that name.
    recipe = load_recipe(write_recipe(run.parent, scenes, "embedded", grpo=LEARNING))
    checkpoint = run / "checkpoints" / "checkpoint-1"
    model, _ = load_policy(recipe, "embedded", checkpoint)
    assert model.config._name_or_path == resolve_checkpoint("embedded")
    assert same(model.state_dict(), load(str(checkpoint))[0].state_dict())
    assert not same(model.state_dict(), load("embedded")[0].state_dict())


@pytest.mark.slow
def test_a_command_killed_at_any_step_resumes_bit_for_bit(tmp_path: Path, scenes: str) -> None:
    changes = {
        "cold_start": {"samples": 4, "steps": 2, "batch_size": 2, "learning_rate": 1e-3},
        "grpo": LEARNING | {"max_steps": 4, "save_steps": 2, "lr_scheduler_type": "linear"},
    }
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        folder.mkdir()
        write_recipe(folder, scenes, "embedded", **changes)
    train(load_recipe(whole / "recipe.yaml"))
    step = random.SystemRandom().randint(1, 3)
    process = Forked("emor3", "train", killed / "recipe.yaml")
    metrics = killed / "run" / "metrics.jsonl"
    wait_until(lambda: metrics.exists() and metrics.read_text().count("\n") >= step, process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (killed / "run" / "final").exists()
    out, err = Forked("emor3", "train", killed / "recipe.yaml", "--resume").communicate()
    assert "time per step: " in out, err
    assert "FutureWarning" not in err
    assert same(weights_of(whole / "run" / "final"), weights_of(killed / "run" / "final")), f"killed at step {step}"
    assert metrics_of(whole / "run") == metrics_of(killed / "run")
    assert completions_of(whole / "run") == completions_of(killed / "run")


@pytest.mark.slow
def test_two_processes_give_the_rollouts_and_rewards_of_one(tmp_path: Path, scenes: str) -> None:
    # The same global batch, 8 completions of 2 prompts: all on one process, or one group on each of two.
    # Greedy decoding, since the ranks draw from generators of their own.
    rows = {}
    for name, size in (("one", 8), ("two", 4)):
        folder = tmp_path / name
        folder.mkdir()
        changes = LEARNING | {"max_steps": 1, "per_device_train_batch_size": size, "temperature": 0.001}
        recipe = write_recipe(folder, scenes, "embedded", grpo=changes)
        if name == "one":
            train(load_recipe(recipe))
        else:
            ranks = start_ranks("ddp", "emor3", "train", recipe)
            told = end_of(ranks)
            assert [rank.returncode for rank in ranks] == [0, 0], told
        rows[name] = list(read_jsonl(folder / "run" / "rollouts.jsonl"))
        metrics = next(read_jsonl(folder / "run" / "metrics.jsonl"))
        rows[name + " metrics"] = {k: v for k, v in metrics.items() if k.startswith("reward")}
    assert len(rows["two"]) == 8  # both ranks wrote their half
    for one, two in zip(rows["one"], rows["two"], strict=True):
        assert [one[key] for key in ("sample", "group", "completion")] == [
            two[key] for key in ("sample", "group", "completion")
        ]
        # The judge's probabilities, up to the rounding of batches of other sizes.
        assert one["parts"] | {"reward": one["reward"]} == pytest.approx(
            two["parts"] | {"reward": two["reward"]}, abs=1e-5
        )
    assert rows["one metrics"] == pytest.approx(rows["two metrics"], abs=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"template": "no/such/file.txt"}, "template"),
        ({"model": {"path": "/no/such/model"}}, "no checkpoint"),
        ({"grpo": {"betta": 1}}, "betta"),
    ],
)
def test_a_mistake_in_the_recipe_leaves_nothing_behind(
    tmp_path: Path, scenes: str, random_checkpoint: str, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        run_of(tmp_path, scenes, random_checkpoint, **changes)
    assert not (tmp_path / "run").exists()
