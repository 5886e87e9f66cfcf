"""Shared-prefix prefill: one KV cache per distinct prompt, expanded to its G completions.

It serves all rows that begin alike: completions of a prompt, and a judge's questions on an image. Values and gradients
are those of one forward per row, up to the order of sums.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import Cache, PreTrainedModel

from emor3.models.architectures import IMAGE_INPUTS, can_be_split, join_images, split_images


@dataclass(frozen=True)
class Prefix:
    """KV cache of B prompts of P tokens, padded on the left, as `prefill` gives it.

    Two prompts, the first with one token of padding. Three rows decode: two completions of the first prompt, of which
    the second one is a token shorter, and one of the second prompt.

    >>> from transformers import DynamicCache
    >>> cache = DynamicCache()
    >>> keys, values = cache.update(torch.zeros(2, 1, 3, 8), torch.zeros(2, 1, 3, 8), layer_idx=0)  # B, heads, P, width
    >>> prefix = Prefix(cache, mask=torch.tensor([[0, 1, 1], [1, 1, 1]]), end=torch.tensor([[1], [2]]))
    >>> rows, ids = torch.tensor([0, 0, 1]), torch.tensor([[7, 8], [9, 0], [7, 9]])
    >>> inputs = prefix.decode_inputs(rows, ids, mask=torch.tensor([[1, 1], [1, 0], [1, 1]]))
    >>> inputs["attention_mask"].tolist()
    [[0, 1, 1, 1, 1], [0, 1, 1, 1, 0], [1, 1, 1, 1, 1]]
    >>> inputs["position_ids"].tolist()
    [[2, 3], [2, 2], [3, 4]]
    >>> inputs["past_key_values"].layers[0].keys.shape
    torch.Size([3, 1, 3, 8])
    """

    cache: Cache
    mask: Tensor
    """Attention mask (B, P)."""
    end: Tensor
    """Position of the last token, (B, 1); (4, B, 1) in models that count text, time, height and width."""

    def decode_inputs(self, rows: Tensor, ids: Tensor, mask: Tensor) -> dict[str, Any]:
        """Model inputs of N continuations (N, T), each of the prompt that `rows` (N,) names. Uses up the cache."""
        self.cache.reorder_cache(rows)  # any rows, and also in layers of linear attention, whose state is no keys
        return {
            "input_ids": ids,
            "attention_mask": torch.cat([self.mask[rows], mask], 1),
            "position_ids": self.end[..., rows, :] + mask.cumsum(1),
            "past_key_values": self.cache,
        }


def prefill(forward: Callable[..., Any], model: PreTrainedModel, inputs: dict[str, Tensor]) -> Prefix:
    """Prefill B prompts, padded on the left. `forward` is the model or what wraps it for distributed training."""
    positions = model._prepare_position_ids_for_generation(
        inputs["input_ids"], {name: value for name, value in inputs.items() if name != "input_ids"}
    )
    output = forward(**inputs, position_ids=positions, use_cache=True, logits_to_keep=1)
    return Prefix(output.past_key_values, inputs["attention_mask"], positions[..., -1:])


def distinct(rows: Sequence[Sequence[Tensor]]) -> tuple[list[int], list[int]]:
    """Places of the B different rows among N, and for each of the N which of the B it equals (exact comparison).

    >>> joy, awe = torch.tensor([1, 2]), torch.tensor([1, 3])
    >>> distinct([(joy,), (awe,), (joy,), (awe,)])
    ([0, 1], [0, 1, 0, 1])
    """
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


def plain(model: Any) -> PreTrainedModel:
    """The model that adapters were put into, or the model itself if it has none."""
    return model.get_base_model() if isinstance(model, PeftModel) else model


@contextmanager
def continuing(model: PreTrainedModel, rows: Tensor) -> Iterator[None]:
    """Inside, `model.generate` on B prompts reads them once and samples one completion for each of N `rows`.

    The prompts are read by a forward of the whole model: alone, `generate` would call the vision tower by itself, and
    of a sharded model that is not gathered.
    """
    whole = model.generate

    def generate(input_ids: Tensor, attention_mask: Tensor, **given: Any) -> Tensor:
        images = {name: value for name, value in given.items() if isinstance(value, Tensor)}
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask, **images}
        cut = {name: value[:, :-1] if value.shape == input_ids.shape else value for name, value in inputs.items()}
        prefix = prefill(model, model, cut)
        last = prefix.decode_inputs(rows, input_ids[rows, -1:], attention_mask[rows, -1:])
        last["input_ids"] = input_ids[rows]  # generate looks at whole prompts, and runs what the cache lacks
        completed: Tensor = whole(**last, **{name: value for name, value in given.items() if name not in images})
        return completed

    model.generate = generate
    try:
        yield
    finally:
        del model.generate


def next_token_logits(
    model: PreTrainedModel, inputs: Mapping[str, Tensor], images: Sequence[tuple[str, ...]]
) -> Tensor:
    """Logits (N, V) of the token after each of N prompts, with one prefill of what prompts on the same images share.

    `images` holds the paths of each prompt's images; prompts without any share theirs, too. Images stand before all
    text, so the pixels of the first prompt on them are those of every one.
    """
    counted = {**inputs, "num_images": [len(paths) for paths in images]}
    if not can_be_split(counted):
        logits: Tensor = model(**inputs, logits_to_keep=1).logits[:, -1]
        return logits
    real = inputs["attention_mask"].bool()
    tokens = {n: [r[m] for r, m in zip(inputs[n], real, strict=True)] for n in inputs if n not in IMAGE_INPUTS}
    ids = tokens["input_ids"]
    kinds = list(dict.fromkeys(images))
    first = [images.index(kind) for kind in kinds]
    rows = [kinds.index(kind) for kind in images]
    shared = [len(ids[place]) - 1 for place in first]  # each row decodes its last token or more
    for row, own in zip(rows, ids, strict=True):
        shared[row] = min(shared[row], _common_prefix(own, ids[first[row]]))
    prompts = {
        name: _padded([own[place][:length] for place, length in zip(first, shared, strict=True)])
        for name, own in tokens.items()
    }
    image_rows = split_images(counted)
    prefix = prefill(model, model, prompts | join_images([image_rows[place] for place in first]))
    ends = [own[shared[row] :] for row, own in zip(rows, ids, strict=True)]
    # Padded on the right: in the middle, padding would use up a sliding window.
    mask = pad_sequence([torch.ones_like(own) for own in ends], batch_first=True)
    decoded = prefix.decode_inputs(torch.tensor(rows, device=mask.device), pad_sequence(ends, batch_first=True), mask)
    with _last_token_logits(model, mask):
        last: Tensor = model(**decoded).logits[:, -1]
    return last


@contextmanager
def _last_token_logits(model: PreTrainedModel, mask: Tensor) -> Iterator[None]:
    """Inside, a model gives logits (N, 1, V) of the last real token of each row; those of all would not fit."""

    def select(module: torch.nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:
        return (args[0][torch.arange(len(mask)), mask.sum(1) - 1][:, None],)

    hook = model.get_output_embeddings().register_forward_pre_hook(select)
    try:
        yield
    finally:
        hook.remove()


def _common_prefix(one: Tensor, other: Tensor) -> int:
    """How many tokens two prompts begin with alike, without the last one of the shorter."""
    length = min(len(one), len(other)) - 1
    differ = (one[:length] != other[:length]).nonzero()
    return int(differ[0]) if len(differ) else length


def _padded(rows: list[Tensor]) -> Tensor:
    return pad_sequence(rows, batch_first=True, padding_side="left")
