"""FlexAttention for packed rows: what the tree mask hides is left out by blocks of 128 x 128 pairs, not computed.

Everything else a model does (sampling, reading a prompt, the vision tower) stays with SDPA. Which of the two a layer
takes is told by the mask that it gets, so a layer that the backward pass computes again (checkpointing) takes the same.

**Not run on a GPU.** On a CPU torch's FlexAttention has no gradients.
"""

from copy import copy
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask
from transformers import AttentionInterface, AttentionMaskInterface, PretrainedConfig, PreTrainedModel
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from emor3.errors import UserError
from emor3.models.architectures import FLEX, takes_masks

FLEXIBLE = "flex_attention"
"""Name of FlexAttention in transformers, and in recipes."""


def _by_mask(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **settings: Any
) -> tuple[Tensor, Tensor | None]:
    """Attention (B, L, heads, size): FlexAttention if its mask is of blocks, else SDPA."""
    kind = FLEXIBLE if isinstance(attention_mask, BlockMask) else "sdpa"
    attended: tuple[Tensor, Tensor | None] = ALL_ATTENTION_FUNCTIONS[kind](
        module, query, key, value, attention_mask, **settings
    )
    return attended


AttentionInterface.register(FLEX, _by_mask)
AttentionMaskInterface.register(FLEX, ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])


def masked_by_blocks(text: PretrainedConfig) -> PretrainedConfig:
    """Configuration of a language model by which transformers makes masks of blocks, if its attention takes them."""
    if text._attn_implementation != FLEX:
        return text
    text = copy(text)
    text._attn_implementation = FLEXIBLE
    return text


def set_attention(model: PreTrainedModel, name: str) -> None:
    """Have a model attend as `model.attention` names it.

    Raises UserError for FlexAttention without a GPU, and if the model takes no masks of ours: it would pack nothing.
    """
    if name != FLEXIBLE:
        model.set_attn_implementation(name)
        return
    if not torch.accelerator.is_available():
        raise UserError("model.attention flex_attention needs a GPU, and there is none: leave model.attention out")
    model.set_attn_implementation(FLEX)
    if not takes_masks(model.config):
        kind = type(model).__name__
        raise UserError(f"model.attention flex_attention is for packed rows, and {kind} has none: leave it out")
