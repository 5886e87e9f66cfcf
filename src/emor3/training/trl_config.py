"""TRL's settings of a recipe: emor3's own, then those of its `grpo` block, checked before anything is written."""

import math
from collections.abc import Mapping
from importlib.metadata import metadata
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import torch
from pydantic import TypeAdapter, ValidationError
from transformers import ProcessorMixin
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK
from trl import GRPOConfig

from emor3.errors import UserError, did_you_mean
from emor3.models.generation import vision_token_ids
from emor3.runs import directory
from emor3.runs.recipe import Recipe
from emor3.settings import BOUNDS, MOST, odd_number, short

_REFUSED: tuple[tuple[str, str], ...] = (
    (
        "the block evaluation says how often, on what and by which metric policies are evaluated",
        "do_train do_predict eval_steps eval_delay eval_on_start eval_do_concat_batches eval_use_gather_object "
        "eval_accumulation_steps per_device_eval_batch_size num_generations_eval prediction_loss_only bf16_full_eval "
        "fp16_full_eval include_for_metrics batch_eval_metrics label_names load_best_model_at_end "
        "metric_for_best_model greater_is_better",
    ),
    (
        "nothing is uploaded, publish what `emor3 export` writes",
        "push_to_hub hub_token hub_private_repo hub_model_id hub_strategy hub_always_push hub_revision "
        "log_completions_hub_repo",
    ),
    (
        "rollouts.jsonl holds every completion, and `emor3 report` shows them",
        "log_completions num_completions_to_print log_unique_prompts",
    ),
    (
        "the order of prompts is drawn from seed, so that a resumed run sees the same",
        "train_sampling_strategy length_column_name dataloader_in_order accelerator_config",
    ),
    (
        "shard by `accelerate launch --config_file recipes/accelerate/...` (docs/scaling.md)",
        "fsdp fsdp_config deepspeed parallelism_config",
    ),
    ("the launcher starts the processes before it is read", "local_rank ddp_backend ddp_timeout"),
    ("TRL's GRPO loss does not read it", "average_tokens_across_devices label_smoothing_factor"),
    ("`emor3 plan` tells which batch fits", "auto_find_batch_size"),
    ("completions share the cache of their prompt", "use_cache cache_implementation"),
    (
        "TRL's continuous batching takes no images, use grpo.use_vllm",
        "use_transformers_continuous_batching transformers_continuous_batching_config use_transformers_paged",
    ),
    ("TRL's kernels of old, it computes log-probabilities in chunks anyway", "use_liger_kernel liger_kernel_config"),
    (
        "shapes change with every batch: a step of the tiny model took minutes",
        "torch_compile torch_compile_backend torch_compile_mode",
    ),
    ("noise would fall on rollouts and log-probabilities, too", "neftune_noise_alpha"),
    ("TRL finds no head to cast in these models", "cast_lm_head_to_fp32"),
    ("judge and evaluation ask by the checkpoint's template, edit that", "chat_template_kwargs"),
    ("the KL reference is the start model as it was", "ref_model_mixup_alpha ref_model_sync_steps"),
    ("completions call no tools", "max_tool_calling_iterations"),
    ("metrics.jsonl counts num_tokens", "include_num_input_tokens_seen"),
    ("every step is recorded", "logging_first_step"),
    ("SIGTERM saves the last step in any case", "enable_jit_checkpoint"),
    ("a run has one directory, which all nodes must see", "save_on_each_node"),
    ("callbacks have no state that a resumed run needs", "restore_callback_states_from_checkpoint"),
)
REFUSED = {name: reason for reason, names in _REFUSED for name in names.split()}
"""Settings that TRL takes and a run would not honour, and why or what to do instead."""


SEPARATE = "normalize_then_sum"
"""TRL's name for separate advantages: each part is normalised inside its group, the sum of them over the batch."""


def grpo_config(recipe: Recipe, run: Path, num_samples: int) -> GRPOConfig:
    """TRL's settings: ours, then the recipe's `grpo` block. Raises UserError for names or values TRL does not take."""
    known = get_type_hints(GRPOConfig)
    chosen = {key: _checked(key, value, known) for key, value in (recipe.grpo or {}).items()}
    on_cpu = not torch.accelerator.is_available()
    defaults = {"num_generations": 8, "save_steps": 50, "report_to": "none", "bf16": not on_cpu, "use_cpu": on_cpu}
    settings = {
        **defaults,
        **chosen,
        "output_dir": str(run / directory.CHECKPOINTS),
        "logging_dir": str(run / "tensorboard"),
        "seed": recipe.seed,
        "logging_steps": 1,
        "shuffle_dataset": False,
        "remove_unused_columns": False,
        "disable_tqdm": True,
        "log_multimodal": False,
        "multi_objective_aggregation": SEPARATE if recipe.reward.advantages == "separate" else "sum_then_normalize",
    }
    if "logging_dir" not in known:
        del settings["logging_dir"]
    try:
        config = GRPOConfig(**settings)
    except (TypeError, ValueError) as error:
        raise UserError(f"TRL refuses the grpo settings: {error}") from None
    if recipe.reward.advantages == "separate" and config.scale_rewards != "group":
        raise UserError(
            "reward.advantages separate divides each part by its group's deviation: leave grpo.scale_rewards at group"
        )
    if config.max_steps <= 0:
        config.max_steps = optimizer_steps(config, num_samples, config.world_size)
    if config.max_steps > MOST:
        raise UserError(f"grpo.num_train_epochs {config.num_train_epochs:g} is too many for {num_samples} samples")
    if (
        recipe.dynamic_sampling
        and config.per_device_train_batch_size * config.steps_per_generation % config.num_generations
    ):
        raise UserError(
            "dynamic_sampling needs whole groups on each process: make grpo.per_device_train_batch_size times "
            f"grpo.steps_per_generation a multiple of {config.num_generations} (num_generations)"
        )
    if config.save_steps % steps_per_cycle(config):
        raise UserError(
            f"grpo.save_steps must be a multiple of {steps_per_cycle(config):g}: checkpoints inside a generation "
            "cycle cannot be resumed exactly"
        )
    return config


def _checked(key: str, value: Any, known: Mapping[str, Any]) -> Any:
    """The value in the type TRL declares: its dataclass takes any, and YAML reads 5e-5 as a text."""
    if key not in known:
        raise UserError(f"grpo.{key} is no setting of TRL's GRPOConfig; {did_you_mean(key, known)}".removesuffix("; "))
    if key in REFUSED:
        raise UserError(f"grpo.{key} is refused: {REFUSED[key]}")
    form: Any = Annotated[known[key], BOUNDS[key]] if key in BOUNDS else known[key]
    try:
        read = TypeAdapter(form).validate_python(value)
    except ValidationError as error:
        raise UserError(f"grpo.{key}: {error.errors()[0]['msg']} (found {short(value, quoted=True)})") from None
    odd = odd_number(read)
    if odd is not None:
        raise UserError(f"grpo.{key}: {odd}")
    return read


def check_trackers(config: GRPOConfig) -> None:
    """Raise UserError if a tracker that steps are reported to is not known, or not installed."""
    for name in config.report_to:
        if name not in INTEGRATION_TO_CALLBACK:
            known = ", ".join(sorted(INTEGRATION_TO_CALLBACK))
            raise UserError(f"grpo.report_to: {name!r} is no tracker; known are {known}")
        try:
            INTEGRATION_TO_CALLBACK[name]()
        except (RuntimeError, ImportError) as error:
            extras = metadata("emor3").get_all("Provides-Extra") or []
            way = f"it is not installed: pip install -e '.[{name}]' in emor3's clone" if name in extras else str(error)
            raise UserError(f"grpo.report_to {name}: {way}") from None


def optimizer_steps(config: GRPOConfig, num_samples: int, processes: int) -> int:
    """Optimizer steps of `num_train_epochs` passes over the samples, on so many processes."""
    completions = config.per_device_train_batch_size * processes * config.gradient_accumulation_steps
    prompts = completions / (config.num_generations * config.num_iterations)
    steps: int = math.ceil(config.num_train_epochs * num_samples / prompts)
    return steps


def steps_per_cycle(config: GRPOConfig) -> float:
    """Optimizer steps that one round of generation serves."""
    return float(config.steps_per_generation * config.num_iterations / config.gradient_accumulation_steps)


def without_placeholders(processor: ProcessorMixin, use_vllm: bool) -> dict[str, Any]:
    """Sampling settings that keep image placeholders out of completions; vLLM knows no suppressed tokens."""
    placeholders = vision_token_ids(processor)
    return {"logit_bias": dict.fromkeys(placeholders, -100.0)} if use_vllm else {"suppress_tokens": placeholders}
