"""TRL's settings of a recipe: each is honoured, decided by emor3, or refused with a reason."""

import re
from dataclasses import fields

import pytest
from test_train import write_recipe
from trl import GRPOConfig

from emor3.errors import UserError
from emor3.runs.recipe import OWNED, load_recipe
from emor3.training.trl_config import REFUSED, grpo_config

HONOURED = {
    name
    for names in (
        # steps and their batches
        "max_steps num_train_epochs per_device_train_batch_size gradient_accumulation_steps steps_per_generation "
        "generation_batch_size num_generations num_iterations use_cpu bf16 fp16 tf32 full_determinism",
        # optimizer
        "learning_rate lr_scheduler_type lr_scheduler_kwargs warmup_steps optim optim_args optim_target_modules "
        "weight_decay adam_beta1 adam_beta2 adam_epsilon max_grad_norm",
        # memory
        "gradient_checkpointing gradient_checkpointing_kwargs activation_checkpointing activation_checkpointing_kwargs "
        "torch_empty_cache_steps pad_to_multiple_of",
        # rollouts
        "max_completion_length temperature top_p top_k min_p repetition_penalty ds3_gather_for_generation",
        "use_vllm vllm_mode vllm_model_impl vllm_enable_sleep_mode vllm_structured_outputs_regex vllm_server_base_url "
        "vllm_server_host vllm_server_port vllm_server_timeout vllm_group_port vllm_gpu_memory_utilization "
        "vllm_max_model_length vllm_tensor_parallel_size vllm_importance_sampling_correction "
        "vllm_importance_sampling_mode vllm_importance_sampling_clip_max vllm_importance_sampling_clip_min "
        "vllm_importance_sampling_cap",
        # loss
        "beta epsilon epsilon_high delta loss_type importance_sampling_level scale_rewards mask_truncated_completions "
        "sapo_temperature_neg sapo_temperature_pos vespo_k_pos vespo_lambda_pos vespo_k_neg vespo_lambda_neg "
        "top_entropy_quantile entropy_coef use_adaptive_entropy entropy_coef_min entropy_coef_max entropy_coef_delta "
        "entropy_target off_policy_mask_threshold use_bias_correction_kl router_aux_loss_coef disable_dropout",
        # records, checkpoints and trackers
        "save_steps save_total_limit report_to run_name project trackio_space_id trackio_bucket_id "
        "trackio_static_space_id log_level log_level_replica log_on_each_node logging_nan_inf_filter debug "
        "skip_memory_metrics",
        # data loading and processes
        "dataloader_drop_last dataloader_num_workers dataloader_pin_memory dataloader_persistent_workers "
        "dataloader_prefetch_factor dataloader_multiprocessing_context ddp_find_unused_parameters ddp_bucket_cap_mb "
        "ddp_broadcast_buffers ddp_static_graph",
    )
    for name in names.split()
}


def test_every_setting_of_trl_is_honoured_decided_by_emor3_or_refused():
    known = {field.name for field in fields(GRPOConfig)}
    lists = (HONOURED, OWNED.keys(), REFUSED.keys())
    assert sorted(known) == sorted(name for names in lists for name in names)  # each in exactly one of them


@pytest.mark.parametrize("key", REFUSED)
def test_a_setting_that_a_run_would_not_honour_is_refused_with_the_reason(tmp_path, scenes, random_checkpoint, key):
    recipe = load_recipe(write_recipe(tmp_path, scenes, random_checkpoint, grpo={key: 1}))
    with pytest.raises(UserError, match=rf"grpo\.{key} is refused: {re.escape(REFUSED[key])}") as refused:
        grpo_config(recipe, tmp_path, 24)
    assert len(str(refused.value)) < 150


@pytest.mark.parametrize("key", OWNED)
def test_a_setting_that_emor3_owns_is_refused_with_what_to_set_instead(tmp_path, scenes, random_checkpoint, key):
    with pytest.raises(UserError, match=rf"{key}' is set by emor3; use {re.escape(OWNED[key])}"):
        load_recipe(write_recipe(tmp_path, scenes, random_checkpoint, grpo={key: 1}))


def test_settings_of_the_recipe_reach_trl(tmp_path, scenes, random_checkpoint):
    chosen = {"beta": 0.3, "temperature": 0.7, "epsilon_high": 0.5, "loss_type": "dr_grpo", "num_generations": 4}
    recipe = load_recipe(write_recipe(tmp_path, scenes, random_checkpoint, seed=9, grpo=chosen))
    config = grpo_config(recipe, tmp_path, 24)
    assert {name: getattr(config, name) for name in chosen} == chosen
    assert (config.seed, config.logging_steps) == (9, 1)


@pytest.mark.parametrize(
    ("grpo", "message"),
    [
        ({"betta": 0.1}, r"grpo\.betta is no setting .* did you mean 'beta'"),
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
