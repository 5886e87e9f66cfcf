"""Generation: render the chat, encode texts and images, and sample or decode greedily, in batches."""

import re
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from transformers import BatchFeature, PreTrainedModel, ProcessorMixin

from emor3.method.thinking import sample_prompt
from emor3.method.types import Sample
from emor3.models.architectures import TILE_MARKS, VISION_WORDS
from emor3.models.prefix_cache import continuing, plain
from emor3.models.processors import chat as chat
from emor3.models.processors import images_once, open_images

Request = tuple[tuple[str, ...], str]
"""Paths of the images, and the text of the user turn."""


def rendered(processor: ProcessorMixin, chats: Sequence[Any], **template: Any) -> dict[str, Any]:
    """Arguments of a processor or tokenizer for N conversations: their texts, and whether these lack a BOS token."""
    texts = processor.apply_chat_template(list(chats), tokenize=False, add_generation_prompt=True, **template)
    bos = processor.tokenizer.bos_token
    # Some templates write it, with others the tokenizer has to add it.
    return {"text": texts, "add_special_tokens": bos is None or not texts[0].startswith(bos)}


def unexpanded(processor: ProcessorMixin, chats: Sequence[Any], **template: Any) -> list[list[int]]:
    """Token ids of N conversations with one placeholder an image, as vLLM takes them.

    vLLM replaces each by the tokens of its image. If a processor has done so before, vLLM does it again with the first
    of them, and the model reads prompts it has never seen (TRL issue 6294).
    """
    ids: list[list[int]] = processor.tokenizer(**rendered(processor, chats, **template)).input_ids
    return ids


def encode(processor: ProcessorMixin, requests: Sequence[Request]) -> BatchFeature:
    """Model inputs of N requests, padded on the left; rows with any number of images may be mixed.

    An image that several requests share is opened and prepared once.
    """
    opened = open_images((path for paths, _ in requests for path in paths), processor)
    images = [[opened[path] for path in paths] for paths, _ in requests]  # by row, as some processors ask
    with images_once(processor):
        return processor(
            **rendered(processor, [chat(text, len(paths)) for paths, text in requests]),
            images=images if opened else None,
            padding=True,
            padding_side="left",
            return_tensors="pt",
        )


def vision_token_ids(processor: ProcessorMixin) -> list[int]:
    """Ids of the tokens that stand for images and videos or mark them: they must never be sampled."""
    tokenizer = processor.tokenizer
    special = set(tokenizer.all_special_tokens)
    return sorted(
        index
        for token, index in tokenizer.get_added_vocab().items()
        if re.fullmatch(TILE_MARKS, token) or (token in special and any(word in token for word in VISION_WORDS))
    )


def generate(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    requests: Sequence[Request],
    *,
    max_new_tokens: int,
    temperature: float = 0.0,
    seed: int = 0,
    batch_size: int = 64,
    on_batch: Callable[[int], None] | None = None,
    in_step: bool = False,
) -> list[str]:
    """One completion for each of N requests, in order; greedy at temperature 0, else sampled, no nucleus or top-k.

    `on_batch` gets the number of requests just finished. The same seed and batch size give the same completions.
    `in_step` lets every rank of a distributed run decode until the last one is done, as a sharded model needs.
    """
    sampling: dict[str, Any] = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
    if temperature > 0:
        sampling = {"do_sample": True, "temperature": temperature, "top_p": 1.0, "top_k": 0}
    sampling["repetition_penalty"] = 1.0  # as in rollouts; some checkpoints bring another
    suppressed = vision_token_ids(processor)
    completions: list[str] = []
    with torch.random.fork_rng(), torch.no_grad():  # a sharded model refuses inference mode
        torch.manual_seed(seed)
        for start in range(0, len(requests), batch_size):
            batch = requests[start : start + batch_size]
            inputs = encode(processor, batch).to(model.device)
            rows = torch.arange(len(batch), device=model.device)
            with continuing(plain(model), rows) if in_step else nullcontext():
                output = model.generate(
                    **inputs,
                    max_new_tokens=max_new_tokens,
                    suppress_tokens=suppressed or None,
                    synced_gpus=in_step,
                    **sampling,
                )
            replies = output[:, inputs["input_ids"].shape[1] :]
            completions += processor.tokenizer.batch_decode(replies, skip_special_tokens=True)
            if on_batch is not None:
                on_batch(len(batch))
    return completions


def complete_samples(
    model: PreTrainedModel, processor: ProcessorMixin, samples: Sequence[Sample], template: str, **settings: Any
) -> list[str]:
    """One completion for each of N samples, in order, on its prompt; further settings are those of `generate`."""
    return generate(model, processor, [(s.images, sample_prompt(s, template)) for s in samples], **settings)
