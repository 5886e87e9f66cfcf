"""Prompts read once: rows that begin alike (G completions of a prompt, G questions on an image) share one forward.

The keys and values of the B distinct beginnings are computed once, selected for the N rows and continued. This is what
the model would compute for each row on its own, so values and gradients are equal up to the order of sums.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import BatchFeature, Cache, PreTrainedModel, ProcessorMixin
from transformers.image_utils import make_flat_list_of_images

from emor3.storage.images import SOURCE

PICTURES = {"pixel_values", "image_grid_thw"}
UNDERSTOOD = {"input_ids", "attention_mask", "mm_token_type_ids", "token_type_ids"} | PICTURES
"""Inputs of a model that can be taken apart row by row here; with others (tiles, crops) nothing is shared."""


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
    """Places of the B different rows among N, and for each of the N which of the B it equals (exact comparison).

    Three prompts, the last one as the first:

    >>> distinct([[torch.tensor([5, 7])], [torch.tensor([8])], [torch.tensor([5, 7])]])
    ([0, 1], [0, 1, 0])
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


def next_token_logits(
    model: PreTrainedModel, inputs: Mapping[str, Tensor], images: Sequence[tuple[str, ...]]
) -> Tensor:
    """Logits (N, V) of the token after each of N prompts; what the prompts on the same images begin with is read once.

    `images` holds the paths of each prompt's images: those without share their beginning, too. Images stand before
    all text, so the pixels of the first prompt on them are those of every one.
    """
    if not inputs.keys() <= UNDERSTOOD:
        logits: Tensor = model(**inputs, logits_to_keep=1).logits[:, -1]
        return logits
    real = inputs["attention_mask"].bool()
    tokens = {n: [r[m] for r, m in zip(inputs[n], real, strict=True)] for n in inputs if n not in PICTURES}
    ids = tokens["input_ids"]
    kinds = list(dict.fromkeys(images))
    first = [images.index(kind) for kind in kinds]
    rows = [kinds.index(kind) for kind in images]
    shared = [len(ids[place]) - 1 for place in first]  # the last token is always read with what is its own
    for row, own in zip(rows, ids, strict=True):
        shared[row] = min(shared[row], _alike(own, ids[first[row]]))
    beginnings = {
        name: _padded([own[place][:length] for place, length in zip(first, shared, strict=True)])
        for name, own in tokens.items()
    }
    pictures = pictures_of_rows({**inputs, "num_images": [len(paths) for paths in images]})
    beginnings |= together([pictures[place] for place in first])
    ends = [own[shared[row] :] for row, own in zip(rows, ids, strict=True)]
    prefix = read(model, model, beginnings)
    # Padded at their ends, where the other rows are longer: in the middle, padding would use up a sliding window.
    mask = pad_sequence([torch.ones_like(own) for own in ends], batch_first=True)
    continued = prefix.continued(torch.tensor(rows, device=mask.device), pad_sequence(ends, batch_first=True), mask)
    with _of_last_tokens(model, mask):
        last: Tensor = model(**continued).logits[:, -1]
    return last


@contextmanager
def _of_last_tokens(model: PreTrainedModel, mask: Tensor) -> Iterator[None]:
    """Inside, a model gives logits (N, 1, V) of the last real token of each row; those of all would not fit."""

    def select(module: torch.nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:
        return (args[0][torch.arange(len(mask)), mask.sum(1) - 1][:, None],)

    hook = model.get_output_embeddings().register_forward_pre_hook(select)
    try:
        yield
    finally:
        hook.remove()


def _alike(one: Tensor, other: Tensor) -> int:
    """How many tokens two prompts begin with alike, without the last one of the shorter."""
    length = min(len(one), len(other)) - 1
    differ = (one[:length] != other[:length]).nonzero()
    return int(differ[0]) if len(differ) else length


def _padded(rows: list[Tensor]) -> Tensor:
    return pad_sequence(rows, batch_first=True, padding_side="left")


def pictures_of_rows(inputs: Mapping[str, Any]) -> list[dict[str, Tensor]]:
    """Pixels (and patch grid, where the model has one) of each of N rows with `num_images` (N,) images each.

    A row without images has none of them.
    """
    counts = inputs["num_images"]
    if "pixel_values" not in inputs:
        return [{} for _ in counts]
    if "image_grid_thw" not in inputs:
        rows = [{"pixel_values": pixels} for pixels in inputs["pixel_values"].split(counts)]
    else:
        grids = inputs["image_grid_thw"].split(counts)
        pixels = inputs["pixel_values"].split([int(grid.prod(1).sum()) for grid in grids])
        rows = [{"pixel_values": p, "image_grid_thw": g} for p, g in zip(pixels, grids, strict=True)]
    return [row if count else {} for row, count in zip(rows, counts, strict=True)]


def together(pictures: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Pixels (and patch grids) of several rows in one; nothing if no row has an image."""
    shown = [picture for picture in pictures if picture]
    return {name: torch.cat([picture[name] for picture in shown]) for name in (shown[0] if shown else ())}


@contextmanager
def images_once(processor: ProcessorMixin) -> Iterator[None]:
    """Inside, an image (the same file or object) is prepared once, in however many calls the processor is given it."""
    own = vars(processor.image_processor)
    replaced = own.get("preprocess")  # None as a rule: what stands here would be saved with the processor
    whole = processor.image_processor.preprocess
    known: dict[tuple[Any, str], tuple[Any, dict[str, Tensor]]] = {}  # with the image, lest another get its id

    def preprocess(images: Any, *args: Any, **kwargs: Any) -> Any:
        kwargs["return_tensors"] = "pt"  # TRL asks once for tensors and once for whatever there is
        flat, settings = make_flat_list_of_images(images), repr((args, kwargs))
        keys = [(image.info.get(SOURCE, id(image)), settings) for image in flat]
        new = {key: image for key, image in zip(keys, flat, strict=True) if key not in known}
        if new:
            # As they are given where all are new: which images a row has tells some models how to cut them.
            prepared = whole(images if len(new) == len(flat) else list(new.values()), *args, **kwargs)
            if not prepared.keys() <= PICTURES or not isinstance(prepared["pixel_values"], Tensor):
                return prepared if len(new) == len(flat) else whole(images, *args, **kwargs)
            pictures = pictures_of_rows({**prepared, "num_images": [1] * len(new)})
            known.update((key, (new[key], picture)) for key, picture in zip(new, pictures, strict=True))
        return BatchFeature(together([known[key][1] for key in keys]))

    processor.image_processor.preprocess = preprocess
    try:
        yield
    finally:
        if replaced is None:
            del own["preprocess"]
        else:
            own["preprocess"] = replaced
