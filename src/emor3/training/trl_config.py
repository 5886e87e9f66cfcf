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
    }
    if "logging_dir" not in known:
        del settings["logging_dir"]
    try:
        config = GRPOConfig(**settings)
    except (TypeError, ValueError) as error:
        raise UserError(f"TRL refuses the grpo settings: {error}") from None
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
    return math.ceil(float(config.num_train_epochs) * num_samples / float(prompts))


def steps_per_cycle(config: GRPOConfig) -> float:
    """Optimizer steps that one round of generation serves."""
    return float(config.steps_per_generation * config.num_iterations / config.gradient_accumulation_steps)


def without_placeholders(processor: ProcessorMixin, use_vllm: bool) -> dict[str, Any]:
    """Sampling settings that keep image placeholders out of completions; vLLM knows no suppressed tokens."""
    placeholders = vision_token_ids(processor)
    return {"logit_bias": dict.fromkeys(placeholders, -100.0)} if use_vllm else {"suppress_tokens": placeholders}
