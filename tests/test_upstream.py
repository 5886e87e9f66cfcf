"""What we rely on in TRL and transformers, so that an upgrade fails here and not in a run."""

import inspect
from dataclasses import fields

import torch
from transformers import Qwen2_5_VLForConditionalGeneration
from trl import GRPOConfig, GRPOTrainer
from trl.trainer import grpo_trainer

from emor3.config import OWNED
from emor3.grpo import EmoTrainer


def test_the_methods_we_wrap_still_exist_and_take_what_they_took():
    assert list(inspect.signature(GRPOTrainer._generate_and_score_completions).parameters) == ["self", "inputs"]
    assert list(inspect.signature(GRPOTrainer._calculate_rewards).parameters) == [
        *("self", "inputs", "prompts", "completions", "completion_ids_list")
    ]
    for name in ("_generate", "_get_per_token_logps_and_entropies", "training_step", "log"):
        assert getattr(EmoTrainer, name) is not getattr(GRPOTrainer, name)


def test_every_reward_function_gets_the_same_list_of_completions():
    # BatchScorer remembers the list object: a copy for each function would score, and ask the judge, once per part.
    source = inspect.getsource(GRPOTrainer._calculate_rewards)
    assert "completions=completions" in source
    assert "trainer_state" in source


def test_settings_that_we_own_are_settings_of_trl_or_of_its_parents():
    known = {field.name for field in fields(GRPOConfig)}
    assert set(OWNED) - {"trust_remote_code", "logging_dir"} <= known


def test_trl_writes_zero_advantages_where_we_zero_them():
    # EmoTrainer writes into the batch that this method returns; its rows are the completions of this process, in order.
    source = inspect.getsource(grpo_trainer.GRPOTrainer._generate_and_score_completions)
    assert '"advantages": advantages' in source


def test_restoring_weights_with_from_pretrained_restores_every_tensor(random_checkpoint, tmp_path):
    # `Trainer.train(resume_from_checkpoint=…)` restores none of these tensors, hence our way (train.load_policy).
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(random_checkpoint)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    model.save_pretrained(tmp_path)
    again = Qwen2_5_VLForConditionalGeneration.from_pretrained(tmp_path).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in model.state_dict().items())
