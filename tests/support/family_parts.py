"""What the tiny checkpoints of all families share: the sizes of their parts, and their tokenizer's tokens."""

from typing import Any

from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

TEXT = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
TEXT |= {"num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 1024}
VISION = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
VISION |= {"image_size": 64, "patch_size": 16}
"""A picture is 4 x 4 patches."""

SHOWN = "<|vision_start|><|image_pad|><|vision_end|>"
"""What the embedded model's chat template writes for an image; other families have their own placeholder there."""


def with_tokens(tokenizer: PreTrainedTokenizerFast, **tokens: Any) -> PreTrainedTokenizerFast:
    """The tokenizer with more special tokens, which it also has as attributes, and one it puts before every text."""
    backend = tokenizer.backend_tokenizer
    backend.add_special_tokens(["<bos>"])
    backend.post_processor = TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", backend.token_to_id("<bos>"))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<bos>",
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=tokens,
        padding_side="left",
    )


def special_ids(tokenizer: PreTrainedTokenizerFast) -> Any:
    """Settings of a language model that fit the tokenizer."""
    ids = {
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
    }
    return {"vocab_size": len(tokenizer)} | ids
