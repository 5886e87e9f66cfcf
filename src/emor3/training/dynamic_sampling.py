"""DAPO's dynamic sampling: groups of equal rewards teach nothing, so groups on other prompts take their place.

It comes after reflection, so that no reflection is paid for and ignored by mistake: a group is dry only if its total
rewards, reflective parts included, are equal. If retries run out, the dry groups stay, with zero advantages.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from trl.trainer.utils import split_pixel_values_by_grid, unsplit_pixel_values_by_grid

from emor3.models.architectures import IMAGE_INPUTS, as_many_tiles

Batch = dict[str, Any]
"""TRL's scored generation batch: rows are the completions of this process, groups stand together."""

PROMPT_KEYS = ("prompt_ids", "prompt_mask")


def refill(
    batch: Batch, dry: Tensor, pad_id: int, retries: int, draw: Callable[[int], tuple[Batch, Tensor]], any_rank: Any
) -> tuple[Batch, int]:
    """The batch with rows of dry groups replaced by rows of live groups on new prompts, and how many retries it took.

    `dry` (N,) marks the rows of groups with equal rewards. `draw(attempt)` scores a batch of the same size on new
    prompts and tells its dry rows; it is called by all ranks while `any_rank(dry)` holds, at most `retries` times.
    """
    attempt = 0
    while attempt < retries and any_rank(dry):
        fresh, still_dry = draw(attempt)
        old_rows, new_rows = torch.nonzero(dry)[:, 0], torch.nonzero(~still_dry)[:, 0]
        count = min(len(old_rows), len(new_rows))
        if count:
            batch = replace_rows(batch, fresh, old_rows[:count].tolist(), new_rows[:count].tolist(), pad_id)
            dry = dry.clone()
            dry[old_rows[:count]] = False
        attempt += 1
    return batch, attempt


def replace_rows(batch: Batch, fresh: Batch, old_rows: Sequence[int], new_rows: Sequence[int], pad_id: int) -> Batch:
    """The batch with `old_rows` taken from `new_rows` of another one, both padded to the longer of the two.

    Row 0 of two prompts is replaced by row 1 of others, which are a token longer (token 9 pads, prompts on the left):

    >>> old = {"prompt_ids": torch.tensor([[1, 2], [3, 4]]), "completion_ids": torch.tensor([[5], [6]])}
    >>> new = {"prompt_ids": torch.tensor([[1, 1, 1], [2, 2, 2]]), "completion_ids": torch.tensor([[7, 7], [8, 8]])}
    >>> {name: rows.tolist() for name, rows in replace_rows(old, new, [0], [1], pad_id=9).items()}
    {'prompt_ids': [[2, 2, 2], [9, 3, 4]], 'completion_ids': [[8, 8], [6, 9]]}
    """
    batch, fresh = as_many_tiles(batch, fresh)
    prompt = max(batch["prompt_ids"].shape[1], fresh["prompt_ids"].shape[1])
    completion = max(batch["completion_ids"].shape[1], fresh["completion_ids"].shape[1])
    merged = split_pixel_values_by_grid(_padded(batch, prompt, completion, pad_id))
    other = split_pixel_values_by_grid(_padded(fresh, prompt, completion, pad_id))
    for key, rows in merged.items():
        if isinstance(rows, Tensor) and rows.ndim == 0:
            continue
        merged[key] = rows.clone() if isinstance(rows, Tensor) else list(rows)
        for old, new in zip(old_rows, new_rows, strict=True):
            merged[key][old] = other[key][new]
    return dict(unsplit_pixel_values_by_grid(merged))


def _padded(batch: Batch, prompt: int, completion: int, pad_id: int) -> Batch:
    """Prompts padded on the left, completions on the right, and what spans both on both sides."""
    left = prompt - batch["prompt_ids"].shape[1]
    right = completion - batch["completion_ids"].shape[1]
    width = batch["completion_ids"].shape[1]
    padded = dict(batch)
    for key, rows in batch.items():
        if not isinstance(rows, Tensor) or rows.ndim != 2 or key in IMAGE_INPUTS:
            continue
        spans_both = key.endswith("token_type_ids") and rows.shape[1] == batch["prompt_ids"].shape[1] + width
        if not (spans_both or key in PROMPT_KEYS or rows.shape[1] == width):
            continue  # vLLM's ratios have one column for all tokens
        sides = (left, right) if spans_both else (left, 0) if key in PROMPT_KEYS else (0, right)
        padded[key] = torch.nn.functional.pad(
            rows, sides, value=pad_id if key.endswith("_ids") and not spans_both else 0
        )
    return padded
