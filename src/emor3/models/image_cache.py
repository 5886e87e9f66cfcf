"""Images encoded once a round: for frozen vision, rollouts, log-probabilities, judge and update share the encodings.

Without it each phase encodes every distinct image again (`docs/performance.md` counts). Nothing here is right for
vision that learns: its encodings change at every update, and gradients must reach it.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from emor3.models.prefix_cache import pictures_of_rows


@dataclass(frozen=True)
class Encoded:
    """One image and what the models make of it."""

    picture: Mapping[str, Tensor]
    pooled: Tensor
    """Embeddings that stand in place of the image's tokens."""
    deep: tuple[Tensor, ...]
    """What deeper layers add to them (Qwen3-VL)."""


class EncodedImages:
    """The images of a round, for all models that share them; these must have the same frozen vision and projector."""

    def __init__(self) -> None:
        self._known: dict[float, list[Encoded]] = defaultdict(list)
        self._stacked = False  # whether a model gives its embeddings as one tensor (Gemma 3) or one for each image

    def forget(self) -> None:
        """Begin a new round."""
        self._known.clear()

    def share(self, model: PreTrainedModel) -> None:
        """Have a model look here before it encodes an image, unless it cuts images into tiles or crops."""
        core = model.base_model
        if getattr(core.config, "image_grid_pinpoints", None) is not None:  # tiles, as in LLaVA-OneVision
            return
        encode = core.get_image_features

        def get_image_features(
            pixel_values: Tensor, image_grid_thw: Tensor | None = None, image_sizes: Any = None, **settings: Any
        ) -> Any:
            if image_sizes is not None:
                return encode(pixel_values, image_sizes=image_sizes, **settings)
            given = {"pixel_values": pixel_values}
            if image_grid_thw is not None:
                given["image_grid_thw"] = image_grid_thw
            counts = [1] * len(pixel_values if image_grid_thw is None else image_grid_thw)
            pictures = pictures_of_rows({**given, "num_images": counts})
            keys = [float(picture["pixel_values"].double().sum()) for picture in pictures]
            found = [self._find(key, picture) for key, picture in zip(keys, pictures, strict=True)]
            new = [place for place, encoded in enumerate(found) if encoded is None]
            if new:
                output = encode(
                    **{name: torch.cat([pictures[place][name] for place in new]) for name in given}, **settings
                )
                self._stacked = isinstance(output.pooler_output, Tensor)
                layers = getattr(output, "deepstack_features", None) or ()
                for row, place in enumerate(new):
                    added = tuple(layer[row] for layer in layers)
                    found[place] = encoded = Encoded(pictures[place], output.pooler_output[row], added)
                    self._known[keys[place]].append(encoded)
            shown = [encoded for encoded in found if encoded is not None]  # all of them by now
            pooled = [encoded.pooled for encoded in shown]
            deep = list(zip(*(encoded.deep for encoded in shown), strict=True))  # by layer, then by image
            return SimpleNamespace(
                pooler_output=torch.stack(pooled) if self._stacked else pooled, deepstack_features=deep or None
            )

        core.get_image_features = get_image_features

    def _find(self, key: float, picture: Mapping[str, Tensor]) -> Encoded | None:
        """Compared exactly; the key, the sum of the pixels, only narrows the search."""
        for encoded in self._known.get(key, ()):
            if all(torch.equal(value, encoded.picture[name]) for name, value in picture.items()):
                return encoded
        return None
