"""Lengths of prompts: tokens of text and images, the context they must fit, and the image size at which they do.

A prompt is never truncated: if it is too long, images are scaled down as a whole (`model.max_pixels`).
"""

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache, partial

from transformers import PreTrainedModel, ProcessorMixin

from emor3.errors import UserError
from emor3.method.types import Sample
from emor3.models.architectures import (
    IMAGE_MARKS,
    area_of_tokens,
    is_sized_by_area,
    is_tiled,
    largest_area,
    pixels_per_token,
)
from emor3.models.engines.local import LocalEngine
from emor3.models.generation import text_tokens as text_tokens
from emor3.models.generation import token_counter as token_counter
from emor3.printing import say
from emor3.storage.images import MAX_ASPECT_RATIO, image_size

ROLE_BYTES = 1024
"""Room for what a chat template adds to a turn, such as a system prompt."""
PROMPT_TOKENS = 2048
"""Length of prompts in the paper."""

MANY_LABELS = 100
"""Above that it is said what labels cost."""


def label_cost(processor: ProcessorMixin, labels: Sequence[str]) -> str:
    """What K labels add to each prompt and to each question of coherence, in tokens, for a person.

    If two labels begin with the same token, the judge reads every label whole.
    """
    tokenizer = processor.tokenizer
    listed = len(tokenizer(", ".join(labels), add_special_tokens=False).input_ids)
    spelt = [tokenizer(label, add_special_tokens=False).input_ids for label in labels]
    whole = sum(map(len, spelt)) + len(spelt) if len({ids[0] for ids in spelt}) < len(spelt) else 0
    return f"{len(labels):,} take {listed:,} tokens of a prompt and {listed + whole:,} of a question of coherence"


def warn_of_many_labels(processor: ProcessorMixin, labels: Sequence[str]) -> None:
    """Say on standard error what many labels cost, before they do."""
    if len(labels) > MANY_LABELS:
        say(f"many labels: {label_cost(processor, labels)}: name fewer if it takes too long", error=True)


def suggest_max_pixels(processor: ProcessorMixin, text: int, images: int = 1) -> int | None:
    """Largest image area, in pixels, with which a prompt of that many images stays within `PROMPT_TOKENS`.

    None for processors that size images otherwise, and if the text alone is too long.
    """
    return area_of_tokens(processor, (PROMPT_TOKENS - text) // images - IMAGE_MARKS)


Turn = tuple[Sample, str, int]
"""A sample, the prompt that goes with its images, and the tokens that its completion may have."""


def check_context(model: PreTrainedModel, processor: ProcessorMixin, turns: Iterable[Turn]) -> None:
    """Raise UserError if a prompt and its completion are longer than what the model was made for.

    Beyond its context a model runs on and makes no sense. Images that cannot be read are left to whoever opens them.
    """
    check_lengths(LocalEngine(model, processor).context, processor, turns)


def check_lengths(
    limit: int | None, processor: ProcessorMixin, turns: Iterable[Turn], whose: str = "the model's context"
) -> None:
    """As `check_context`, for a limit of whatever it is; None is none."""
    if limit is None:
        return
    most = _most_image_tokens(processor)
    counted = lru_cache(maxsize=4096)(partial(text_tokens, processor))
    image_tokens = token_counter(processor, "")
    for sample, prompt, completion in turns:
        # A token has one byte or more, so nearly all prompts are known to fit before an image or a word is looked at.
        at_most = ROLE_BYTES + len(prompt.encode()) + most * len(sample.images) + completion
        if at_most <= limit:
            continue
        try:
            length = counted(prompt) + sum(image_tokens(image_size(path)) for path in sample.images)
        except UserError:
            continue
        if length + completion > limit:
            raise UserError(
                f"sample {sample.id!r}: {length} tokens of prompt and {completion} of completion are "
                f"{length + completion}, more than {whose} of {limit}: use smaller images "
                "(model.max_pixels) or shorter texts, or allow fewer tokens of completion"
            )


def _most_image_tokens(processor: ProcessorMixin) -> float:
    """At least as many as any image takes in a prompt; infinity if the processor does not say."""
    if is_tiled(processor):
        side = math.isqrt(largest_area(processor))
        return token_counter(processor, "")((side, side))  # no image is cut into more tiles
    if not is_sized_by_area(processor):
        return math.inf
    tokens = largest_area(processor) / pixels_per_token(processor)
    return IMAGE_MARKS + tokens + 2 * math.sqrt(MAX_ASPECT_RATIO * tokens) + 1  # sides are rounded up, of strips most
