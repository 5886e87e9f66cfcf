"""Load and save a checkpoint's processor, also on machines without torchvision.

transformers needs torchvision for the video part of the Qwen-VL and LLaVA-OneVision processors only. Where it is
missing, importing this module takes that part off those classes, so that they, `AutoProcessor` and TRL work for images;
what we save still describes the video part, for machines that have it.
"""

import functools
import json
import math
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from PIL import Image
from transformers import AutoProcessor, ProcessorMixin, processing_utils, tokenization_utils_base
from transformers.models.llava_onevision.processing_llava_onevision import LlavaOnevisionProcessor
from transformers.models.qwen2_5_vl.processing_qwen2_5_vl import Qwen2_5_VLProcessor
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize
from transformers.models.qwen2_vl.processing_qwen2_vl import Qwen2VLProcessor
from transformers.models.qwen3_vl.processing_qwen3_vl import Qwen3VLProcessor
from transformers.utils import chat_template_utils

from emor3.errors import UserError
from emor3.method.templating import check_length, within_limits
from emor3.models.loading import PROCESSOR_TEXTS, Told, check_texts, from_checkpoint
from emor3.storage.images import open_image

QWEN_VL = (Qwen2VLProcessor, Qwen2_5_VLProcessor, Qwen3VLProcessor)
LARGE = 4_000_000
"""Pixels above which a picture is scaled when it is opened; a batch of larger ones would take gigabytes."""

VIDEO_PROCESSORS = {
    Qwen2VLProcessor: "Qwen2VLVideoProcessor",
    Qwen2_5_VLProcessor: "Qwen2VLVideoProcessor",
    Qwen3VLProcessor: "Qwen3VLVideoProcessor",
    LlavaOnevisionProcessor: "LlavaOnevisionVideoProcessor",
}
"""Processor classes whose video part needs torchvision, and the class of that part."""

RUN_TEMPLATES = (
    *("_compile_jinja_template", "render_jinja_template"),
    *("_get_template_variables", "_get_template_literal_text"),  # Jinja computes constants while it looks for these
)
"""Functions of transformers that run code of a chat template."""


def _image_attributes(cls: type[ProcessorMixin]) -> list[str]:
    return [name for name in ProcessorMixin.get_attributes.__func__(cls) if name != "video_processor"]


if find_spec("torchvision") is None:
    for _processor_class in VIDEO_PROCESSORS:
        _processor_class.get_attributes = classmethod(_image_attributes)


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
    with Told(f"cannot load the processor of {path}"):
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
    with Told(f"{template} cannot be used"):
        shown, blind = (
            processor.apply_chat_template([chat(asked, images)], tokenize=False, add_generation_prompt=True)[0]
            for images in (1, 0)
        )
    if shown.count(asked) != 1 or blind.count(asked) != 1:
        raise UserError(f"{template} does not keep the text of a turn: take the one of the model's authors")
    if shown == blind:
        raise UserError(f"{template} drops images: take the one of the model's authors")
    with Told(f"{template} and its processor do not go together"):
        processor(text=[shown], images=[Image.new("RGB", (64, 64))], padding=True, return_tensors="pt")


def _template_place(folder: Path) -> str:
    """File that the chat template of a local checkpoint is in."""
    names = ("chat_template.jinja", "chat_template.json")
    return next((name for name in names if (folder / name).is_file()), "in tokenizer_config.json")


def save_processor(processor: ProcessorMixin, folder: str | Path) -> None:
    """Save a processor so that `AutoProcessor` loads it with and without torchvision."""
    processor.save_pretrained(folder)
    path = Path(folder) / "processor_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    video_class = VIDEO_PROCESSORS.get(type(processor))
    if video_class is None or "video_processor" in config:
        return
    shared = ("patch_size", "merge_size", "temporal_patch_size")  # of Qwen-VL; LLaVA-OneVision's are the class's own
    patches = {name: config["image_processor"][name] for name in shared if name in config["image_processor"]}
    config["video_processor"] = {"video_processor_type": video_class, **patches}
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def limit_pixels(processor: ProcessorMixin, max_pixels: int) -> None:
    """Scale images down to at most this area from now on; saved with the processor, so evaluation does the same.

    Raises UserError for processors that size images otherwise.
    """
    if not isinstance(processor, QWEN_VL):
        raise UserError(f"model.max_pixels is for Qwen-VL processors, not {type(processor).__name__}: leave it out")
    size = processor.image_processor.size
    size["longest_edge"] = max_pixels  # Qwen-VL's names for what are areas in pixels
    size["shortest_edge"] = min(size["shortest_edge"], max_pixels)


def scaled(image: Image.Image, processor: ProcessorMixin) -> Image.Image:
    """The picture in the size that this processor works on, for an engine that has one of its own, without our limit.

    As it is for processors that cannot be limited here.
    """
    if not isinstance(processor, QWEN_VL):
        return image
    return image.resize(_worked_on(image.size, processor), processor.image_processor.resample)


def _worked_on(size: tuple[int, int], processor: ProcessorMixin) -> tuple[int, int]:
    """Width and height that a Qwen-VL processor makes of others."""
    ours, (width, height) = processor.image_processor, size
    least, most = ours.size["shortest_edge"], ours.size["longest_edge"]
    height, width = smart_resize(height, width, ours.patch_size * ours.merge_size, least, most)
    return width, height


def open_images(paths: Iterable[str], processor: ProcessorMixin | None = None) -> dict[str, Image.Image]:
    """The pictures by path, each opened once, and large ones scaled at once towards what the processor makes of them.

    Raises UserError as `open_image`.
    """
    return {path: _fitted(open_image(path), processor) for path in set(paths)}


def _fitted(image: Image.Image, processor: ProcessorMixin | None) -> Image.Image:
    if processor is None or image.width * image.height <= LARGE:
        return image
    if isinstance(processor, QWEN_VL) and _worked_on(size := _worked_on(image.size, processor), processor) == size:
        return scaled(image, processor)
    # Others cut tiles or crops of it: twice the longest side that they name loses nothing that they would see.
    shortest = 0 if isinstance(processor, QWEN_VL) else 2 * max(_sides(processor.image_processor), default=0)
    scale = max(math.sqrt(LARGE / (image.width * image.height)), shortest / min(image.size))
    return image if scale >= 1 else image.resize((round(image.width * scale), round(image.height * scale)))


def _sides(image_processor: Any) -> list[int]:
    """Lengths in pixels that an image processor names: sizes, crops and grids of tiles."""
    sizes = [dict(getattr(image_processor, name, None) or {}) for name in ("size", "crop_size")]
    grid = getattr(image_processor, "image_grid_pinpoints", None) or ()
    return [side for named in (*(size.values() for size in sizes), *grid) for side in named if side]
