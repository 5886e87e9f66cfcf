"""How long prompts become: tokens of the text, tokens of an image, and the image size at which a prompt fits.

Nothing is ever cut off inside an image: where a prompt is too long, images are scaled down as a whole (`max_pixels`).
"""

from collections.abc import Callable
from functools import lru_cache, partial

from PIL import Image
from transformers import ProcessorMixin

from emor3.generation import chat
from emor3.processing import VIDEO_PROCESSORS

PROMPT_TOKENS = 2048
"""Length of prompts in the paper."""


def text_tokens(processor: ProcessorMixin, prompt: str) -> int:
    """Tokens of a user turn without its image."""
    text = processor.apply_chat_template(chat(prompt, False), tokenize=False, add_generation_prompt=True)
    return len(processor(text=[text])["input_ids"][0])


def token_counter(processor: ProcessorMixin, prompt: str) -> Callable[[tuple[int, int]], int]:
    """Function from an image's size to the tokens it takes in the prompt; they depend on nothing else."""
    template = partial(processor.apply_chat_template, tokenize=False, add_generation_prompt=True)
    without_image = text_tokens(processor, prompt)

    @lru_cache(maxsize=4096)
    def count(size: tuple[int, int]) -> int:
        inputs = processor(text=[template(chat(prompt, True))], images=[Image.new("RGB", size)])
        return len(inputs["input_ids"][0]) - without_image

    return count


def suggest_max_pixels(processor: ProcessorMixin, text: int) -> int | None:
    """Largest image area, in pixels, with which a prompt stays within `PROMPT_TOKENS`.

    None for processors that size images otherwise, and where the text alone is too long.
    """
    if type(processor) not in VIDEO_PROCESSORS or text + 2 >= PROMPT_TOKENS:
        return None
    side = processor.image_processor.patch_size * processor.image_processor.merge_size
    return int((PROMPT_TOKENS - text - 2) * side * side)  # 2: the marks before and after an image
