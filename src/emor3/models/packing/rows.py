"""Packed rows: a prompt followed by several of its completions, each of which sees the prompt and itself.

Such a row passes through the model's own forward without a cache, so its layers may be recomputed (checkpointing) and
its weights gathered (shards). Values and gradients are those of one row for each completion, up to the order of sums.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PretrainedConfig, PreTrainedModel
from transformers.masking_utils import and_masks, create_causal_mask

from emor3.models.architectures import FULL, SLIDING, image_blocks, layer_kinds, mask_input
from emor3.models.packing.blocks import masked_by_blocks

PADDING, PROMPT = -1, 0
"""Parts of a row; completions are numbered from 1."""
IGNORED = -100
"""Label of a place that predicts no token of a completion."""


@dataclass(frozen=True)
class PackedRows:
    """Where the tokens of N completions stand in R rows of L places, as `pack` lays them out.

    A completion's part begins with the prompt's last token, whose logits give its first one, and lacks its own last
    token, whose logits nobody asks for. So T tokens take T places.

    A prompt of three tokens, padded on the left, with a completion of two tokens and one of one:

    >>> ids = torch.tensor([[0, 5, 6, 7, 8, 9], [0, 5, 6, 7, 3, 0]])
    >>> mask = torch.tensor([[0, 1, 1, 1, 1, 1], [0, 1, 1, 1, 1, 0]])
    >>> rows = pack(mask, completion=2, members=[[0, 1]])
    >>> rows.tokens(ids).tolist()
    [[5, 6, 7, 8, 7]]
    >>> rows.labels(ids).tolist()
    [[-100, -100, 8, 9, 3]]
    >>> rows.parts.tolist()
    [[0, 0, 1, 1, 2]]
    >>> rows.positions(torch.tensor([[0, 0, 1, 2]])).tolist()
    [[0, 1, 2, 3, 2]]
    >>> rows.by_completion(torch.tensor([[0.0, 0.0, -0.8, -0.9, -0.3]])).tolist()
    [[-0.800000011920929, -0.8999999761581421], [-0.30000001192092896, 0.0]]
    """

    heads: Tensor
    """Completion of each row (R,) whose prompt and images the row has."""
    parts: Tensor
    """What stands in each place (R, L): the prompt, the padding, or which completion of the row."""
    sources: Tensor
    """Place of each token (R, L) among all of the (N, P + T) that were packed; padding repeats the prompt's last."""
    targets: Tensor
    """Place there of the token that each one predicts (R, L); -1 for none."""
    columns: Tensor
    """Column of the prompt (R, L) from which a token's position is counted."""
    steps: Tensor
    """How far behind that column's position a token stands (R, L)."""
    places: Tensor
    """Place among all of the (R, L) that predicts each token of a completion (N, T); -1 for padding."""

    def tokens(self, values: Tensor) -> Tensor:
        """Ids or types (R, L) of tokens (N, P + T)."""
        return values.flatten()[self.sources]

    def labels(self, ids: Tensor) -> Tensor:
        """The token (R, L) that each place predicts, given the ids (N, P + T)."""
        return ids.flatten()[self.targets].masked_fill(self.targets < 0, IGNORED)

    def positions(self, of_prompts: Tensor) -> Tensor:
        """Positions (R, L) or (4, R, L), given those of the rows' prompts (R, P) or (4, R, P)."""
        columns = self.columns.expand(*of_prompts.shape[:-2], *self.columns.shape)
        return of_prompts.gather(-1, columns) + self.steps

    def by_completion(self, values: Tensor) -> Tensor:
        """Values (N, T) of the tokens of completions, given those of the places (R, L) that predict them; else 0."""
        return values.flatten()[self.places].masked_fill(self.places < 0, 0)


def pack(mask: Tensor, completion: int, members: Sequence[Sequence[int]]) -> PackedRows:
    """Lay out rows of the completions that `members` names for each; those of a row have the same prompt.

    `mask` (N, P + T) marks the tokens of prompts, padded on the left, and of completions of at most T tokens.
    """
    real, width = mask.bool().cpu(), mask.shape[1]
    last = width - completion - 1
    rows = []
    for inside in members:
        read = real[inside[0], :last].nonzero()[:, 0]
        none = torch.full_like(read, -1)
        spans = [torch.stack([torch.full_like(read, PROMPT), inside[0] * width + read, none, read, 0 * read])]
        for part, row in enumerate(inside, 1):
            own = real[row, last + 1 :].nonzero()[:, 0] + last + 1
            read = torch.cat([torch.tensor([last]), own])[: len(own)]
            at_end, steps = torch.full_like(own, last), torch.arange(len(own))
            spans.append(
                torch.stack([torch.full_like(own, part), row * width + read, row * width + own, at_end, steps])
            )
        rows.append(torch.cat(spans, 1).T)
    parts, sources, targets, columns, steps = pad_sequence(rows, batch_first=True, padding_value=-1).unbind(-1)
    heads, padding = torch.tensor([inside[0] for inside in members]), parts == PADDING
    places = torch.full((mask.numel(),), -1)
    places[targets[targets >= 0]] = (targets >= 0).flatten().nonzero()[:, 0]
    layout = (
        heads,
        parts,
        torch.where(padding, (heads * width + last)[:, None], sources),
        targets,
        columns.masked_fill(padding, last),
        steps.masked_fill(padding, 0),
        places.view(mask.shape)[:, last + 1 :],
    )
    return PackedRows(*(tensor.to(mask.device) for tensor in layout))


def packed_inputs(
    model: PreTrainedModel, rows: PackedRows, tokens: Mapping[str, Tensor], prompt: int, images: Mapping[str, Tensor]
) -> dict[str, Any]:
    """Inputs of a model for packed rows, labels among them, as its fused head takes them.

    `tokens` are the inputs (N, P + T) for one row a completion, `prompt` is P, `images` are those of the R rows.
    """
    of_heads = {name: value[rows.heads, :prompt] for name, value in tokens.items()}
    ids = of_heads.pop("input_ids")
    positions = rows.positions(model._prepare_position_ids_for_generation(ids, {**of_heads, **images}))
    types = {name: rows.tokens(value) for name, value in tokens.items() if name.endswith("token_type_ids")}
    in_text = positions if positions.ndim == 2 else positions[0]
    text = model.config.get_text_config()
    masks = tree_masks(text, rows, in_text, image_blocks(model.config, types), model.dtype)
    return {
        "input_ids": rows.tokens(tokens["input_ids"]),
        "attention_mask": mask_input(model.config, masks),
        "position_ids": positions,
        "shift_labels": rows.labels(tokens["input_ids"]),
        **types,
        **images,
    }


def tree_masks(
    config: PretrainedConfig, rows: PackedRows, positions: Tensor, blocks: Tensor | None, dtype: torch.dtype
) -> dict[str, Tensor]:
    """Attention mask (R, 1, L, L) for each kind of layer of a language model, in the form that its attention takes.

    That is what is added to scores, or true where they count, or the blocks that hold such (`masked_by_blocks`).
    Each place sees those before it in the prompt and in its own completion, within the window if the layer slides one
    (`positions` (R, L) count it), and both ways inside a block of equal numbers in `blocks` (R, L) that are not
    negative. `dtype` is that of the hidden states.
    """
    parts, window = rows.parts, getattr(config, "sliding_window", None) or 0
    config = masked_by_blocks(config)

    def in_own_part(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (parts[batch, key] == PROMPT) | (parts[batch, key] == parts[batch, query])

    def in_window(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return positions[batch, query] - positions[batch, key] < window

    def in_block(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        assert blocks is not None
        return (blocks[batch, query] == blocks[batch, key]) & (blocks[batch, query] >= 0)

    def masked(seen: Callable[..., Tensor]) -> Tensor:
        embeddings = torch.empty((*parts.shape, 0), dtype=dtype, device=parts.device)  # only its form is looked at
        mask: Tensor = create_causal_mask(
            config,
            embeddings,
            parts != PADDING,
            None,
            or_mask_function=None if blocks is None else in_block,
            and_mask_function=seen,
        )
        return mask

    by_kind: dict[str, Callable[..., Any]] = {FULL: in_own_part, SLIDING: and_masks(in_own_part, in_window)}
    return {kind: masked(by_kind[kind]) for kind in layer_kinds(config)}
