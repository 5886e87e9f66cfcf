"""Tiny checkpoints of further families, which take one path through everything (`tests/models/test_families.py`)."""

from typing import Any

import torch
from transformers import (
    AutoModelForImageTextToText,
    Gemma4AudioFeatureExtractor,
    Gemma4Config,
    Gemma4ImageProcessorPil,
    Gemma4Processor,
    GotOcr2ImageProcessorPil,
    InternVLConfig,
    InternVLProcessor,
    LlavaNextConfig,
    LlavaNextImageProcessorPil,
    LlavaNextProcessor,
    PaliGemmaConfig,
    PaliGemmaProcessor,
    PreTrainedTokenizerFast,
    Qwen2VLConfig,
    Qwen3_5Config,
    SiglipImageProcessorPil,
    SmolVLMConfig,
    SmolVLMImageProcessorPil,
    SmolVLMProcessor,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.qwen2_vl.processing_qwen2_vl import Qwen2VLProcessor
from transformers.models.qwen3_vl.processing_qwen3_vl import Qwen3VLProcessor

from family_parts import SHOWN, TEXT, VISION, special_ids, with_tokens
from tiny_model import CHAT_TEMPLATE, video

NEEDS = {
    "smolvlm": ("torchvision", "num2words"),
    "lfm2_vl": ("torchvision",),
    "fast_vlm": ("timm",),
    "gemma3n": ("timm",),
}
"""Packages that transformers needs for a family, where they are no part of the tests' environment."""
ROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]}


def of_qwen2_vl(tokenizer: PreTrainedTokenizerFast) -> tuple[Any, ...]:
    config = Qwen2VLConfig(
        text_config=TEXT | special_ids(tokenizer) | {"rope_parameters": ROPE},
        vision_config={"depth": 2, "embed_dim": 32, "hidden_size": 32, "num_heads": 2, "mlp_ratio": 2, "patch_size": 8},
        **_qwen_ids(tokenizer),
        tie_word_embeddings=True,
    )
    parts = {"image_processor": _qwen_images(), "tokenizer": tokenizer, **video(Qwen2VLProcessor, patch_size=8)}
    processor = Qwen2VLProcessor(**parts, chat_template=CHAT_TEMPLATE)
    return AutoModelForImageTextToText.from_config(config), processor


def of_qwen3_5(tokenizer: PreTrainedTokenizerFast) -> tuple[Any, ...]:
    """With a layer of linear attention and one of full attention."""
    linear = {"linear_key_head_dim": 8, "linear_value_head_dim": 8, "linear_num_key_heads": 2}
    linear |= {"linear_num_value_heads": 4, "layer_types": ["linear_attention", "full_attention"]}
    rope = ROPE | {"partial_rotary_factor": 0.5}
    config = Qwen3_5Config(
        text_config=TEXT | special_ids(tokenizer) | linear | {"head_dim": 16, "rope_parameters": rope},
        vision_config={"depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "patch_size": 8}
        | {"out_hidden_size": 32, "num_position_embeddings": 64},
        **_qwen_ids(tokenizer),
        tie_word_embeddings=True,
    )
    parts = {"image_processor": _qwen_images(), "tokenizer": tokenizer, **video(Qwen3VLProcessor, patch_size=8)}
    processor = Qwen3VLProcessor(**parts, chat_template=CHAT_TEMPLATE)
    return AutoModelForImageTextToText.from_config(config), processor


def _qwen_images() -> Any:
    return Qwen2VLImageProcessorPil(
        patch_size=8, merge_size=2, temporal_patch_size=2, size={"shortest_edge": 4096, "longest_edge": 4096}
    )


def _qwen_ids(tokenizer: PreTrainedTokenizerFast) -> dict[str, int]:
    names = {"image_token_id": "image_pad", "video_token_id": "video_pad"}
    names |= {"vision_start_token_id": "vision_start", "vision_end_token_id": "vision_end"}
    return {name: tokenizer.convert_tokens_to_ids(f"<|{token}|>") for name, token in names.items()}


def of_smolvlm(tokenizer: PreTrainedTokenizerFast) -> tuple[Any, ...]:
    """With as many tiles as the tiny Idefics 3."""
    from transformers import SmolVLMVideoProcessor

    marks = {f"row_{row}_col_{column}": f"<row_{row}_col_{column}>" for row in (1, 2) for column in (1, 2)}
    marks |= {"fake_image_token": "<fake_token_around_image>", "global_image_token": "<global-img>"}
    marks |= {"end_of_utterance_token": "<end_of_utterance>", "video_token": "<video>"}
    tokenizer = with_tokens(tokenizer, image_token="<image>", **marks)
    config = SmolVLMConfig(
        text_config={"model_type": "llama"} | TEXT | special_ids(tokenizer),
        vision_config={"model_type": "smolvlm_vision"} | VISION,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=2,
    )
    processor = SmolVLMProcessor(
        image_processor=SmolVLMImageProcessorPil(size={"longest_edge": 128}, max_image_size={"longest_edge": 64}),
        tokenizer=tokenizer,
        video_processor=SmolVLMVideoProcessor(),
        image_seq_len=4,
        chat_template=CHAT_TEMPLATE.replace(SHOWN, "<image>"),
    )
    return AutoModelForImageTextToText.from_config(config), processor


def of_llava_next(tokenizer: PreTrainedTokenizerFast) -> tuple[Any, ...]:
    """With an image of two tiles and the whole of it, or four if it is square."""
    tokenizer = with_tokens(tokenizer, image_token="<image>")
    tiles = [[64, 128], [128, 64], [128, 128]]
    config = LlavaNextConfig(
        text_config={"model_type": "llama"} | TEXT | special_ids(tokenizer),
        vision_config={"model_type": "clip_vision_model"} | VISION,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_grid_pinpoints=tiles,
        image_seq_length=16,
        vision_feature_layer=-1,
    )
    sizes = {"size": {"shortest_edge": 64}, "crop_size": {"height": 64, "width": 64}}
    processor = LlavaNextProcessor(
        image_processor=LlavaNextImageProcessorPil(**sizes, image_grid_pinpoints=tiles),
        tokenizer=tokenizer,
        patch_size=16,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE.replace(SHOWN, "<image>\n"),
    )
    return AutoModelForImageTextToText.from_config(config), processor


def of_internvl(tokenizer: PreTrainedTokenizerFast) -> tuple[Any, ...]:
    """With an image of one tile, or up to four and the whole of it if it is not square."""
    marks = {"start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": "<IMG_CONTEXT>"}
    tokenizer = with_tokens(tokenizer, video_token="<video>", **marks)
    config = InternVLConfig(
        text_config={"model_type": "qwen2"} | TEXT | special_ids(tokenizer),
        vision_config=VISION | {"image_size": [64, 64], "patch_size": [16, 16]},
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=4,
        tie_word_embeddings=False,
    )
    processor = InternVLProcessor(
        image_processor=GotOcr2ImageProcessorPil(size={"height": 64, "width": 64}, crop_to_patches=True, max_patches=4),
        tokenizer=tokenizer,
        **video(InternVLProcessor),
        image_seq_length=4,
        chat_template=CHAT_TEMPLATE.replace(SHOWN, "<IMG_CONTEXT>\n"),
    )
    return AutoModelForImageTextToText.from_config(config), processor


def of_paligemma2(tokenizer: PreTrainedTokenizerFast) -> tuple[Any, ...]:
    tokenizer = with_tokens(tokenizer, image_token="<image>")
    images = SiglipImageProcessorPil(size={"height": 64, "width": 64})
    images.image_seq_length = 16
    chat_template = CHAT_TEMPLATE.replace(SHOWN, "<image>")
    processor = PaliGemmaProcessor(image_processor=images, tokenizer=tokenizer, chat_template=chat_template)
    config = PaliGemmaConfig(
        text_config={"model_type": "gemma2", "query_pre_attn_scalar": 8, "sliding_window": 64}
        | TEXT
        | special_ids(tokenizer),
        vision_config=VISION | {"projection_dim": 32, "vision_use_head": False},
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        projection_dim=32,
        hidden_size=32,
    )
    return AutoModelForImageTextToText.from_config(config), processor


AUDIO = {"audio_token": "<|audio|>", "boa_token": "<|audio>", "eoa_token": "<audio|>"}
IMAGE = {"image_token": "<|image|>", "boi_token": "<|image>", "eoi_token": "<image|>"}


def of_gemma4(tokenizer: PreTrainedTokenizerFast) -> tuple[Any, ...]:
    """With a sliding layer and a full one, images seen both ways, and without its audio part."""
    tokenizer = with_tokens(tokenizer, **IMAGE, **AUDIO)
    processor = Gemma4Processor(
        feature_extractor=Gemma4AudioFeatureExtractor(),
        image_processor=Gemma4ImageProcessorPil(patch_size=16, max_soft_tokens=70, pooling_kernel_size=2),
        tokenizer=tokenizer,
        **video(Gemma4Processor),
        image_seq_length=70,
        chat_template="{{ bos_token }}" + CHAT_TEMPLATE.replace(SHOWN, "<|image|>"),
    )
    ids = {f"{name}_id": tokenizer.convert_tokens_to_ids(token) for name, token in (IMAGE | AUDIO).items()}
    ids["eoa_token_index"] = ids.pop("eoa_token_id")
    words = {"vocab_size_per_layer_input": len(tokenizer), "hidden_size_per_layer_input": 8}
    layers = {"sliding_window": 64, "layer_types": ["sliding_attention", "full_attention"]}
    vision = {name: VISION[name] for name in VISION if name != "image_size"}
    config = Gemma4Config(
        text_config=TEXT | special_ids(tokenizer) | words | layers | {"use_bidirectional_attention": "vision"},
        vision_config=vision
        | {"num_key_value_heads": 2, "head_dim": 16, "pooling_kernel_size": 2, "position_embedding_size": 128},
        audio_config=None,
        video_token_id=tokenizer.convert_tokens_to_ids("<|video|>"),
        **ids,
    )
    return AutoModelForImageTextToText.from_config(config), processor


def of_lfm2_vl(tokenizer: PreTrainedTokenizerFast) -> tuple[Any, ...]:
    """With a layer of short convolutions and one of attention."""
    from transformers import Lfm2VlConfig, Lfm2VlImageProcessor, Lfm2VlProcessor

    marks = {"image_start_token": "<|image_start|>", "image_end_token": "<|image_end|>"}
    tokenizer = with_tokens(tokenizer, image_token="<image>", image_thumbnail_token="<|img_thumbnail|>", **marks)
    sizes = {"tile_size": 64, "min_image_tokens": 4, "max_image_tokens": 4, "max_tiles": 4}
    config = Lfm2VlConfig(
        text_config={"model_type": "lfm2", "layer_types": ["conv", "full_attention"]} | TEXT | special_ids(tokenizer),
        vision_config={n: VISION[n] for n in VISION if n != "image_size"} | {"num_patches": 16},
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        projector_hidden_size=32,
    )
    processor = Lfm2VlProcessor(
        image_processor=Lfm2VlImageProcessor(size={"height": 64, "width": 64}, **sizes),
        tokenizer=tokenizer,
        chat_template="{{ bos_token }}" + CHAT_TEMPLATE.replace(SHOWN, "<image>"),
    )
    return AutoModelForImageTextToText.from_config(config), processor


def of_fast_vlm(tokenizer: PreTrainedTokenizerFast) -> tuple[Any, ...]:
    from transformers import FastVlmConfig, LlavaImageProcessorPil, LlavaProcessor

    tokenizer = with_tokens(tokenizer, image_token="<image>")
    narrow = {"embed_dims": [8, 16, 32, 32, 32], "layers": [1, 1, 1, 1, 1], "inference_mode": False}
    config = FastVlmConfig(
        text_config={"model_type": "qwen2"} | TEXT | special_ids(tokenizer),
        vision_config={"model_type": "timm_wrapper", "architecture": "fastvit_mci3", "do_pooling": True}
        | {"hidden_size": 64, "model_args": narrow, "num_labels": 1},
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=1,
    )
    processor = LlavaProcessor(
        image_processor=LlavaImageProcessorPil(size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64}),
        tokenizer=tokenizer,
        patch_size=64,
        vision_feature_select_strategy="full",
        chat_template=CHAT_TEMPLATE.replace(SHOWN, "<image>\n"),
    )
    return AutoModelForImageTextToText.from_config(config), processor


def of_gemma3n(tokenizer: PreTrainedTokenizerFast) -> tuple[Any, ...]:
    """With a sliding layer, a full one and one of each that reads their keys, and a narrow vision tower."""
    from transformers import Gemma3nAudioFeatureExtractor, Gemma3nConfig, Gemma3nProcessor

    # Words of vision, and behind them of audio, have embeddings of their own.
    heard = {"eoa_token": "<end_of_audio>", "audio_token": "<audio_soft_token>"}
    shown = {"eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"}
    begins = {"boi_token": "<start_of_image>", "boa_token": "<start_of_audio>"}
    tokenizer = with_tokens(tokenizer, **begins, **shown, **heard)
    ids = {f"{n}_id": tokenizer.convert_tokens_to_ids(token) for n, token in (begins | shown | heard).items()}
    layers = {"sliding_window": 64, "layer_types": ["sliding_attention", "full_attention"] * 2, "num_hidden_layers": 4}
    layers |= {"num_kv_shared_layers": 2, "activation_sparsity_pattern": [0.5, 0.0, 0.0, 0.0], "laurel_rank": 4}
    words = {"vocab_size_per_layer_input": ids["eoi_token_id"], "hidden_size_per_layer_input": 8}
    narrow = {"channel_multiplier": 0.0625, "msfa_output_resolution": 2}
    sound = {"hidden_size": 32, "conf_num_attention_heads": 2, "conf_num_hidden_layers": 1, "input_feat_size": 16}
    config = Gemma3nConfig(
        text_config=TEXT | special_ids(tokenizer) | words | layers | {"altup_num_inputs": 2},
        vision_config={"hidden_size": 2048, "model_args": narrow, "vocab_size": 2, "vocab_offset": ids["eoi_token_id"]},
        audio_config=sound | {"sscp_conv_channel_size": [8, 4], "vocab_size": 2, "vocab_offset": ids["eoa_token_id"]},
        vision_soft_tokens_per_image=4,
        **ids,
    )
    processor = Gemma3nProcessor(
        feature_extractor=Gemma3nAudioFeatureExtractor(),
        image_processor=SiglipImageProcessorPil(size={"height": 64, "width": 64}),
        tokenizer=tokenizer,
        image_seq_length=4,
        chat_template="{{ bos_token }}" + CHAT_TEMPLATE.replace(SHOWN, "<image_soft_token>"),
    )
    model = AutoModelForImageTextToText.from_config(config)
    torch.nn.init.normal_(model.get_input_embeddings().weight)  # padding, too: of zeros, its layers give NaN gradients
    return model, processor


FURTHER = {"qwen2_vl": of_qwen2_vl, "smolvlm": of_smolvlm, "llava_next": of_llava_next, "internvl": of_internvl}
FURTHER |= {"qwen3_5": of_qwen3_5, "gemma4": of_gemma4, "lfm2_vl": of_lfm2_vl, "fast_vlm": of_fast_vlm}
FURTHER |= {"gemma3n": of_gemma3n}
