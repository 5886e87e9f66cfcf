"""Vision in every forward, for ranks of which one may see texts only: the others' vision would wait for it forever.

DDP waits for the gradient of every weight, and sharded weights (FSDP2, ZeRO-3) for every rank in every module. So a
forward on texts alone encodes a blank image too, and adds its encoding times zero.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from accelerate import PartialState
from PIL import Image
from torch import Tensor
from transformers import PreTrainedModel, ProcessorMixin

from emor3.method.types import Sample

SIDE = 64
"""Pixels; processors with images of one size make that of it."""


def see_in_step(samples: Sequence[Sample], processor: ProcessorMixin, *models: PreTrainedModel | None) -> None:
    """Have the models always see where several processes train on rows of which some have no image."""
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
