"""Several processes that train one model: weights split over them, and the same collectives on every rank.

Split weights (FSDP2, ZeRO-3) are loaded whole, split by the trainer, and whole again when they are saved. Sharded
weights wait for every rank in every module, and DDP for the gradient of every weight, so text-only batches run the
vision tower on a dummy image, and add its encoding times zero.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from peft import PeftModel
from PIL import Image
from torch import Tensor
from transformers import PreTrainedModel, ProcessorMixin, Trainer
from transformers.integrations import deepspeed

from emor3.errors import UserError
from emor3.method.types import Sample

SIDE = 64
"""Pixels; processors with images of one size make that of it."""


def sharded(trainer: Trainer) -> bool:
    """Whether a trainer splits weights, so that all ranks must take part in every forward and every look at them."""
    return bool(trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled)


def check_shardable(trainer: Trainer, *, ema: bool = False) -> None:
    """Raise UserError if a trainer splits weights that adapters or a moving average need whole."""
    if not sharded(trainer):
        return
    if isinstance(trainer.model, PeftModel):
        raise UserError("model.lora cannot be merged from shards: start it with recipes/accelerate/ddp.yaml instead")
    if ema:
        raise UserError("judge.model ema cannot follow shards: start it with recipes/accelerate/ddp.yaml instead")


def check_resumable(trainer: Trainer, checkpoint: Path) -> None:
    """Raise UserError if a checkpoint's optimizer was split in another way: it could not be read."""
    if trainer.is_deepspeed_enabled:
        found = len(list(checkpoint.glob("global_step*/*optim_states.pt"))) == trainer.accelerator.num_processes
    else:
        found = (checkpoint / ("optimizer.bin" if trainer.is_fsdp_enabled else "optimizer.pt")).is_file()
    if not found:
        raise UserError(
            f"{checkpoint} has no optimizer that this run could go on with: start it with the accelerate configuration "
            "that wrote it, with DeepSpeed also with as many processes"
        )


def whole_weights(trainer: Trainer) -> dict[str, Tensor] | None:
    """Weights of a trained policy, gathered from all ranks, which must all call this; None if adapters learnt."""
    if isinstance(trainer.model, PeftModel):
        return None
    weights: dict[str, Tensor] = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    return weights


@contextmanager
def loading_whole() -> Iterator[None]:
    """Inside, models are loaded whole on each process, also once a training under ZeRO-3 has been set up.

    Transformers would split what it loads, whatever `zero3_init_flag` says, and until DeepSpeed has the model it could
    neither run nor be copied.
    """
    training = deepspeed._hf_deepspeed_config_weak_ref
    deepspeed.unset_hf_deepspeed_config()
    try:
        yield
    finally:
        deepspeed._hf_deepspeed_config_weak_ref = training


def see_in_step(samples: Sequence[Sample], processor: ProcessorMixin, *models: PreTrainedModel | None) -> None:
    """Have the models always see if several processes train on rows of which some have no image."""
    if PartialState().num_processes > 1 and not all(sample.images for sample in samples):
        for model in filter(None, models):
            always_see(model, processor)


def always_see(model: PreTrainedModel, processor: ProcessorMixin) -> None:
    """Have each forward of a model run its vision, except those that continue a prompt, where no rank has images."""
    blank = processor.image_processor(Image.new("RGB", (SIDE, SIDE)), return_tensors="pt")
    core, missing = model.base_model, False

    def notice(module: torch.nn.Module, args: Any, inputs: dict[str, Any]) -> None:
        nonlocal missing
        cache = inputs.get("past_key_values")
        missing = inputs.get("pixel_values") is None and (cache is None or cache.get_seq_length() == 0)

    def look(module: torch.nn.Module, args: Any, inputs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        nonlocal missing
        if missing:
            missing, embedded = False, inputs["inputs_embeds"]
            features = core.get_image_features(**{name: value.to(embedded.device) for name, value in blank.items()})
            deep = getattr(features, "deepstack_features", None) or ()  # what deeper layers add (Qwen3-VL)
            nothing = 0 * sum(part.sum() for part in _tensors((features.pooler_output, deep)))
            inputs = {**inputs, "inputs_embeds": embedded + nothing}
        return args, inputs

    core.register_forward_pre_hook(notice, with_kwargs=True)
    # Where images would join the texts, so that shards are gathered in the same order, also for the gradients;
    # and before DeepSpeed's own hook there, which notes that the language model has begun.
    core.language_model.register_forward_pre_hook(look, prepend=True, with_kwargs=True)


def _tensors(nested: Tensor | Sequence[Any]) -> Iterator[Tensor]:
    """What models give as one tensor, by image, or by layer and image."""
    if isinstance(nested, Tensor):
        yield nested
    else:
        for part in nested:
            yield from _tensors(part)
