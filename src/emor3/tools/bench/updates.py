"""One update by each of our ways on the same completions: by a cache of the prompts, in packed or in separate rows."""

import time
from collections.abc import Callable
from math import inf
from typing import Any

import torch
from torch import Tensor

from emor3.models.packing.work import WORTHWHILE
from emor3.training.trainer import EmoTrainer

CACHE, PACKED, SEPARATE = "cache", "packed", "separate"
"""SEPARATE is TRL's way: a row for each completion, prompt included."""
WORTH = {PACKED: inf, SEPARATE: 0.0}
"""Share of the work of separate rows up to which packed ones are taken, so that the way is taken in any case."""


class EveryUpdate(EmoTrainer):
    """Takes the update as it is, notes which way that was, and then takes it by the other ways; all are timed."""

    on_tried: Callable[[dict[str, float], str], None]
    """Gets the CPU seconds of each way, and the way that an update takes by itself."""

    way: str | None = None
    """The way to take; None leaves it to the trainer."""
    taken = SEPARATE

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Tensor:
        """The loss, whose gradients are there already."""
        loss, seconds = self._by(None, model, inputs)
        chosen = self.taken
        others = [way for way in (CACHE, PACKED, SEPARATE) if way != chosen]
        if not self._keeps_cache():
            others = [way for way in others if way != CACHE]
        updates = {chosen: seconds} | {way: self._by(way, model, inputs)[1] for way in others}
        self.on_tried(updates, chosen)
        return loss.detach().requires_grad_()

    def _by(self, way: str | None, model: Any, inputs: Any) -> tuple[Tensor, float]:
        """Loss and CPU seconds of a forward and backward pass by a way."""
        model.zero_grad()
        self.way, self.worthwhile, self.taken = way, WORTH.get(way or "", WORTHWHILE), SEPARATE
        start = time.process_time()
        try:
            loss: Tensor = super().compute_loss(model, inputs)
            self.accelerator.backward(loss)
        finally:
            self.way = None
        return loss, time.process_time() - start

    def _keeps_cache(self) -> bool:
        wanted = self.way in (None, CACHE) or not torch.is_grad_enabled()
        return wanted and super()._keeps_cache()

    def _from_cache(self, *args: Any) -> Any:
        self.taken = CACHE
        return super()._from_cache(*args)

    def _from_packed(self, *args: Any) -> Any:
        self.taken = PACKED
        return super()._from_packed(*args)
