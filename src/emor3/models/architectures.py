"""All that emor3 knows of model families; no other file names one, and the rest of the package asks here.

A family whose processor, model and configuration keep to the common names needs no line of this file.
"""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from math import isqrt
from typing import Any

import torch
from torch import Tensor
from transformers import (
    FastVlmConfig,
    Gemma3Config,
    Idefics3Config,
    InternVLConfig,
    LlavaConfig,
    LlavaNextConfig,
    LlavaOnevisionConfig,
    PretrainedConfig,
    ProcessorMixin,
    Qwen2_5_VLConfig,
    Qwen2VLConfig,
    Qwen3_5Config,
    Qwen3_5MoeConfig,
    Qwen3VLConfig,
    Qwen3VLMoeConfig,
    SmolVLMConfig,
)
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.gemma4.processing_gemma4 import Gemma4Processor
from transformers.models.idefics3.processing_idefics3 import Idefics3Processor
from transformers.models.internvl.processing_internvl import InternVLProcessor
from transformers.models.llava_onevision.processing_llava_onevision import LlavaOnevisionProcessor
from transformers.models.qwen2_5_vl.processing_qwen2_5_vl import Qwen2_5_VLProcessor
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize
from transformers.models.qwen2_vl.processing_qwen2_vl import Qwen2VLProcessor
from transformers.models.qwen3_vl.processing_qwen3_vl import Qwen3VLProcessor
from transformers.models.smolvlm.processing_smolvlm import SmolVLMProcessor
from transformers.utils import ModelOutput

from emor3.errors import UserError
from emor3.models.settings import Part

# Parts of a model.

_PROJECTOR = r"(.*\.)?(merger|deepstack_merger_list|multi_modal_projector|connector|embed_vision)(\..*)?"
_VISION = r"(.*\.)?(visual|vision_tower|vision_model)(\..*)?"
PARTS: dict[Part, str] = {"vision": rf"(?!{_PROJECTOR}$){_VISION}", "projector": _PROJECTOR}
"""Patterns of the names of a part's modules and parameters in transformers; Qwen-VL's vision tower holds its merger."""


def language_model(core: torch.nn.Module) -> torch.nn.Module:
    """The part of a model, without its head, that reads words and images; Idefics 3 has another name for it."""
    return core.get_submodule("text_model" if hasattr(core, "text_model") else "language_model")


# Processors without torchvision, which transformers needs for their video part only.

VIDEO_PROCESSORS = {
    Qwen2VLProcessor: "Qwen2VLVideoProcessor",
    Qwen2_5_VLProcessor: "Qwen2VLVideoProcessor",
    Qwen3VLProcessor: "Qwen3VLVideoProcessor",
    LlavaOnevisionProcessor: "LlavaOnevisionVideoProcessor",
    InternVLProcessor: "InternVLVideoProcessor",
    Gemma4Processor: "Gemma4VideoProcessor",
}
"""Processor classes whose video part needs torchvision, and the class of that part."""
_VIDEO = "video_processor"


def _image_attributes(cls: type[ProcessorMixin]) -> list[str]:
    return [name for name in ProcessorMixin.get_attributes.__func__(cls) if name != _VIDEO]


def _without_video(init: Callable[..., None]) -> Callable[..., None]:
    """How a processor is made that has no video part, whether or not its class hands one over by name."""

    @functools.wraps(init)
    def made(self: ProcessorMixin, *args: Any, **kwargs: Any) -> None:
        if _VIDEO not in self.get_attributes():
            kwargs.pop(_VIDEO, None)
        init(self, *args, **kwargs)

    return made


if find_spec("torchvision") is None:
    ProcessorMixin.__init__ = _without_video(ProcessorMixin.__init__)
    for _processor_class in VIDEO_PROCESSORS:
        _processor_class.get_attributes = classmethod(_image_attributes)
        _made = _processor_class.__init__
        if inspect.signature(_made).parameters[_VIDEO].default is inspect.Parameter.empty:
            _made.__defaults__ = (None, *_made.__defaults__)  # some classes ask for one


def video_part(processor: ProcessorMixin, saved: Mapping[str, Any]) -> dict[str, Any] | None:
    """Settings of the video part that go with a processor's saved ones; None for a processor without one."""
    if (video_class := VIDEO_PROCESSORS.get(type(processor))) is None:
        return None
    shared = ("patch_size", "merge_size", "temporal_patch_size")  # of Qwen-VL; LLaVA-OneVision's are the class's own
    patches = {name: saved["image_processor"][name] for name in shared if name in saved["image_processor"]}
    return {"video_processor_type": video_class, **patches}


# Sizes of images.

SIZED_BY_AREA = (
    *(Qwen2VLProcessor, Qwen2_5_VLProcessor, Qwen3VLProcessor),
    *(Qwen2VLConfig, Qwen2_5_VLConfig, Qwen3VLConfig, Qwen3VLMoeConfig, Qwen3_5Config, Qwen3_5MoeConfig),
)
"""Qwen-VL scales an image to an area within bounds, and keeps its proportions; others scale, crop or tile to sides."""
IMAGE_MARKS = 2
"""Tokens before and after those of an image."""
TILE_MARKS_MOST = 4
"""At most so many tokens stand around those of a tile: two before it, an end of its row, an end of its image."""
VISION_WORDS = ("image", "video", "vision")
"""Each special token that stands for an image or a video, or marks one, has one of these in it."""
TILE_MARKS = r"<row_\d+_col_\d+>|<global-img>"
"""Tokens that Idefics 3 puts before the tiles of an image and before the whole of it, special or not."""


def is_sized_by_area(family: ProcessorMixin | PretrainedConfig) -> bool:
    """Whether the family of a processor or a configuration scales images to an area."""
    return isinstance(family, SIZED_BY_AREA)


def is_tiled(family: ProcessorMixin | PretrainedConfig) -> bool:
    """Whether the family of a processor or a configuration cuts images into a grid of square tiles, as Idefics 3 does.

    It scales every image to a longest side, cuts it, and adds the whole image in the size of a tile if there are
    several.
    """
    return isinstance(family, Idefics3Processor | Idefics3Config | SmolVLMProcessor | SmolVLMConfig)


def lays_tiles(family: ProcessorMixin | PretrainedConfig) -> bool:
    """Whether the family of a processor or a configuration cuts images into so many tiles at most, as InternVL does.

    It takes the grid whose proportions are nearest to the image's, and adds the whole image if it has several tiles.
    """
    return isinstance(family, InternVLProcessor | InternVLConfig)


def is_limited(family: ProcessorMixin | PretrainedConfig) -> bool:
    """Whether `model.max_pixels` limits the images that the family of a processor or a configuration makes."""
    return is_sized_by_area(family) or is_tiled(family) or lays_tiles(family)


def largest_area(processor: ProcessorMixin) -> int:
    """Pixels of the largest image that a processor makes, which `model.max_pixels` must be able to limit."""
    if lays_tiles(processor):
        tiles: int = processor.image_processor.max_patches
        return tiles * _tile(processor) ** 2
    side: int = processor.image_processor.size["longest_edge"]
    return side**2 if is_tiled(processor) else side


def _tile(processor: ProcessorMixin) -> int:
    """Pixels on the side of a tile of a processor that lays tiles."""
    side: int = processor.image_processor.size["height"]
    return side


def pixels_per_token(processor: ProcessorMixin) -> int:
    """Pixels of an image that one token stands for; the processor must size images by area."""
    side: int = processor.image_processor.patch_size * processor.image_processor.merge_size
    return side**2


def area_of_tokens(processor: ProcessorMixin, tokens: int) -> int | None:
    """Largest limit of pixels under which no image takes more tokens, marks aside; None if no limit does that."""
    if is_sized_by_area(processor):
        return max(tokens, 0) * pixels_per_token(processor) or None
    if lays_tiles(processor):
        tiles = tokens // processor.image_seq_length
        return (tiles - (tiles > 2) if tiles != 2 else 1) * _tile(processor) ** 2 or None
    if not is_tiled(processor):
        return None
    tiles = tokens // (processor.image_seq_len + TILE_MARKS_MOST)
    across = isqrt(max(tiles - 1, 0)) or min(max(tiles, 0), 1)  # beside several tiles stands the whole image
    return (across * int(processor.image_processor.max_image_size["longest_edge"])) ** 2 or None


def resized(size: tuple[int, int], processor: ProcessorMixin) -> tuple[int, int]:
    """Width and height that a processor makes of others; it must size images by area."""
    images, (width, height) = processor.image_processor, size
    least, most = images.size["shortest_edge"], images.size["longest_edge"]
    height, width = smart_resize(height, width, images.patch_size * images.merge_size, least, most)
    return width, height


def knows_image_tokens(processor: ProcessorMixin) -> bool:
    """Whether a processor tells all tokens of an image. Gemma's forget line breaks or marks, others tell none."""
    return isinstance(processor, (*VIDEO_PROCESSORS, Idefics3Processor)) and not isinstance(processor, Gemma4Processor)


def image_tokens(size: tuple[int, int], processor: ProcessorMixin) -> int:
    """Tokens that an image of this width and height takes in place of its placeholder, if the processor knows."""
    (tokens,) = processor._get_num_multimodal_tokens(image_sizes=[size[::-1]]).num_image_tokens
    return int(tokens)


def set_area(processor: ProcessorMixin, least: int, most: int) -> None:
    """Scale images to an area within these bounds from now on; the processor must size images by area."""
    size = processor.image_processor.size
    size["shortest_edge"], size["longest_edge"] = least, most  # Qwen-VL's names for what are areas in pixels


def limit_pixels(processor: ProcessorMixin, max_pixels: int) -> None:
    """Scale images down to at most this area from now on; saved with the processor, so evaluation does the same.

    Square tiles are cut from the largest square of whole tiles that this area holds; of one tile, nothing is cut.
    InternVL lays as many tiles as this area holds at most.
    Raises UserError for processors that size images otherwise, and for less than a tile.
    """
    if not is_limited(processor):
        kind = type(processor).__name__
        raise UserError(
            f"model.max_pixels is for processors of Qwen-VL, Idefics 3 and InternVL, not {kind}: leave it out"
        )
    size = processor.image_processor.size
    if is_sized_by_area(processor):
        set_area(processor, min(size["shortest_edge"], max_pixels), max_pixels)
    elif lays_tiles(processor):
        images, tile = processor.image_processor, _tile(processor)
        _tiles_across(max_pixels, tile)  # raises if it holds none
        images.max_patches = min(images.max_patches, max_pixels // tile**2)
    else:
        tiles = _tiles_across(max_pixels, tile := processor.image_processor.max_image_size["longest_edge"])
        size["longest_edge"] = min(size["longest_edge"], tiles * tile)


def _tiles_across(area: int, tile: int) -> int:
    """Tiles on a side of the largest square of them in an area. Raises UserError if it holds none.

    >>> _tiles_across(1_500_000, 512)
    2
    """
    if area < tile**2:
        raise UserError(
            f"model.max_pixels {area}: the model sees tiles of {tile} x {tile} pixels, give {tile**2} or more"
        )
    return isqrt(area) // tile


def longest_side(processor: ProcessorMixin) -> int:
    """Longest side in pixels that a processor names as a size, a crop or a grid of tiles; 0 if it sizes by area."""
    if is_sized_by_area(processor):
        return 0
    images = processor.image_processor
    sizes = [dict(getattr(images, name, None) or {}) for name in ("size", "crop_size")]
    grid = getattr(images, "image_grid_pinpoints", None) or ()
    return max((side for sides in (*(size.values() for size in sizes), *grid) for side in sides if side), default=0)


# Inputs and outputs of models.

TILES_SHOWN = "pixel_attention_mask"
"""Input (B, tiles, H, W) of Idefics 3, beside pixels (B, tiles, 3, H, W): zero in the tiles that fill up a row."""
_SIZES = "image_sizes"
"""Input (images, 2) of the LLaVA family, beside pixels (images, tiles, 3, H, W) in those that cut images."""
IMAGE_INPUTS = {"pixel_values", "image_grid_thw", "image_position_ids", _SIZES, TILES_SHOWN}
SHAREABLE_INPUTS = {"input_ids", "attention_mask", "mm_token_type_ids", "token_type_ids"} | IMAGE_INPUTS
"""Inputs of a model that can be split by row, as a rule (`can_be_split`); prompts with others share no prefill."""
IMAGES_OF_TILES = "batch_num_images"
"""Input of LLaVA-OneVision: how many images each row has, whatever the number of tiles."""


def can_be_split(inputs: Mapping[str, Any]) -> bool:
    """Whether it is known which rows the inputs of a model belong to, given `num_images` (N,) of N rows among them.

    InternVL lays the tiles of all images one after the other, and does not say how many each has:

    >>> can_be_split({"pixel_values": torch.zeros(3, 3, 8, 8), "num_images": [1, 2]})
    True
    >>> can_be_split({"pixel_values": torch.zeros(5, 3, 8, 8), "num_images": [1, 2]})
    False
    """
    if not inputs.keys() <= SHAREABLE_INPUTS | {"num_images"}:
        return False
    pixels = inputs.get("pixel_values")
    if pixels is None or "image_grid_thw" in inputs or TILES_SHOWN in inputs:
        return True
    # Pixels of Pixtral, too, come with sizes, but padded to the largest image of a batch.
    return len(pixels) == sum(inputs["num_images"]) and (_SIZES not in inputs or pixels.ndim == 5)


def split_images(inputs: Mapping[str, Any]) -> list[dict[str, Tensor]]:
    """Image inputs of each of N rows with `num_images` (N,) images each: pixels, and what the model has beside them.

    A row without images has none of them. Qwen-VL's pixels are rows of patches, as many as the grids say:

    >>> grids = torch.tensor([[1, 2, 2], [1, 2, 4]])
    >>> rows = split_images({"pixel_values": torch.zeros(12, 6), "image_grid_thw": grids, "num_images": [1, 0, 1]})
    >>> [len(row["pixel_values"]) if row else None for row in rows]
    [4, None, 8]

    Tiles are given by row already, all rows with as many as the one that has most:

    >>> shown = torch.tensor([[1, 0, 0], [1, 1, 1]])[..., None, None]
    >>> rows = split_images({"pixel_values": torch.zeros(2, 3, 3, 1, 1), TILES_SHOWN: shown, "num_images": [1, 1]})
    >>> [row["pixel_values"].shape[1] for row in rows]
    [1, 3]
    """
    counts = inputs["num_images"]
    if "pixel_values" not in inputs:
        return [{} for _ in counts]
    if TILES_SHOWN in inputs:
        shown = inputs[TILES_SHOWN].flatten(2).any(2)
        rows = [
            {name: inputs[name][row : row + 1, shown[row]] for name in ("pixel_values", TILES_SHOWN)}
            for row in range(len(counts))
        ]
    elif "image_grid_thw" not in inputs:
        named = {name: inputs[name].split(counts) for name in inputs if name in IMAGE_INPUTS}
        rows = [{name: value[row] for name, value in named.items()} for row in range(len(counts))]
    else:
        grids = inputs["image_grid_thw"].split(counts)
        pixels = inputs["pixel_values"].split([int(grid.prod(1).sum()) for grid in grids])
        rows = [{"pixel_values": p, "image_grid_thw": g} for p, g in zip(pixels, grids, strict=True)]
    return [row if count else {} for row, count in zip(rows, counts, strict=True)]


def join_images(rows: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The image inputs of several rows as those of one batch; nothing if no row has an image."""
    shown = [row for row in rows if row]
    return {name: _concatenated([row[name] for row in shown]) for name in (shown[0] if shown else ())}


def _concatenated(values: Sequence[Tensor]) -> Tensor:
    """Inputs of rows one below the other; rows with fewer tiles are filled up with blank ones."""
    most = max(value.shape[1] for value in values)
    return torch.cat([_widened(value, most) for value in values])


def _widened(value: Tensor, tiles: int) -> Tensor:
    return torch.nn.functional.pad(value, (0, 0) * (value.ndim - 2) + (0, tiles - value.shape[1]))


def as_many_tiles(*batches: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Batches of which rows are exchanged, with as many tiles each; others as they are."""
    most = max((batch[TILES_SHOWN].shape[1] for batch in batches if TILES_SHOWN in batch), default=0)
    tiled = {"pixel_values", TILES_SHOWN} if most else set()
    return [{key: _widened(value, most) if key in tiled else value for key, value in b.items()} for b in batches]


def images_of_call(arguments: Mapping[str, Any]) -> tuple[list[dict[str, Tensor]], dict[str, Any]] | None:
    """Inputs of each image in a call of `get_image_features`, and its settings; None if images are not of one size.

    LLaVA gives its images' sizes if its vision tower is Pixtral, which pads them. All tiles of a row are one image
    here, and a row without any is left out, of which the model takes nothing either.
    """
    given = {name: value for name, value in arguments.items() if value is not None}
    if "image_sizes" in given:
        return None
    inputs = {name: given.pop(name) for name in IMAGE_INPUTS & given.keys()}
    count = len(inputs.get("image_grid_thw", inputs["pixel_values"]))
    rows = split_images({**inputs, "num_images": [1] * count})
    return [row for row in rows if row["pixel_values"].numel()], given


def cuts_tiles(config: PretrainedConfig) -> bool:
    """Whether a model takes an image as a number of tiles that is told beside them, as LLaVA-OneVision does."""
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
FLEX = "emor3_flex"
"""Attention by SDPA, and by FlexAttention where a mask is one of blocks (`emor3.models.packing.blocks`)."""
_ATTENTIONS = {"eager", "sdpa", FLEX}
"""Attention that takes any mask and was tested with ours; flash attention knows causal ones only."""
_BY_KIND = (Qwen2VLConfig, Qwen2_5_VLConfig, Gemma3Config)
"""Families that take a mask for each kind of layer; others take one for all."""
_WRAPPERS = (
    *(LlavaConfig, LlavaNextConfig, LlavaOnevisionConfig, FastVlmConfig),
    *(Idefics3Config, SmolVLMConfig, InternVLConfig),
)
"""Families around any language model, of which these pass on masks and positions as they are given."""
_WRAPPED = {"llama", "mistral", "qwen2"}


def layer_kinds(text: PretrainedConfig) -> set[str]:
    """Kinds of layers of a language model."""
    kinds = getattr(text, "layer_types", None)
    return set(kinds or [SLIDING if getattr(text, "sliding_window", None) else FULL])


def overwrites_states(config: PretrainedConfig) -> bool:
    """Whether a cache holds states that each token overwrites, as linear attention does: no gradient gets through."""
    return not layer_kinds(config.get_text_config()) <= {FULL, SLIDING}


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

SMALL_MODEL = "HuggingFaceTB/SmolVLM-256M-Instruct"
"""The model for photographs on a laptop: SmolVLM, an Idefics 3 (Apache-2.0, arXiv 2504.05299).

Chosen by its size and because its processor needs neither torchvision nor num2words, as that of SmolVLM 2 does, whose
weights are also float32 on the hub (1.03 GB). The sizes below are those of its config.json and of its list of files on
the hub; tests go through its architecture with random weights, its own have never been run here.
"""
SMALL_DOWNLOAD = 518_000_000
"""Bytes to fetch of it: model.safetensors 513 MB, tokenizer.json 3.55 MB, vocab.json 0.80 MB, merges.txt 0.47 MB."""


def download_text(name: str) -> str:
    """What a person should know before the hub's small model is fetched: its licence and size; "" for other models."""
    return f"Apache-2.0, {SMALL_DOWNLOAD / 1e6:.0f} MB to fetch once" if name == SMALL_MODEL else ""


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
    SMALL_MODEL: {
        "text_config": {"model_type": "llama", "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30}
        | {"num_attention_heads": 9, "num_key_value_heads": 3, "head_dim": 64, "vocab_size": 49280}
        | {"max_position_embeddings": 8192, "pad_token_id": 2},
        "vision_config": {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12}
        | {"num_attention_heads": 12, "image_size": 512, "patch_size": 16},
        "scale_factor": 4,
        "image_token_id": 49190,
    },
}
"""Configurations of the paper's models and the small one by hub name, so that a plan needs no network."""
PUBLISHED_AREA = 12_845_056
"""Pixels of the largest image of the published Qwen2.5-VL checkpoints: 16,384 tokens."""
PUBLISHED_ACROSS = 4
"""Tiles on the longest side of every image in published checkpoints of Idefics 3 and SmolVLM."""
PUBLISHED_TILES = 12
"""Tiles of the largest image in published checkpoints of InternVL 3, beside the whole of it."""


def published_config(name: str) -> PretrainedConfig | None:
    """Configuration of one of the paper's models, or of the small one; None for another name."""
    kind = Idefics3Config if name == SMALL_MODEL else Qwen2_5_VLConfig
    return kind(**PUBLISHED[name], dtype="bfloat16") if name in PUBLISHED else None


def vision_sizes(config: PretrainedConfig) -> tuple[int, int, int]:
    """Layers of a vision tower, the width of its residual stream and that of its feed-forward."""
    vision = config.vision_config
    layers = vision.depth if is_sized_by_area(config) else vision.num_hidden_layers
    if isinstance(config, Qwen2VLConfig):  # its hidden size is that of the language model
        return layers, vision.embed_dim, vision.embed_dim * vision.mlp_ratio
    return layers, vision.hidden_size, vision.intermediate_size


def largest_image(config: PretrainedConfig, area: int | None) -> tuple[int, int]:
    """Tokens and patches of the largest image: one of `area` pixels if `model.max_pixels` limits its images.

    Raises UserError if the configuration does not tell them.
    """
    vision = config.vision_config
    if is_tiled(config):
        across = PUBLISHED_ACROSS if area is None else _tiles_across(area, vision.image_size)
        tiles = across**2 + (across > 1)
        patches = (vision.image_size // vision.patch_size) ** 2
        return tiles * patches // config.scale_factor**2, tiles * patches
    if lays_tiles(config):
        side = vision.image_size[0]
        most = PUBLISHED_TILES if area is None else max(area // side**2, 1)
        tiles = most + (most > 1)
        return tiles * config.image_seq_length, tiles * (side // vision.patch_size[0]) ** 2
    if not is_sized_by_area(config):
        tokens = getattr(config, "mm_tokens_per_image", getattr(config, "image_seq_length", None))  # Gemma 3's, LLaVA's
        if tokens is None:
            raise UserError(f"a plan cannot tell how many tokens an image of {config.model_type} has")
        return tokens, (vision.image_size // vision.patch_size) ** 2
    patches = (area or PUBLISHED_AREA) // vision.patch_size**2
    return patches // vision.spatial_merge_size**2, patches
