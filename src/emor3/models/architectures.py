"""All that emor3 knows of model families; no other file names one, and the rest of the package asks here.

A family whose processor, model and configuration keep to the common names needs no line of this file.
"""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from transformers import (
    Gemma3Config,
    LlavaConfig,
    LlavaOnevisionConfig,
    PretrainedConfig,
    ProcessorMixin,
    Qwen2_5_VLConfig,
    Qwen3VLConfig,
)
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.llava_onevision.processing_llava_onevision import LlavaOnevisionProcessor
from transformers.models.qwen2_5_vl.processing_qwen2_5_vl import Qwen2_5_VLProcessor
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize
from transformers.models.qwen2_vl.processing_qwen2_vl import Qwen2VLProcessor
from transformers.models.qwen3_vl.processing_qwen3_vl import Qwen3VLProcessor
from transformers.utils import ModelOutput

from emor3.errors import UserError
from emor3.models.settings import Part

# Parts of a model.

_PROJECTOR = r"(.*\.)?(merger|deepstack_merger_list|multi_modal_projector)(\..*)?"
_VISION = r"(.*\.)?(visual|vision_tower|vision_model)(\..*)?"
PARTS: dict[Part, str] = {"vision": rf"(?!{_PROJECTOR}$){_VISION}", "projector": _PROJECTOR}
"""Patterns of the names of a part's modules and parameters in transformers; Qwen-VL's vision tower holds its merger."""

# Processors without torchvision, which transformers needs for their video part only.

VIDEO_PROCESSORS = {
    Qwen2VLProcessor: "Qwen2VLVideoProcessor",
    Qwen2_5_VLProcessor: "Qwen2VLVideoProcessor",
    Qwen3VLProcessor: "Qwen3VLVideoProcessor",
    LlavaOnevisionProcessor: "LlavaOnevisionVideoProcessor",
}
"""Processor classes whose video part needs torchvision, and the class of that part."""


def _image_attributes(cls: type[ProcessorMixin]) -> list[str]:
    return [name for name in ProcessorMixin.get_attributes.__func__(cls) if name != "video_processor"]


if find_spec("torchvision") is None:
    for _processor_class in VIDEO_PROCESSORS:
        _processor_class.get_attributes = classmethod(_image_attributes)


def video_part(processor: ProcessorMixin, saved: Mapping[str, Any]) -> dict[str, Any] | None:
    """Settings of the video part that go with a processor's saved ones; None for a processor without one."""
    if (video_class := VIDEO_PROCESSORS.get(type(processor))) is None:
        return None
    shared = ("patch_size", "merge_size", "temporal_patch_size")  # of Qwen-VL; LLaVA-OneVision's are the class's own
    patches = {name: saved["image_processor"][name] for name in shared if name in saved["image_processor"]}
    return {"video_processor_type": video_class, **patches}


# Sizes of images.

SIZED_BY_AREA = (Qwen2VLProcessor, Qwen2_5_VLProcessor, Qwen3VLProcessor, Qwen2_5_VLConfig, Qwen3VLConfig)
"""Qwen-VL scales an image to an area within bounds, and keeps its proportions; others scale, crop or tile to sides."""
IMAGE_MARKS = 2
"""Tokens before and after those of an image."""
VISION_WORDS = ("image", "video", "vision")
"""Each special token that stands for an image or a video, or marks one, has one of these in it."""


def is_sized_by_area(family: ProcessorMixin | PretrainedConfig) -> bool:
    """Whether the family of a processor or a configuration scales images to an area."""
    return isinstance(family, SIZED_BY_AREA)


def largest_area(processor: ProcessorMixin) -> int:
    """Pixels of the largest image that a processor makes; it must size images by area."""
    area: int = processor.image_processor.size["longest_edge"]
    return area


def pixels_per_token(processor: ProcessorMixin) -> int:
    """Pixels of an image that one token stands for; the processor must size images by area."""
    side: int = processor.image_processor.patch_size * processor.image_processor.merge_size
    return side**2


def resized(size: tuple[int, int], processor: ProcessorMixin) -> tuple[int, int]:
    """Width and height that a processor makes of others; it must size images by area."""
    images, (width, height) = processor.image_processor, size
    least, most = images.size["shortest_edge"], images.size["longest_edge"]
    height, width = smart_resize(height, width, images.patch_size * images.merge_size, least, most)
    return width, height


def image_tokens(size: tuple[int, int], processor: ProcessorMixin) -> int:
    """Tokens that an image of this width and height has in a prompt, without opening it."""
    (tokens,) = processor._get_num_multimodal_tokens(image_sizes=[size[::-1]]).num_image_tokens
    return int(tokens)


def set_area(processor: ProcessorMixin, least: int, most: int) -> None:
    """Scale images to an area within these bounds from now on; the processor must size images by area."""
    size = processor.image_processor.size
    size["shortest_edge"], size["longest_edge"] = least, most  # Qwen-VL's names for what are areas in pixels


def limit_pixels(processor: ProcessorMixin, max_pixels: int) -> None:
    """Scale images down to at most this area from now on; saved with the processor, so evaluation does the same.

    Raises UserError for processors that size images otherwise.
    """
    if not is_sized_by_area(processor):
        raise UserError(f"model.max_pixels is for Qwen-VL processors, not {type(processor).__name__}: leave it out")
    set_area(processor, min(processor.image_processor.size["shortest_edge"], max_pixels), max_pixels)


def longest_side(processor: ProcessorMixin) -> int:
    """Longest side in pixels that a processor names as a size, a crop or a grid of tiles; 0 if it sizes by area."""
    if is_sized_by_area(processor):
        return 0
    images = processor.image_processor
    sizes = [dict(getattr(images, name, None) or {}) for name in ("size", "crop_size")]
    grid = getattr(images, "image_grid_pinpoints", None) or ()
    return max((side for sides in (*(size.values() for size in sizes), *grid) for side in sides if side), default=0)


# Inputs and outputs of models.

IMAGE_INPUTS = {"pixel_values", "image_grid_thw"}
SHAREABLE_INPUTS = {"input_ids", "attention_mask", "mm_token_type_ids", "token_type_ids"} | IMAGE_INPUTS
"""Inputs of a model that can be split by row; prompts with others (tiles, crops) share no prefill."""
IMAGES_OF_TILES = "batch_num_images"
"""Input of LLaVA-OneVision: how many images each row has, whatever the number of tiles."""


def split_images(inputs: Mapping[str, Any]) -> list[dict[str, Tensor]]:
    """Image inputs of each of N rows with `num_images` (N,) images each: pixels, and patch grid if the model has one.

    A row without images has none of them. Qwen-VL's pixels are rows of patches, as many as the grids say:

    >>> grids = torch.tensor([[1, 2, 2], [1, 2, 4]])
    >>> rows = split_images({"pixel_values": torch.zeros(12, 6), "image_grid_thw": grids, "num_images": [1, 0, 1]})
    >>> [len(row["pixel_values"]) if row else None for row in rows]
    [4, None, 8]
    """
    counts = inputs["num_images"]
    if "pixel_values" not in inputs:
        return [{} for _ in counts]
    if "image_grid_thw" not in inputs:
        rows = [{"pixel_values": pixels} for pixels in inputs["pixel_values"].split(counts)]
    else:
        grids = inputs["image_grid_thw"].split(counts)
        pixels = inputs["pixel_values"].split([int(grid.prod(1).sum()) for grid in grids])
        rows = [{"pixel_values": p, "image_grid_thw": g} for p, g in zip(pixels, grids, strict=True)]
    return [row if count else {} for row, count in zip(rows, counts, strict=True)]


def join_images(rows: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The image inputs of several rows as those of one batch; nothing if no row has an image."""
    shown = [row for row in rows if row]
    return {name: torch.cat([row[name] for row in shown]) for name in (shown[0] if shown else ())}


def images_of_call(
    pixel_values: Tensor, image_grid_thw: Tensor | None = None, image_sizes: Any = None, **settings: Any
) -> tuple[list[dict[str, Tensor]], dict[str, Any]] | None:
    """Inputs of each image in a call of `get_image_features`, and its settings; None if images are not of one size.

    LLaVA gives its images' sizes if its vision tower is Pixtral, which pads them.
    """
    if image_sizes is not None:
        return None
    inputs = {"pixel_values": pixel_values} | ({} if image_grid_thw is None else {"image_grid_thw": image_grid_thw})
    count = len(pixel_values if image_grid_thw is None else image_grid_thw)
    return split_images({**inputs, "num_images": [1] * count}), settings


def cuts_tiles(config: PretrainedConfig) -> bool:
    """Whether a model sees an image as a number of tiles or crops, as LLaVA-OneVision does."""
    return getattr(config, "image_grid_pinpoints", None) is not None


def images_encoded(args: Sequence[Tensor], kwargs: Mapping[str, Tensor]) -> int:
    """How many images a call of a vision tower encodes; Qwen-VL's has one row of the grid for each, many of pixels."""
    images = kwargs.get("grid_thw", kwargs.get("pixel_values"))
    return len(args[0] if images is None else images)


def image_features(pooled: Any, deep: Sequence[Any]) -> ModelOutput:
    """What `get_image_features` gives: embeddings in place of an image's tokens, and those of deeper layers."""
    features = BaseModelOutputWithPooling(pooler_output=pooled)
    if deep:
        features["deepstack_features"] = deep
    return features


def deepstack_features(features: Any) -> Sequence[Any]:
    """What vision adds in deeper layers of the language model, by layer and image (Qwen3-VL); empty for others."""
    return getattr(features, "deepstack_features", None) or ()


# Masks of models.

FULL, SLIDING = "full_attention", "sliding_attention"
"""Kinds of layers, as transformers names them."""
_ATTENTIONS = {"eager", "sdpa"}
"""Attention that takes any mask and was tested with ours; flash attention knows causal ones only."""
_BY_KIND = (Qwen2_5_VLConfig, Gemma3Config)
"""Families that take a mask for each kind of layer; others take one for all."""
_WRAPPERS = (LlavaConfig, LlavaOnevisionConfig)
"""Families around any language model, of which these pass on masks and positions as they are given."""
_WRAPPED = {"llama", "mistral", "qwen2"}


def layer_kinds(text: PretrainedConfig) -> set[str]:
    """Kinds of layers of a language model."""
    kinds = getattr(text, "layer_types", None)
    return set(kinds or [SLIDING if getattr(text, "sliding_window", None) else FULL])


def takes_masks(config: PretrainedConfig) -> bool:
    """Whether a model is known to use the masks and positions that it is given, and nothing else."""
    text = config.get_text_config()
    known = isinstance(config, (*_BY_KIND, Qwen3VLConfig))
    known |= isinstance(config, _WRAPPERS) and text.model_type in _WRAPPED
    kinds = {FULL, SLIDING} if isinstance(config, _BY_KIND) else {FULL}
    return known and text._attn_implementation in _ATTENTIONS and layer_kinds(text) <= kinds


def mask_input(config: PretrainedConfig, masks: Mapping[str, Tensor]) -> Tensor | dict[str, Tensor]:
    """Masks by kind of layer, as a model takes them."""
    return dict(masks) if isinstance(config, _BY_KIND) else masks[FULL]


def image_blocks(config: PretrainedConfig, types: Mapping[str, Tensor]) -> Tensor | None:
    """Number of the image (B, L) inside which tokens see each other both ways, -1 for none; None if no model does so.

    `types` are the inputs that tell types of tokens. Gemma 3 does so.
    """
    if not isinstance(config, Gemma3Config) or "token_type_ids" not in types:
        return None
    shown = types["token_type_ids"] == 1
    begins = shown & ~torch.nn.functional.pad(shown, (1, 0))[:, :-1]
    return torch.where(shown, begins.cumsum(1) - 1, -1)


# Sizes of models.

_VISION_SIZES = {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "patch_size": 14}
PUBLISHED: dict[str, dict[str, Any]] = {
    "Qwen/Qwen2.5-VL-3B-Instruct": {
        "text_config": {"hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36}
        | {"num_attention_heads": 16, "num_key_value_heads": 2, "vocab_size": 151936},
        "vision_config": _VISION_SIZES | {"out_hidden_size": 2048},
        "tie_word_embeddings": True,
    },
    "Qwen/Qwen2.5-VL-7B-Instruct": {
        "text_config": {"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28}
        | {"num_attention_heads": 28, "num_key_value_heads": 4, "vocab_size": 152064},
        "vision_config": _VISION_SIZES | {"out_hidden_size": 3584},
        "tie_word_embeddings": False,
    },
}
"""Configurations of the paper's models by hub name, so that a plan needs no network."""
PUBLISHED_AREA = 12_845_056
"""Pixels of the largest image of the published Qwen2.5-VL checkpoints: 16,384 tokens."""


def published_config(name: str) -> PretrainedConfig | None:
    """Configuration of one of the paper's models; None for another name."""
    return Qwen2_5_VLConfig(**PUBLISHED[name], dtype="bfloat16") if name in PUBLISHED else None


def vision_sizes(config: PretrainedConfig) -> tuple[int, int, int]:
    """Layers of a vision tower, the width of its residual stream and that of its feed-forward."""
    vision = config.vision_config
    layers = vision.depth if is_sized_by_area(config) else vision.num_hidden_layers
    return layers, vision.hidden_size, vision.intermediate_size


def largest_image(config: PretrainedConfig, area: int | None) -> tuple[int, int]:
    """Tokens and patches of the largest image: one of `area` pixels if images are sized by area.

    Raises UserError if the configuration does not tell them.
    """
    vision = config.vision_config
    if not is_sized_by_area(config):
        tokens = getattr(config, "mm_tokens_per_image", getattr(config, "image_seq_length", None))  # Gemma 3's, LLaVA's
        if tokens is None:
            raise UserError(f"a plan cannot tell how many tokens an image of {config.model_type} has")
        return tokens, (vision.image_size // vision.patch_size) ** 2
    patches = (area or PUBLISHED_AREA) // vision.patch_size**2
    return patches // vision.spatial_merge_size**2, patches
