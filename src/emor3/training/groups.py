"""The groups of a batch whose rows lie on several processes.

TRL asks only the global batch to be whole groups: 2 processes with 6 rows each and groups of 4 cut the second group in
two. So whatever depends on a whole group is computed here, and nowhere from the rows of one process.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from accelerate import PartialState
from accelerate.utils import gather_object

T = TypeVar("T")
R = TypeVar("R")


def own_rows(rows: Sequence[T], count: int) -> Sequence[T]:
    """Of the rows of all processes, the `count` of this one."""
    first = PartialState().process_index * count
    return rows[first : first + count]


def by_group(rows: Sequence[T], generations: int, compute: Callable[[list[list[T]]], Iterable[Sequence[R]]]) -> list[R]:
    """What `compute` makes of the whole groups of a batch, for the rows of this process.

    `compute` gets the groups of all processes, G rows each, and gives as many values for each. All processes must call
    this, each with equally many rows.

    On one process, two groups of G = 2 rows, each row with the best reward of its group:

    >>> by_group([0.1, 0.9, 0.5, 0.4], 2, lambda groups: ([max(group)] * len(group) for group in groups))
    [0.9, 0.9, 0.5, 0.5]
    """
    gathered = gather_object(list(rows))
    groups = [gathered[start : start + generations] for start in range(0, len(gathered), generations)]
    return list(own_rows([value for values in compute(groups) for value in values], len(rows)))
