"""Tiny checkpoints with random weights of the architectures we support, built from their configurations."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForImageTextToText,
    Gemma3Config,
    Gemma3ImageProcessorPil,
    Gemma3Processor,
    Idefics3Config,
    Idefics3ImageProcessorPil,
    Idefics3Processor,
    LlavaConfig,
    LlavaImageProcessorPil,
    LlavaOnevisionConfig,
    LlavaOnevisionProcessor,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    Qwen3VLConfig,
)
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import LlavaOnevisionImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.qwen3_vl.processing_qwen3_vl import Qwen3VLProcessor

from build_tiny import tokenizer_texts
from emor3.models.checkpoints import save
from family_parts import SHOWN, TEXT, VISION, special_ids, with_tokens
from further_architectures import FURTHER, NEEDS, ROPE
from tiny_model import CHAT_TEMPLATE, build_model, build_processor, build_tokenizer, video


def write_checkpoint(name: str, folder: Path) -> None:
    """Write the tiny checkpoint of an architecture with the fast tokenizer of the embedded model."""
    torch.manual_seed(0)
    model, processor = ALL[name](build_tokenizer(tokenizer_texts(100), vocab_size=500))
    model.generation_config.eos_token_id = processor.tokenizer.eos_token_id
    model.generation_config.pad_token_id = processor.tokenizer.pad_token_id
    save(model, processor, folder)


def of_qwen2_5_vl(tokenizer: PreTrainedTokenizerFast) -> tuple[Any, ...]:
    return build_model(tokenizer), build_processor(tokenizer)


def of_qwen3_vl(tokenizer: PreTrainedTokenizerFast) -> tuple[Any, ...]:
    config = Qwen3VLConfig(
        text_config=TEXT | special_ids(tokenizer) | {"rope_parameters": ROPE | {"mrope_interleaved": True}},
        vision_config={"depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "patch_size": 8}
        | {"out_hidden_size": 32, "num_position_embeddings": 64, "deepstack_visual_indexes": [0]},
        image_token_id=tokenizer.convert_tokens_to_ids("<|image_pad|>"),
        video_token_id=tokenizer.convert_tokens_to_ids("<|video_pad|>"),
        vision_start_token_id=tokenizer.convert_tokens_to_ids("<|vision_start|>"),
        vision_end_token_id=tokenizer.convert_tokens_to_ids("<|vision_end|>"),
        tie_word_embeddings=True,
    )
    images = Qwen2VLImageProcessorPil(
        patch_size=8, merge_size=2, temporal_patch_size=2, size={"shortest_edge": 4096, "longest_edge": 4096}
    )
    parts = {"image_processor": images, "tokenizer": tokenizer, **video(Qwen3VLProcessor, patch_size=8)}
    processor = Qwen3VLProcessor(**parts, chat_template=CHAT_TEMPLATE)
    return AutoModelForImageTextToText.from_config(config), processor


def of_llava(tokenizer: PreTrainedTokenizerFast) -> tuple[Any, ...]:
    tokenizer = with_tokens(tokenizer, image_token="<image>")
    config = LlavaConfig(
        text_config={"model_type": "llama"} | TEXT | special_ids(tokenizer),
        vision_config={"model_type": "clip_vision_model"} | VISION,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=16,
        vision_feature_layer=-1,
    )
    processor = LlavaProcessor(
        image_processor=LlavaImageProcessorPil(size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64}),
        tokenizer=tokenizer,
        patch_size=16,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,  # CLIP's class token, which "default" leaves out again
        chat_template=CHAT_TEMPLATE.replace(SHOWN, "<image>\n"),
    )
    return AutoModelForImageTextToText.from_config(config), processor


def of_llava_onevision(tokenizer: PreTrainedTokenizerFast) -> tuple[Any, ...]:
    tokenizer = with_tokens(tokenizer, image_token="<image>", video_token="<video>")
    tiles = [[64, 64], [64, 128], [128, 64]]
    config = LlavaOnevisionConfig(
        text_config={"model_type": "qwen2"} | TEXT | special_ids(tokenizer),
        vision_config={"model_type": "siglip_vision_model"} | VISION | {"vision_use_head": False},
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=tiles,
    )
    processor = LlavaOnevisionProcessor(
        image_processor=LlavaOnevisionImageProcessorPil(size={"height": 64, "width": 64}, image_grid_pinpoints=tiles),
        tokenizer=tokenizer,
        **video(LlavaOnevisionProcessor),
        num_image_tokens=16,
        vision_feature_select_strategy="full",
        chat_template=CHAT_TEMPLATE.replace(SHOWN, "<image>\n"),
    )
    return AutoModelForImageTextToText.from_config(config), processor


def of_gemma3(tokenizer: PreTrainedTokenizerFast) -> tuple[Any, ...]:
    """With a sliding layer and a full one, which sees the image also from behind the window."""
    tokenizer = with_tokens(
        tokenizer, image_token="<image_soft_token>", boi_token="<start_of_image>", eoi_token="<end_of_image>"
    )
    layers = {"sliding_window": 64, "layer_types": ["sliding_attention", "full_attention"], "query_pre_attn_scalar": 8}
    config = Gemma3Config(
        text_config=TEXT | special_ids(tokenizer) | layers,
        vision_config=VISION | {"model_type": "siglip_vision_model"},
        mm_tokens_per_image=4,
        boi_token_index=tokenizer.convert_tokens_to_ids("<start_of_image>"),
        eoi_token_index=tokenizer.convert_tokens_to_ids("<end_of_image>"),
        image_token_index=tokenizer.convert_tokens_to_ids("<image_soft_token>"),
    )
    processor = Gemma3Processor(
        image_processor=Gemma3ImageProcessorPil(size={"height": 64, "width": 64}),
        tokenizer=tokenizer,
        image_seq_length=4,
        chat_template="{{ bos_token }}" + CHAT_TEMPLATE.replace(SHOWN, "<start_of_image>"),
    )
    model = AutoModelForImageTextToText.from_config(config)
    torch.nn.init.normal_(model.model.multi_modal_projector.mm_input_projection_weight)  # zero: the picture is lost
    return model, processor


def of_idefics3(tokenizer: PreTrainedTokenizerFast) -> tuple[Any, ...]:
    """With an image of four tiles and the whole of it, or two if it is wide or tall, as SmolVLM's 17 in small."""
    marks = {f"row_{row}_col_{column}": f"<row_{row}_col_{column}>" for row in (1, 2) for column in (1, 2)}
    marks |= {"fake_image_token": "<fake_token_around_image>", "global_image_token": "<global-img>"}
    tokenizer = with_tokens(tokenizer, image_token="<image>", end_of_utterance_token="<end_of_utterance>", **marks)
    config = Idefics3Config(
        text_config={"model_type": "llama"} | TEXT | special_ids(tokenizer),
        vision_config=VISION,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=2,
    )
    processor = Idefics3Processor(
        image_processor=Idefics3ImageProcessorPil(size={"longest_edge": 128}, max_image_size={"longest_edge": 64}),
        tokenizer=tokenizer,
        image_seq_len=4,
        chat_template=CHAT_TEMPLATE.replace(SHOWN, "<image>"),
    )
    return AutoModelForImageTextToText.from_config(config), processor


BUILDERS = {"qwen2_5_vl": of_qwen2_5_vl, "qwen3_vl": of_qwen3_vl, "gemma3": of_gemma3}
BUILDERS |= {"llava": of_llava, "llava_onevision": of_llava_onevision, "idefics3": of_idefics3}
"""Those that all tests of architectures go through."""
ALL = BUILDERS | FURTHER
HERE = [name for name in ALL if all(map(find_spec, NEEDS.get(name, ())))]
"""Those for which all that transformers needs is installed."""
