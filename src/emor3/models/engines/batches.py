"""Which rows share a batch: rows of like length, few enough that padded tokens fit; and each batch's own seed.

Each row of a batch is padded to its longest one. Unsorted, 63 rows of 200 tokens beside one of 16,000 would take
1,024,000 tokens; here that one stands alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any, Literal, Protocol, TypeVar

from transformers import ProcessorMixin

T = TypeVar("T")

MOST_TOKENS = 65_536
"""Padded tokens of a batch, completions included: 64 rows of 1,024."""


class Once(Protocol):
    """Gets what makes a batch and what it is made from, both as JSON has it; makes it, or knows it from before."""

    def __call__(self, content: Any, make: Callable[[], list[Any]], /) -> list[Any]: ...


def always(content: Any, make: Callable[[], list[Any]], /) -> list[Any]:
    """Make every batch; nothing is known from before."""
    return make()


Request = tuple[tuple[str, ...], str]
"""Paths of the images, and the text of the user turn."""

OnBatch = Callable[[int], None] | None
"""Gets the number of completions just made."""


class Engine(Protocol):
    """What writes completions: transformers or vLLM."""

    @property
    def name(self) -> Literal["transformers", "vllm"]:
        """Its name in settings."""

    @property
    def processor(self) -> ProcessorMixin:
        """The checkpoint's processor."""

    @property
    def context(self) -> int | None:
        """Tokens of the longest prompt and completion; None if there is no limit."""

    def batches(self, requests: Sequence[Request], decoding: "Decoding", batch_size: int) -> list[list[int]]:
        """Places of N requests in the batches that `complete` is to be given."""

    def complete(self, requests: Sequence[Request], decoding: "Decoding") -> list[list[str]]:
        """M completions for each request of a batch."""


def plan(lengths: Sequence[int], most_rows: int, most_tokens: float = MOST_TOKENS) -> list[list[int]]:
    """Places of N rows in batches, longest rows first, equal ones in their order; a row too long for any stands alone.

    >>> plan([3, 9, 3, 3, 8], most_rows=3, most_tokens=18)  # 9 + 8 padded to 18; three rows of 3
    [[1, 4], [0, 2, 3]]
    """
    batches: list[list[int]] = []
    for place in sorted(range(len(lengths)), key=lambda place: -lengths[place]):
        last = batches[-1] if batches else []
        if not last or len(last) == most_rows or lengths[last[0]] * (len(last) + 1) > most_tokens:
            batches.append([place])
        else:
            last.append(place)
    return batches


@dataclass(frozen=True)
class Decoding:
    """How completions are made: M draws for each prompt."""

    max_new_tokens: int
    temperature: float = 0.0
    """0 decodes greedily."""
    seed: int = 0
    draws: int = 1

    def of_batch(self, number: int) -> "Decoding":
        """The same with a batch's own seed, so that no draw depends on what was made before; the first has the seed."""
        return replace(self, seed=Random(f"batch {number}/{self.seed}").getrandbits(32)) if number else self

    def plan(self, lengths: Sequence[int], batch_size: int) -> list[list[int]]:
        """Batches of N prompts: at most `batch_size` rows, or one prompt with all its draws."""
        rows = [self.draws * (length + self.max_new_tokens) for length in lengths]
        return plan(rows, max(1, batch_size // self.draws))


def in_batches(batches: Sequence[Sequence[int]], make: Callable[[int, Sequence[int]], list[T]]) -> list[T]:
    """What `make` gives for the number and places of each batch, in the order of the places.

    >>> in_batches([[2, 0], [1]], lambda number, places: [f"{number}/{place}" for place in places])
    ['0/0', '1/1', '0/2']
    """
    made: dict[int, T] = {}
    for number, places in enumerate(batches):
        made.update(zip(places, make(number, places), strict=True))
    return [made[place] for place in range(len(made))]
