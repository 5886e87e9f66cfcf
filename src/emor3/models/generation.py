"""Generation: render the chat, encode texts and images, and sample or decode greedily, in batches."""

import re
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import lru_cache, partial
from typing import Any

import torch
from PIL import Image
from transformers import BatchFeature, PreTrainedModel, ProcessorMixin

from emor3.method.thinking import Thinking, after_thoughts, sample_prompt
from emor3.method.types import Sample
from emor3.models.architectures import TILE_MARKS, VISION_WORDS, image_tokens, is_sized_by_area, knows_image_tokens
from emor3.models.engines.batches import Decoding, OnBatch, in_batches
from emor3.models.engines.batches import Request as Request
from emor3.models.prefix_cache import continuing, plain
from emor3.models.processors import chat as chat
from emor3.models.processors import images_once, lessened, open_images
from emor3.storage.images import image_size

_OPENED = re.compile(r"<think>\s*$")


def rendered(
    processor: ProcessorMixin, chats: Sequence[Any], *, thinks: bool = True, **template: Any
) -> dict[str, Any]:
    """Arguments of a processor or tokenizer for N conversations: their texts, and whether these lack a BOS token.

    Some chat templates open `<think>`. What shall answer at once, as a judge, does not think: there it is closed.
    """
    texts = processor.apply_chat_template(list(chats), tokenize=False, add_generation_prompt=True, **template)
    if not thinks:
        texts = [_OPENED.sub("<think>\n\n</think>\n\n", text) for text in texts]
    bos, adds = processor.tokenizer.bos_token, getattr(processor, "text_kwargs", {}).get("add_special_tokens", True)
    # Some templates write it; with others the tokenizer has to add it, unless the processor is of those that never do.
    return {"text": texts, "add_special_tokens": adds and (bos is None or not texts[0].startswith(bos))}


def unexpanded(processor: ProcessorMixin, chats: Sequence[Any], **template: Any) -> list[list[int]]:
    """Token ids of N conversations with one placeholder an image, as vLLM takes them.

    vLLM replaces each by the tokens of its image. If a processor has done so before, vLLM does it again with the first
    of them, and the model reads prompts it has never seen (TRL issue 6294).
    """
    ids: list[list[int]] = processor.tokenizer(**rendered(processor, chats, **template)).input_ids
    return ids


def said_by(processor: ProcessorMixin, thinking: Thinking) -> Callable[[str], str]:
    """Function from what a model writes to what the grammar is of: all of it, unless its chat template opens `<think>`.

    Thoughts are paid for in tokens, and neither read nor recorded.
    """
    (prompt,) = rendered(processor, [chat("", 0)])["text"]
    return partial(after_thoughts, thinking=thinking) if _OPENED.search(prompt) else str


def encode(processor: ProcessorMixin, requests: Sequence[Request], *, thinks: bool = True) -> BatchFeature:
    """Model inputs of N requests, padded on the left; rows with any number of images may be mixed.

    An image that several requests share is opened and prepared once. `thinks` is that of `rendered`.
    """
    opened = open_images((path for paths, _ in requests for path in paths), processor)
    images = [[opened[path] for path in paths] for paths, _ in requests]  # by row, as some processors ask
    with images_once(processor):
        return processor(
            **rendered(processor, [chat(text, len(paths)) for paths, text in requests], thinks=thinks),
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


def request_lengths(processor: ProcessorMixin, requests: Sequence[Request]) -> list[int]:
    """Tokens of each of N prompts, images included, without opening more of an image than its header.

    A processor that cuts an image into tiles only if it stands alone takes fewer of several, never more.
    Raises UserError for an image that cannot be read.
    """
    count = _image_counter(processor)
    sizes = lru_cache(maxsize=None)(lambda path: count(image_size(path)))
    words = lru_cache(maxsize=4096)(lambda text, images: len(unexpanded(processor, [chat(text, images)])[0]) - images)
    return [words(text, len(paths)) + sum(map(sizes, paths)) for paths, text in requests]


def _image_counter(processor: ProcessorMixin) -> Callable[[tuple[int, int]], int]:
    """Function from an image's size to the tokens that it takes in place of its placeholder."""
    if is_sized_by_area(processor):
        return partial(image_tokens, processor=processor)
    if knows_image_tokens(processor):
        return lambda size: image_tokens(lessened(size, processor), processor)
    without, shown = (len(unexpanded(processor, [chat("", images)])[0]) for images in (0, 1))
    count = token_counter(processor, "")  # with what the chat template writes around an image
    return lambda size: count(lessened(size, processor)) - (shown - 1 - without)


def text_tokens(processor: ProcessorMixin, prompt: str) -> int:
    """Tokens of a user turn without its image."""
    text = processor.apply_chat_template(chat(prompt, 0), tokenize=False, add_generation_prompt=True)
    return len(processor(text=[text])["input_ids"][0])


def token_counter(processor: ProcessorMixin, prompt: str) -> Callable[[tuple[int, int]], int]:
    """Function from an image's size to the tokens it takes in the prompt; they depend on nothing else."""
    template = partial(processor.apply_chat_template, tokenize=False, add_generation_prompt=True)
    without_image = text_tokens(processor, prompt)

    @lru_cache(maxsize=4096)
    def count(size: tuple[int, int]) -> int:
        inputs = processor(text=[template(chat(prompt, 1))], images=[Image.new("RGB", size)])
        return len(inputs["input_ids"][0]) - without_image

    return count


def generate(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    requests: Sequence[Request],
    *,
    in_step: bool = False,
    thinks: bool = True,
    batch_size: int = 64,
    on_batch: OnBatch = None,
    **decoding: Any,
) -> list[str]:
    """One completion for each of N requests, in order; greedy at temperature 0, else sampled, no nucleus or top-k.

    `on_batch` gets the number of requests just finished; further settings are those of `Decoding`. The same seed and
    batch size give the same completions. `in_step` lets every rank of a distributed run decode until the last one is
    done, as a sharded model needs; there prompts count as equally long, so that each rank has as many batches. `thinks`
    is that of `rendered`.
    """
    lengths = [0] * len(requests) if in_step else request_lengths(processor, requests)
    wanted = Decoding(**decoding)

    def make(number: int, places: Sequence[int]) -> list[str]:
        asked = [requests[place] for place in places]
        texts = complete_batch(model, processor, asked, wanted.of_batch(number), in_step=in_step, thinks=thinks)
        if on_batch is not None:
            on_batch(len(places))
        return [text for (text,) in texts]

    return in_batches(wanted.plan(lengths, batch_size), make)


def complete_batch(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    requests: Sequence[Request],
    decoding: Decoding,
    *,
    in_step: bool = False,
    thinks: bool = True,
) -> list[list[str]]:
    """M completions for each of N requests in one batch, with one prefill of each prompt.

    The global random state is left alone.
    """
    inputs = encode(processor, requests, thinks=thinks).to(model.device)
    shares = in_step or decoding.draws > 1
    rows = torch.arange(len(requests), device=model.device).repeat_interleave(decoding.draws)
    with torch.random.fork_rng(), torch.no_grad():  # a sharded model refuses inference mode
        torch.manual_seed(decoding.seed)
        with continuing(plain(model), rows) if shares else nullcontext():
            output = model.generate(
                **inputs,
                max_new_tokens=decoding.max_new_tokens,
                suppress_tokens=vision_token_ids(processor) or None,
                synced_gpus=in_step,
                **_sampling(decoding.temperature),
            )
    replies = processor.tokenizer.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return [replies[start : start + decoding.draws] for start in range(0, len(replies), decoding.draws)]


def _sampling(temperature: float) -> dict[str, Any]:
    penalty = {"repetition_penalty": 1.0}  # as in rollouts; some checkpoints bring another
    if temperature > 0:
        return penalty | {"do_sample": True, "temperature": temperature, "top_p": 1.0, "top_k": 0}
    return penalty | {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}


def complete_samples(
    model: PreTrainedModel, processor: ProcessorMixin, samples: Sequence[Sample], template: str, **settings: Any
) -> list[str]:
    """One completion for each of N samples, in order, on its prompt; further settings are those of `generate`."""
    return generate(model, processor, [(s.images, sample_prompt(s, template)) for s in samples], **settings)
