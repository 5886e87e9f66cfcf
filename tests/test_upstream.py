"""What we rely on in TRL and transformers, so that an upgrade fails here and not in a run."""

import inspect
from collections import defaultdict
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import Qwen2_5_VLForConditionalGeneration, Trainer, TrainingArguments
from trl import GRPOConfig, GRPOTrainer

from emor3.runs.recipe import OWNED, build_recipe
from emor3.training.run import train
from emor3.training.trainer import EmoTrainer

OVERRIDDEN = {  # method of TRL's -> the names it takes, and what it returns: a type, or how many values
    "training_step": ("self model inputs num_items_in_batch", Tensor),
    "_generate_and_score_completions": ("self inputs", dict),
    "_calculate_rewards": ("self inputs prompts completions completion_ids_list", Tensor),
    "_get_per_token_logps_and_entropies": (
        "self model input_ids attention_mask logits_to_keep batch_size compute_entropy compute_aux_loss pixel_values "
        "image_grid_thw num_images pixel_attention_mask spatial_shapes num_tiles image_sizes token_type_ids "
        "mm_token_type_ids image_position_ids",
        3,
    ),
    "log": ("self logs start_time", None),
    "_save": ("self output_dir state_dict", None),
    "_load_from_checkpoint": ("self resume_from_checkpoint model", None),
    "create_model_card": ("self model_name dataset_name tags", None),
}
CALLED = {  # private methods that are called and not overridden
    "_tokenize_prompts": ("self prompts", 3),
    "_generate_single_turn": ("self prompt_ids images multimodal_fields num_generations has_tool_images", 2),
    "_save_checkpoint": ("self model trial", None),
}
PINNED = OVERRIDDEN | CALLED


def test_every_override_is_pinned() -> None:
    ours = {name for name, value in vars(EmoTrainer).items() if callable(value)} - {"__init__"}
    assert {name for name in ours if hasattr(GRPOTrainer, name)} == OVERRIDDEN.keys()


@pytest.mark.parametrize("name", PINNED)
def test_what_we_override_or_call_takes_what_it_took(name: str) -> None:
    assert " ".join(inspect.signature(getattr(GRPOTrainer, name)).parameters) == PINNED[name][0]


def kind(value: Any) -> Any:
    """What a method returned, in the form of the table."""
    if value is None:
        return None
    return len(value) if isinstance(value, tuple) else Tensor if isinstance(value, Tensor) else type(value)


@pytest.fixture
def returned(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[str, str], set[Any]]:
    """What each pinned method returned, TRL's and ours, in the runs to come.

    Ours are watched too: what TRL gets from a method is what counts, and no record of a run holds it.
    """
    seen = defaultdict(set)

    def watch(cls: Any, name: str) -> None:
        method = getattr(cls, name)

        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            value = method(self, *args, **kwargs)
            seen[cls.__name__, name].add(kind(value))
            return value

        monkeypatch.setattr(cls, name, call)

    for name in PINNED:
        watch(GRPOTrainer, name)
    for name in OVERRIDDEN:
        watch(EmoTrainer, name)
    return seen


def test_what_we_override_or_call_returns_what_it_returned_and_so_do_we(
    tmp_path: Path, scenes: str, random_checkpoint: str, returned: dict[tuple[str, str], set[Any]]
) -> None:
    # One completion a micro-batch has nothing to share: its log-probabilities in the update come from TRL's own method.
    grpo = {"max_steps": 1, "num_generations": 2, "per_device_train_batch_size": 1, "max_completion_length": 4}
    grpo |= {"gradient_accumulation_steps": 4}
    content = {
        "output_dir": str(tmp_path / "run"),
        "model": {"path": random_checkpoint, "lora": {"r": 2}},
        "data": {"train": scenes},
        "judge": {"calibration": 0},
        "grpo": grpo | {"save_steps": 1, "lr_scheduler_type": "constant", "beta": 0.1},
    }
    train(build_recipe(content, [], "here"))
    train(build_recipe(content, ["grpo.max_steps=2"], "here"), resume=True)
    ours = {("EmoTrainer", name): {OVERRIDDEN[name][1]} for name in OVERRIDDEN}
    trls = {("GRPOTrainer", name): {PINNED[name][1]} for name in PINNED if name != "create_model_card"}  # not called
    assert returned == ours | trls


def test_settings_that_we_own_are_settings_of_trl_or_of_its_parents() -> None:
    known = {field.name for field in fields(GRPOConfig)}
    assert set(OWNED) - {"trust_remote_code", "logging_dir"} <= known


def test_trl_has_the_settings_that_we_read_and_write() -> None:
    known = {field.name for field in fields(GRPOConfig)}
    assert known >= {"num_generations", "steps_per_generation", "num_iterations", "gradient_accumulation_steps"}
    assert known >= {"generation_kwargs", "reward_weights", "use_vllm", "max_completion_length", "beta", "use_cpu"}
    config = GRPOConfig(output_dir="x", use_cpu=True, bf16=False, per_device_train_batch_size=4, num_generations=2)
    assert (config.generation_batch_size, config.steps_per_generation) == (4, 1)  # TRL fills them in


def test_trl_alone_leaves_an_advantage_in_a_group_of_equal_rewards() -> None:
    # Its arithmetic on eight rewards of 0.8 + 0.1 + 0.05; in a run of test_train.py such an advantage moves weights.
    rewards = (torch.tensor([[1.0, 1.0, 1.0, 0.0]] * 8) * torch.tensor([0.8, 0.1, 0.05, 0.05])).nansum(1)
    assert rewards.unique().numel() == 1
    advantages = (rewards - rewards.nanmean()) / (rewards.std() + 1e-4)
    assert advantages.abs().max() > 1e-4


def test_trainers_own_resume_still_restores_no_tensor_of_this_model(random_checkpoint: str, tmp_path: Path) -> None:
    # If this fails, upstream has mended its resume and train.load_policy can be simplified.
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(random_checkpoint)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    model.save_pretrained(tmp_path)
    fresh = Qwen2_5_VLForConditionalGeneration.from_pretrained(random_checkpoint)
    trainer = Trainer(fresh, TrainingArguments(str(tmp_path / "out"), use_cpu=True, report_to="none"))
    trainer._load_from_checkpoint(str(tmp_path))
    saved = model.state_dict()
    restored = [name for name, value in fresh.state_dict().items() if torch.equal(value, saved[name])]
    assert restored == []


def test_restoring_weights_with_from_pretrained_restores_every_tensor(random_checkpoint: str, tmp_path: Path) -> None:
    # `Trainer.train(resume_from_checkpoint=…)` restores none of these tensors, hence our way (train.load_policy).
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(random_checkpoint)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    model.save_pretrained(tmp_path)
    again = Qwen2_5_VLForConditionalGeneration.from_pretrained(tmp_path).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in model.state_dict().items())
