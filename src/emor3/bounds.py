"""Which numbers TRL's settings may hold: TRL takes any, and a wrong one ends hours later, in a traceback or in nothing.

Every number is finite and of 32 bits at most; beyond that, the bounds below.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import Field
from pydantic.fields import FieldInfo

MOST = 2**32 - 1
"""Largest number that is taken anywhere: seeds have 32 bits, and nothing else needs more."""

LOWEST_TEMPERATURE = 1e-3
"""Logits divided by less overflow in half precision."""

_COUNT, _FROM_ZERO, _SHARE, _ABOVE_ZERO = Field(ge=1), Field(ge=0), Field(ge=0, le=1), Field(gt=0)
_SOME_SHARE, _DECAY, _PORT = Field(gt=0, le=1), Field(ge=0, lt=1), Field(ge=1, le=65_535)

_NAMED: tuple[tuple[FieldInfo, str], ...] = (
    (
        _COUNT,
        "per_device_train_batch_size per_device_eval_batch_size gradient_accumulation_steps torch_empty_cache_steps "
        "eval_accumulation_steps dataloader_prefetch_factor ddp_bucket_cap_mb ddp_timeout num_generations_eval "
        "max_completion_length generation_batch_size steps_per_generation vllm_max_model_length num_iterations "
        "vllm_tensor_parallel_size ref_model_sync_steps",
    ),
    (
        _FROM_ZERO,
        "learning_rate warmup_steps weight_decay max_grad_norm neftune_noise_alpha eval_delay save_total_limit "
        "dataloader_num_workers router_aux_loss_coef top_k beta epsilon epsilon_high vespo_k_pos vespo_lambda_pos "
        "vespo_k_neg vespo_lambda_neg entropy_coef entropy_coef_min entropy_coef_max entropy_coef_delta entropy_target "
        "max_tool_calling_iterations vllm_importance_sampling_clip_min off_policy_mask_threshold "
        "num_completions_to_print",
    ),
    (
        _ABOVE_ZERO,
        "num_train_epochs adam_epsilon eval_steps save_steps repetition_penalty vllm_server_timeout delta "
        "sapo_temperature_neg sapo_temperature_pos vllm_importance_sampling_clip_max vllm_importance_sampling_cap",
    ),
    (_SHARE, "label_smoothing_factor min_p ref_model_mixup_alpha top_entropy_quantile"),
    (_SOME_SHARE, "top_p vllm_gpu_memory_utilization"),
    (_DECAY, "adam_beta1 adam_beta2"),
    (_PORT, "vllm_server_port vllm_group_port"),
)
BOUNDS: Mapping[str, FieldInfo] = {name: bound for bound, names in _NAMED for name in names.split()} | {
    "temperature": Field(ge=LOWEST_TEMPERATURE, le=1e3),
    "max_steps": Field(ge=-1),
    "num_generations": Field(ge=2),
    "local_rank": Field(ge=-1),
}
"""Bound of each number that the `grpo` block takes."""


def odd_number(value: Any) -> str | None:
    """What is wrong with a number anywhere in a value, which no setting may hold: NaN, infinity, over 32 bits."""
    for place, number in _numbers(value):
        if not abs(number) <= MOST:  # also where it is NaN
            return f"{place}must be a number of at most {MOST}"
    return None


def low_temperature(value: float) -> str | None:
    """What is wrong with a temperature of evaluation, which is 0 or one that logits can be divided by."""
    if 0 < value < LOWEST_TEMPERATURE:
        return f"{value} is too low to sample at: give 0, or {LOWEST_TEMPERATURE} and above"
    return None


def _numbers(value: Any, place: str = "") -> Iterator[tuple[str, int | float]]:
    if isinstance(value, int | float):
        yield place, value
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _numbers(part, place)
    elif isinstance(value, dict):
        for key, part in value.items():
            yield from _numbers(part, f"{place}{key} ")
