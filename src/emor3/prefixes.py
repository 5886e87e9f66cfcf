"""Prompts read once: rows that begin alike (G completions of a prompt, G questions on an image) share one forward.

The keys and values of the B distinct beginnings are computed once, selected for the N rows and continued. This is what
the model would compute for each row on its own, so values and gradients are equal up to the order of sums.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, PreTrainedModel


@dataclass(frozen=True)
class Prefix:
    """What a model keeps of B prompts."""

    cache: Cache
    mask: Tensor
    """Which of the P tokens are real, (B, P)."""
    end: Tensor
    """Position of the last token, (B, 1), for M-RoPE with its dimensions in front: (4, B, 1)."""

    def continued(self, rows: Tensor, ids: Tensor, mask: Tensor) -> dict[str, Any]:
        """Model inputs for N continuations (N, T), each of the prompt that `rows` (N,) names. Uses up the cache."""
        self.cache.batch_select_indices(rows)
        return {
            "input_ids": ids,
            "attention_mask": torch.cat([self.mask[rows], mask], 1),
            "position_ids": self.end[..., rows, :] + mask.cumsum(1),
            "past_key_values": self.cache,
        }


def read(forward: Callable[..., Any], model: PreTrainedModel, inputs: dict[str, Tensor]) -> Prefix:
    """Read B prompts, padded on the left. `forward` is the model or what wraps it for distributed training."""
    positions = model._prepare_position_ids_for_generation(
        inputs["input_ids"], {name: value for name, value in inputs.items() if name != "input_ids"}
    )
    output = forward(**inputs, position_ids=positions, use_cache=True, logits_to_keep=1)
    return Prefix(output.past_key_values, inputs["attention_mask"], positions[..., -1:])


def distinct(rows: Sequence[Sequence[Tensor]]) -> tuple[list[int], list[int]]:
    """Places of the B different rows among N, and for each of the N which of the B it equals (exact comparison)."""
    first: list[int] = []
    equal_to: list[int] = []
    for place, row in enumerate(rows):
        for index, known in enumerate(first):
            if all(map(torch.equal, row, rows[known])):
                equal_to.append(index)
                break
        else:
            equal_to.append(len(first))
            first.append(place)
    return first, equal_to
