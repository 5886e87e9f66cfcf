"""Cache of vision-tower outputs for one generation batch (frozen vision only).

Rollouts, log-probabilities, judge and update share it; without it each encodes every distinct image again
(`docs/performance.md` counts). Vision that learns must not use it: its outputs change at every update, and gradients
must reach it.
"""

import functools
import inspect
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

from emor3.models.architectures import cuts_tiles, deepstack_features, image_features, images_of_call, join_images


@dataclass(frozen=True)
class Encoded:
    """One image and its features."""

    image: Mapping[str, Tensor]
    pooled: Tensor
    """Embeddings that stand in place of the image's tokens."""
    deep: tuple[Tensor, ...]
    """What deeper layers add to them."""


class EncodedImages:
    """The cache, for all models that share it; these must have the same frozen vision tower and projector.

    `on_any_rank` tells whether something holds on some rank. Sharded weights need it: they are gathered from all ranks,
    so a rank that knows all of its images encodes one again while another encodes a new one.
    """

    def __init__(self, on_any_rank: Callable[[bool], bool] = bool) -> None:
        self._on_any_rank = on_any_rank
        self._known: dict[float, list[Encoded]] = defaultdict(list)
        self._stacked = False  # whether a model gives its embeddings as one tensor or one for each image

    def forget(self) -> None:
        """Empty the cache: a new batch begins."""
        self._known.clear()

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Inside, an empty cache that is then thrown away: what else is computed leaves this batch as it is."""
        known, self._known = self._known, defaultdict(list)
        try:
            yield
        finally:
            self._known = known

    def share(self, model: PreTrainedModel) -> None:
        """Have a model look here before it encodes an image, unless it cuts images into tiles or crops."""
        core = model.base_model
        if cuts_tiles(core.config):
            return
        encode = core.get_image_features

        @functools.wraps(encode)  # generate looks at its signature for what it takes
        def get_image_features(*args: Any, **kwargs: Any) -> Any:
            named = inspect.signature(encode).bind(*args, **kwargs).arguments
            call = images_of_call({**named, **named.pop("kwargs", {})})
            return encode(*args, **kwargs) if call is None else self._look_up(encode, *call)

        core.get_image_features = get_image_features

    def _look_up(self, encode: Any, images: list[dict[str, Tensor]], settings: dict[str, Any]) -> ModelOutput:
        """Features of all images in order; only the new ones are encoded."""
        keys = [float(image["pixel_values"].double().sum()) for image in images]
        found = [self._find(key, image) for key, image in zip(keys, images, strict=True)]
        new = [place for place, encoded in enumerate(found) if encoded is None]
        if self._on_any_rank(bool(new)):
            output = encode(**join_images([images[place] for place in new or [0]]), **settings)
            self._stacked = isinstance(output.pooler_output, Tensor)
            for row, place in enumerate(new):
                deep = tuple(layer[row] for layer in deepstack_features(output))
                found[place] = encoded = Encoded(images[place], output.pooler_output[row], deep)
                self._known[keys[place]].append(encoded)
        shown = [encoded for encoded in found if encoded is not None]  # all of them by now
        pooled = [encoded.pooled for encoded in shown]
        layers = list(zip(*(encoded.deep for encoded in shown), strict=True))  # by layer, then by image
        return image_features(torch.stack(pooled) if self._stacked else pooled, layers)

    def _find(self, key: float, image: Mapping[str, Tensor]) -> Encoded | None:
        """Compared exactly; the key, the sum of the pixels, only narrows the search."""
        for encoded in self._known.get(key, ()):
            if all(torch.equal(value, encoded.image[name]) for name, value in image.items()):
                return encoded
        return None
