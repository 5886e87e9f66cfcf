"""Processors of checkpoints: load and save them, try their chat template, open and size images for them.

Without torchvision their video part is taken off (`architectures`); what we save still describes it, for machines that
have torchvision.
"""

import functools
import json
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor
from transformers import AutoProcessor, BatchFeature, ProcessorMixin, processing_utils, tokenization_utils_base
from transformers.image_utils import make_flat_list_of_images
from transformers.utils import chat_template_utils

from emor3.errors import UserError
from emor3.models.architectures import (
    can_be_split,
    is_sized_by_area,
    join_images,
    longest_side,
    resized,
    split_images,
    video_part,
)
from emor3.models.loading import PROCESSOR_TEXTS, TokenizerFaults, check_texts, from_checkpoint, refusal
from emor3.storage.images import SOURCE, open_image
from emor3.templating import check_length, within_limits

LARGE = 4_000_000
"""Pixels above which a picture is scaled when it is opened; a batch of larger ones would take gigabytes."""

RUN_TEMPLATES = (
    *("_compile_jinja_template", "render_jinja_template"),
    *("_get_template_variables", "_get_template_literal_text"),  # Jinja computes constants while it looks for these
)
"""Functions of transformers that run code of a chat template."""


def _bounded(function: Callable[..., Any]) -> Callable[..., Any]:
    """One of transformers' functions that run a chat template, within limits."""

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        template = str(kwargs.get("chat_template", *args[:1]))
        with within_limits(template, kind="chat template"):
            made = function(*args, **kwargs)
        for text in made[0] if isinstance(made, tuple) else ():
            check_length(template, text, "chat template")
        return made

    return run


# Chat templates come with checkpoints: wherever one is compiled or filled, by TRL too, it fails in one line.
for _module in (chat_template_utils, processing_utils, tokenization_utils_base):
    for _name in RUN_TEMPLATES:
        if hasattr(_module, _name):
            setattr(_module, _name, _bounded(getattr(_module, _name)))


def load_processor(path: str) -> ProcessorMixin:
    """Processor of the checkpoint at a local path or hub name; padding on the left, as generation needs it.

    Raises UserError if there is none, as for a text-only model.
    """
    check_texts(Path(path), ("config.json", *PROCESSOR_TEXTS))
    with refusal(f"cannot load the processor of {path}"), TokenizerFaults():
        processor = from_checkpoint(AutoProcessor, path)
    if not isinstance(processor, ProcessorMixin):
        raise UserError(f"cannot load {path} as an image-text-to-text model: it has a tokenizer but no image processor")
    processor.tokenizer.padding_side = "left"
    try_render(processor, path)
    return processor


def chat(text: str, images: int) -> list[dict[str, Any]]:
    """The conversation of one user turn, its images before the text."""
    content: list[dict[str, str]] = [{"type": "image"} for _ in range(images)]
    return [{"role": "user", "content": [*content, {"type": "text", "text": text}]}]


def try_render(processor: ProcessorMixin, path: str) -> None:
    """Raise UserError if the chat template loses an image or a text, or the tokenizer cannot pad or end."""
    template = f"the chat template of {path} ({_template_place(Path(path))})"
    if processor.tokenizer.pad_token_id is None or processor.tokenizer.eos_token_id is None:
        lacks = "pad_token" if processor.tokenizer.pad_token_id is None else "eos_token"
        raise UserError(f"the tokenizer of {path} has no {lacks}: name one in its tokenizer_config.json")
    if not processor.chat_template:
        raise UserError(f"{path} has no chat template: add chat_template.jinja as the model's authors have it")
    asked = "What is felt?"
    with refusal(f"{template} cannot be used"):
        shown, blind = (
            processor.apply_chat_template([chat(asked, images)], tokenize=False, add_generation_prompt=True)[0]
            for images in (1, 0)
        )
    if shown.count(asked) != 1 or blind.count(asked) != 1:
        raise UserError(f"{template} does not keep the text of a turn: take the one of the model's authors")
    if shown == blind:
        raise UserError(f"{template} drops images: take the one of the model's authors")
    with refusal(f"{template} and its processor do not go together"), TokenizerFaults():
        processor(text=[shown], images=[Image.new("RGB", (64, 64))], padding=True, return_tensors="pt")
    with (
        refusal(f"{path} cannot be used: it takes no text without an image, as a judge reads"),
        TokenizerFaults(),
    ):
        processor(text=[blind], padding=True, return_tensors="pt")


def _template_place(folder: Path) -> str:
    """File that the chat template of a local checkpoint is in."""
    names = ("chat_template.jinja", "chat_template.json")
    return next((name for name in names if (folder / name).is_file()), "in tokenizer_config.json")


def save_processor(processor: ProcessorMixin, folder: str | Path) -> None:
    """Save a processor so that `AutoProcessor` loads it with and without torchvision."""
    processor.save_pretrained(folder)
    path = Path(folder) / "processor_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    video = video_part(processor, config)
    if video is None or "video_processor" in config:
        return
    config["video_processor"] = video
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def scaled(image: Image.Image, processor: ProcessorMixin) -> Image.Image:
    """An image in the size that this processor makes of it, for an engine whose own processor lacks our limit.

    As it is if the processor does not size images by area.
    """
    if not is_sized_by_area(processor):
        return image
    return image.resize(resized(image.size, processor), processor.image_processor.resample)


def open_images(paths: Iterable[str], processor: ProcessorMixin | None = None) -> dict[str, Image.Image]:
    """Images by path, each opened once, large ones scaled at once towards what the processor makes of them.

    Raises UserError as `open_image`.
    """
    return {path: _fitted(open_image(path), processor) for path in set(paths)}


def _fitted(image: Image.Image, processor: ProcessorMixin | None) -> Image.Image:
    if processor is None or image.width * image.height <= LARGE:
        return image
    if is_sized_by_area(processor) and resized(size := resized(image.size, processor), processor) == size:
        return scaled(image, processor)
    size = lessened(image.size, processor)
    return image if size == image.size else image.resize(size)


def lessened(size: tuple[int, int], processor: ProcessorMixin) -> tuple[int, int]:
    """Width and height at which a large image is opened for a processor that does not size images by area."""
    # These cut tiles or crops of it: twice the longest side that they name loses nothing that they would see.
    scale = max(math.sqrt(LARGE / math.prod(size)), 2 * longest_side(processor) / min(size))
    return size if scale >= 1 else (round(size[0] * scale), round(size[1] * scale))


@contextmanager
def images_once(processor: ProcessorMixin) -> Iterator[None]:
    """Inside, the processor prepares an image (the same file or object) once, in however many calls it gets it."""
    own = vars(processor.image_processor)
    replaced = own.get("preprocess")  # None as a rule: what stands here would be saved with the processor
    whole = processor.image_processor.preprocess
    known: dict[tuple[Any, str], tuple[Any, dict[str, Tensor]]] = {}  # with the image, lest another get its id

    def preprocess(images: Any, *args: Any, **kwargs: Any) -> Any:
        kwargs["return_tensors"] = "pt"  # TRL asks once for tensors and once for whatever there is
        flat, settings = make_flat_list_of_images(images), repr((args, kwargs))
        keys = [(image.info.get(SOURCE, id(image)), settings) for image in flat]
        new = {key: image for key, image in zip(keys, flat, strict=True) if key not in known}
        if new:
            # As they are given if all are new: which images a row has tells some models how to cut them.
            prepared = whole(images if len(new) == len(flat) else list(new.values()), *args, **kwargs)
            counted = {**prepared, "num_images": [1] * len(new)}
            if not isinstance(prepared["pixel_values"], Tensor) or not can_be_split(counted):
                return prepared if len(new) == len(flat) else whole(images, *args, **kwargs)
            rows = split_images(counted)
            known.update((key, (new[key], row)) for key, row in zip(new, rows, strict=True))
        return BatchFeature(join_images([known[key][1] for key in keys]))

    processor.image_processor.preprocess = preprocess
    try:
        yield
    finally:
        if replaced is None:
            del own["preprocess"]
        else:
            own["preprocess"] = replaced
