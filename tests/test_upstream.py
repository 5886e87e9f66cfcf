"""What we rely on in TRL and transformers, so that an upgrade fails here and not in a run."""

import inspect
from dataclasses import fields

import torch
from transformers import Qwen2_5_VLForConditionalGeneration, Trainer, TrainingArguments
from trl import GRPOConfig, GRPOTrainer
from trl.trainer import grpo_trainer

from emor3.runs.recipe import OWNED
from emor3.training.trainer import EmoTrainer


def test_the_methods_we_wrap_still_exist_and_take_what_they_took():
    assert list(inspect.signature(GRPOTrainer._generate_and_score_completions).parameters) == ["self", "inputs"]
    assert list(inspect.signature(GRPOTrainer._calculate_rewards).parameters) == [
        *("self", "inputs", "prompts", "completions", "completion_ids_list")
    ]
    for name in ("_generate", "_load_from_checkpoint", "_get_per_token_logps_and_entropies", "training_step", "log"):
        assert getattr(EmoTrainer, name) is not getattr(GRPOTrainer, name)


def test_every_reward_function_gets_the_same_list_of_completions():
    # BatchScorer remembers the list object: a copy for each function would score, and ask the judge, once per part.
    source = inspect.getsource(GRPOTrainer._calculate_rewards)
    assert "completions=completions" in source
    assert "trainer_state" in source


def test_settings_that_we_own_are_settings_of_trl_or_of_its_parents():
    known = {field.name for field in fields(GRPOConfig)}
    assert set(OWNED) - {"trust_remote_code", "logging_dir"} <= known


def test_trl_has_the_settings_that_we_read_and_write():
    known = {field.name for field in fields(GRPOConfig)}
    assert known >= {"num_generations", "steps_per_generation", "num_iterations", "gradient_accumulation_steps"}
    assert known >= {"generation_kwargs", "reward_weights", "use_vllm", "max_completion_length", "beta", "use_cpu"}
    config = GRPOConfig(output_dir="x", use_cpu=True, bf16=False, per_device_train_batch_size=4, num_generations=2)
    assert (config.generation_batch_size, config.steps_per_generation) == (4, 1)  # TRL fills them in


def test_trl_writes_zero_advantages_where_we_zero_them():
    # EmoTrainer writes into the batch that this method returns; its rows are the completions of this process, in order.
    source = inspect.getsource(grpo_trainer.GRPOTrainer._generate_and_score_completions)
    assert '"advantages": advantages' in source


def test_trl_alone_leaves_an_advantage_in_a_group_of_equal_rewards():
    # Its arithmetic on eight rewards of 0.8 + 0.1 + 0.05: were it exact one day, EmoTrainer._scored could go.
    rewards = (torch.tensor([[1.0, 1.0, 1.0, 0.0]] * 8) * torch.tensor([0.8, 0.1, 0.05, 0.05])).nansum(1)
    assert rewards.unique().numel() == 1
    advantages = (rewards - rewards.nanmean()) / (rewards.std() + 1e-4)
    assert advantages.abs().max() > 1e-4
    source = inspect.getsource(grpo_trainer.GRPOTrainer._generate_and_score_completions)
    assert "advantages = advantages / (std_rewards + 1e-4)" in source


def test_trainers_own_resume_still_restores_no_tensor_of_this_model(random_checkpoint, tmp_path):
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


def test_restoring_weights_with_from_pretrained_restores_every_tensor(random_checkpoint, tmp_path):
    # `Trainer.train(resume_from_checkpoint=…)` restores none of these tensors, hence our way (train.load_policy).
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(random_checkpoint)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    model.save_pretrained(tmp_path)
    again = Qwen2_5_VLForConditionalGeneration.from_pretrained(tmp_path).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in model.state_dict().items())
