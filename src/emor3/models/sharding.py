"""Several processes: weights sharded by FSDP2 or ZeRO-3, and the same collectives on ranks that see no image.

Sharded weights are loaded whole, split by the trainer, and gathered when they are saved.
"""

import inspect
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import reduce
from peft import PeftModel
from PIL import Image
from torch import Tensor
from transformers import PreTrainedModel, ProcessorMixin, Trainer
from transformers.integrations import deepspeed

from emor3.errors import UserError
from emor3.method.types import Sample
from emor3.models.architectures import deepstack_features, language_model

DUMMY_SIDE = 64
"""Pixels of the dummy image; processors that scale to sides make theirs of it."""


def sharded(trainer: Trainer) -> bool:
    """Whether a trainer shards weights, so that all ranks must join every forward and every gathering of them."""
    return bool(trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled)


def on_any_rank(told: bool) -> bool:
    """Whether something holds on at least one rank. All ranks must ask together."""
    return bool(reduce(torch.tensor(int(told), device=PartialState().device), "max"))


def check_shardable(trainer: Trainer, *, ema: bool = False) -> None:
    """Raise UserError if a trainer shards weights that adapters or a moving average need whole."""
    if not sharded(trainer):
        return
    if isinstance(trainer.model, PeftModel):
        raise UserError("model.lora cannot be merged from shards: start it with recipes/accelerate/ddp.yaml instead")
    if ema:
        raise UserError("judge.model ema cannot follow shards: start it with recipes/accelerate/ddp.yaml instead")


def check_resumable(trainer: Trainer, checkpoint: Path) -> None:
    """Raise UserError if a checkpoint's optimizer was sharded in another way: it could not be read."""
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


def run_vision_on_all_ranks(
    samples: Iterable[Sample], processor: ProcessorMixin, *models: PreTrainedModel | None
) -> None:
    """Run vision in every forward of the models if several processes train on rows of which some have no image."""
    if PartialState().num_processes > 1 and not all(sample.images for sample in samples):
        for model in filter(None, models):
            always_run_vision(model, processor)


def always_run_vision(model: PreTrainedModel, processor: ProcessorMixin) -> None:
    """Run the vision tower on a dummy image in text-only batches, so that collectives match across ranks.

    DDP waits for the gradient of every weight, and sharded weights (FSDP2, ZeRO-3) for every rank in every module. The
    dummy's features are added times zero. Forwards that continue a prefill have no images on any rank.
    """
    dummy = processor.image_processor(Image.new("RGB", (DUMMY_SIDE, DUMMY_SIDE)), return_tensors="pt")
    core, missing = model.base_model, False
    taken = inspect.signature(core.get_image_features).parameters
    dummy = {name: value for name, value in dummy.items() if name in taken}  # some processors also tell counts

    def notice(module: torch.nn.Module, args: Any, inputs: dict[str, Any]) -> None:
        nonlocal missing
        cache = inputs.get("past_key_values")
        missing = inputs.get("pixel_values") is None and (cache is None or cache.get_seq_length() == 0)

    def add_dummy(module: torch.nn.Module, args: Any, inputs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        nonlocal missing
        if missing:
            missing, embedded = False, inputs["inputs_embeds"]
            features = core.get_image_features(**{name: value.to(embedded.device) for name, value in dummy.items()})
            nothing = 0 * sum(part.sum() for part in _tensors((features.pooler_output, deepstack_features(features))))
            inputs = {**inputs, "inputs_embeds": embedded + nothing}
        return args, inputs

    core.register_forward_pre_hook(notice, with_kwargs=True)
    # Where images would join the texts, so that shards are gathered in the same order, also for the gradients;
    # and before DeepSpeed's own hook there, which notes that the language model has begun.
    language_model(core).register_forward_pre_hook(add_dummy, prepend=True, with_kwargs=True)


def _tensors(nested: Tensor | Sequence[Any]) -> Iterator[Tensor]:
    """Features that models give as one tensor, by image, or by layer and image."""
    if isinstance(nested, Tensor):
        yield nested
    else:
        for part in nested:
            yield from _tensors(part)
