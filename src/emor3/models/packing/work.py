"""How many completions a packed row should hold: the counted work of a forward pass decides.

A row of L tokens passes each token through the layers once and attends over L x L pairs, also those that its mask
hides. One row for each completion reads a prompt G times; one row for all reads it once, and has up to G times as many
pairs. Long prompts and wide models gain by packing, short prompts in a narrow model lose. A backward pass, with or
without recomputation, multiplies both alike. Images are left out: they can only gain.

A cache of the prompt, if one can be kept, is never dearer than either: it reads each prompt once and hides no pairs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from transformers import PretrainedConfig

PAIR_COST = 3.0
"""What a pair costs beside its multiplications (mask, softmax, memory), as a factor: about that on a CPU."""
WORTHWHILE = 0.9
"""Share of the work of separate rows that packed ones may have at most: laying them out costs something, too."""


@dataclass(frozen=True)
class LayerWork:
    """Multiplications in one layer of a language model."""

    token: float
    """By weights, for each token."""
    pair: float
    """In attention, for each pair of tokens, as far as they compare in time."""

    def of(self, rows: int, length: int) -> float:
        """Work of so many rows of this length."""
        return rows * (length * self.token + length**2 * self.pair)


def layer_work(config: PretrainedConfig) -> LayerWork:
    """Work of a layer, by the configuration of its language model."""
    heads, groups = config.num_attention_heads, config.num_key_value_heads
    head = getattr(config, "head_dim", None) or config.hidden_size // heads
    weights = config.hidden_size * (2 * head * (heads + groups) + 3 * config.intermediate_size)
    return LayerWork(weights, 2 * heads * head * PAIR_COST)


def shared_out(equal_to: Sequence[int], most: int) -> list[list[int]]:
    """Completions of each row: at most so many of one prompt, in rows as even as can be.

    `equal_to` names the prompt of each of N completions.

    >>> shared_out([0, 1, 0, 0, 1, 0, 0], most=3)
    [[0, 2, 3], [5, 6], [1, 4]]
    """
    groups: dict[int, list[int]] = {}
    for completion, prompt in enumerate(equal_to):
        groups.setdefault(prompt, []).append(completion)
    rows = []
    for group in groups.values():
        count = -(-len(group) // most)
        ends = [-(-len(group) * row // count) for row in range(count + 1)]
        rows += [group[start:end] for start, end in pairwise(ends)]
    return rows


def cheapest_rows(
    equal_to: Sequence[int],
    prompts: Sequence[int],
    completions: Sequence[int],
    work: LayerWork,
    worthwhile: float = WORTHWHILE,
    limit: int | None = None,
) -> list[list[int]]:
    """Completions of each packed row, at the least work; empty if one row for each completion is as good.

    `prompts` and `completions` are the tokens of the N prompts (equal ones are given again) and completions. With a
    prompt of 100 tokens, four completions share a row; with one of 10 they do not. `worthwhile` is how much of the work
    of separate rows packed ones may have: 0 refuses them all, infinity takes the best of them in any case. `limit` is
    how many completions a row may hold.

    >>> narrow = LayerWork(token=400.0, pair=2.0)
    >>> cheapest_rows([0, 0, 0, 0], [100] * 4, [20] * 4, narrow)
    [[0, 1, 2, 3]]
    >>> cheapest_rows([0, 0, 0, 0], [10] * 4, [100] * 4, narrow)
    []
    >>> cheapest_rows([0, 0, 0, 0], [10] * 4, [100] * 4, narrow, worthwhile=float("inf"))
    [[0, 1], [2, 3]]
    >>> cheapest_rows([0, 0, 0, 0], [100] * 4, [20] * 4, narrow, limit=3)
    [[0, 1], [2, 3]]
    """
    most = min(max(map(equal_to.count, set(equal_to)), default=1), limit or len(equal_to))
    bound = worthwhile * work.of(len(equal_to), max(prompts, default=0) + max(completions, default=0))
    best: list[list[int]] = []
    while most > 1:
        rows = shared_out(equal_to, most)
        length = max(prompts[row[0]] - 1 + sum(completions[place] for place in row) for row in rows)
        if (needed := work.of(len(rows), length)) < bound:
            best, bound = rows, needed
        most = -(-most // 2)
    return best
