"""Settings as people write them: blocks that refuse unknown keys, faults in one line, and bounds of numbers.

Every number is finite and of 32 bits at most. TRL takes any number for its own settings, and a wrong one ends hours
later, in a traceback or in nothing, so those have the bounds below.
"""

import reprlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic.fields import FieldInfo

from emor3.errors import UserError, did_you_mean

_SHORT = reprlib.Repr()
_SHORT.maxlevel = 2

MOST = 2**32 - 1
"""Largest number that is taken anywhere: seeds have 32 bits, and nothing else needs more."""

LOWEST_TEMPERATURE = 1e-3
"""Logits divided by less overflow in half precision."""

_COUNT, _FROM_ZERO, _SHARE, _ABOVE_ZERO = Field(ge=1), Field(ge=0), Field(ge=0, le=1), Field(gt=0)
_SOME_SHARE, _DECAY, _PORT = Field(gt=0, le=1), Field(ge=0, lt=1), Field(ge=1, le=65_535)

_NAMED: tuple[tuple[FieldInfo, str], ...] = (
    (
        _COUNT,
        "per_device_train_batch_size gradient_accumulation_steps torch_empty_cache_steps dataloader_prefetch_factor "
        "ddp_bucket_cap_mb max_completion_length generation_batch_size steps_per_generation vllm_max_model_length "
        "num_iterations vllm_tensor_parallel_size",
    ),
    (
        _FROM_ZERO,
        "learning_rate warmup_steps weight_decay max_grad_norm save_total_limit dataloader_num_workers "
        "router_aux_loss_coef top_k beta epsilon epsilon_high vespo_k_pos vespo_lambda_pos vespo_k_neg "
        "vespo_lambda_neg entropy_coef entropy_coef_min entropy_coef_max entropy_coef_delta entropy_target "
        "vllm_importance_sampling_clip_min off_policy_mask_threshold",
    ),
    (
        _ABOVE_ZERO,
        "num_train_epochs adam_epsilon save_steps repetition_penalty vllm_server_timeout delta "
        "sapo_temperature_neg sapo_temperature_pos vllm_importance_sampling_clip_max vllm_importance_sampling_cap",
    ),
    (_SHARE, "min_p top_entropy_quantile"),
    (_SOME_SHARE, "top_p vllm_gpu_memory_utilization"),
    (_DECAY, "adam_beta1 adam_beta2"),
    (_PORT, "vllm_server_port vllm_group_port"),
)
BOUNDS: Mapping[str, FieldInfo] = {name: bound for bound, names in _NAMED for name in names.split()} | {
    "temperature": Field(ge=LOWEST_TEMPERATURE, le=1e3),
    "max_steps": Field(ge=-1),
    "num_generations": Field(ge=2),
}
"""Bound of each number that the `grpo` block takes."""


class Block(BaseModel):
    """Settings that never change and refuse unknown keys and numbers that are infinite or of over 32 bits."""

    # The text under a setting is its description in the schema, from which docs/reference.md is made.
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    @field_validator("*")
    @classmethod
    def _holds_usable_numbers(cls, value: Any) -> Any:
        if odd := odd_number(value):
            raise ValueError(odd)
        return value


def without_former(given: Any, former: Mapping[str, Any], block: str) -> Any:
    """What a block was given, without settings that are gone: older records hold them, by the value that did nothing.

    Raises UserError if one of them has another value.
    """
    if not isinstance(given, Mapping):
        return given
    for name, off in former.items():
        if given.get(name, off) != off:
            raise UserError(f"{block}.{name} helped in no world and was removed (docs/log.md): leave it out")
    return {name: value for name, value in given.items() if name not in former}


def describe_fault(error: ValidationError, schema: type[BaseModel]) -> str:
    """The first fault in one line, with the nearest known key if a key is unknown."""
    fault = error.errors()[0]
    place = ".".join(map(short, fault["loc"]))
    if fault["type"] == "extra_forbidden":
        *parents, key = map(short, fault["loc"])
        known = _known_keys(schema, parents)
        hint = did_you_mean(key, known, place.removesuffix(key)) or f"known here: {', '.join(known)}"
        return f"unknown setting {place!r}; {hint}"
    if fault["type"] == "missing":
        return f"setting {place!r} is missing"
    if fault["type"] == "value_error":  # our own words
        return f"{place}: {fault['msg'].removeprefix('Value error, ')}"
    return f"{place}: {fault['msg']} (found {short(fault['input'], quoted=True)})"


def short(value: object, quoted: bool = False) -> str:
    """A value of any size in a few words: YAML's anchors make megabytes of a line, and Python prints no huge number."""
    if isinstance(value, str) and not quoted:
        return value
    try:
        return _SHORT.repr(value)
    except ValueError:
        return "a number of thousands of digits"


def _known_keys(schema: type[BaseModel], location: Iterable[str]) -> list[str]:
    parts = iter(location)
    for part in parts:
        annotation = schema.model_fields[part].annotation
        schema = _block_of(annotation)
        if get_origin(annotation) is dict:
            next(parts)  # a name that the user chose
    return list(schema.model_fields)


def _block_of(annotation: Any) -> type[BaseModel]:
    """The settings block of a field's type, optional or not."""
    return next(
        part for part in (annotation, *get_args(annotation)) if isinstance(part, type) and issubclass(part, Block)
    )


def odd_number(value: Any) -> str | None:
    """What is wrong with a number anywhere in a value, which no setting may hold: NaN, infinity, over 32 bits."""
    for place, number in _numbers(value):
        if not abs(number) <= MOST:  # also if it is NaN
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
