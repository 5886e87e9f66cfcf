"""Completions by transformers, with one prefill of each prompt for all of its draws."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from transformers import PreTrainedModel, ProcessorMixin

from emor3.models.engines.batches import Decoding
from emor3.models.generation import Request, complete_batch, request_lengths


@dataclass(frozen=True)
class LocalEngine:
    """A model that this process holds."""

    model: PreTrainedModel
    processor: ProcessorMixin

    @property
    def name(self) -> Literal["transformers"]:
        """Its name in settings."""
        return "transformers"

    @property
    def context(self) -> int | None:
        """Tokens of the longest prompt and completion that the model was made for; None if it does not say."""
        limit: int | None = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        return limit

    def batches(self, requests: Sequence[Request], decoding: Decoding, batch_size: int) -> list[list[int]]:
        """Places of N requests in batches of like length."""
        return decoding.plan(request_lengths(self.processor, requests), batch_size)

    def complete(self, requests: Sequence[Request], decoding: Decoding) -> list[list[str]]:
        """M completions for each request of a batch."""
        return complete_batch(self.model, self.processor, requests, decoding)
