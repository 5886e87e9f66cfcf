"""One number of a reproduction's table, and the row of `table.csv` that holds it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from emor3.method.types import Estimate


@dataclass(frozen=True)
class TableCell:
    """A figure of one method in one column: the mean over seeds with its interval over test items."""

    estimate: Estimate
    seeds: int
    seed_deviation: float | None
    """Standard deviation over seeds; None for one seed."""
    p_value: float | None = None
    """Against the plan's reference method, after Holm's correction; None if it is not tested."""
    bold: bool = False
    """Whether it is the column's best and beats the runner-up in a test at 5%, Holm-corrected over columns."""
    difference: Estimate | None = None
    """To the reference method on the same items, with its interval over them, and over seeds if there are several."""
    smallest_effect: float | None = None
    """The difference that such a test finds in 80% of studies, at the level of the family's surest test."""

    def to_row(self) -> dict[str, Any]:
        """The cell's own columns of `table.csv`."""
        change = self.difference
        return {
            **vars(self.estimate),
            "seeds": self.seeds,
            "seed_deviation": self.seed_deviation,
            "p_value": self.p_value,
            "bold": self.bold,
            "difference": change and change.value,
            "difference_low": change and change.low,
            "difference_high": change and change.high,
            "smallest_effect": self.smallest_effect,
        }

    @classmethod
    def from_row(cls, row: Mapping[str, str]) -> "TableCell":
        """The cell of a row as CSV readers give it. Raises KeyError, TypeError or ValueError for a broken row."""
        value, low, high = (float(row[key]) for key in ("value", "low", "high"))
        deviation, p_value = (float(row[key]) if row[key] else None for key in ("seed_deviation", "p_value"))
        change = None
        if row.get("difference"):  # tables of older versions do not have it
            middle, least, most = (float(row[f"difference{end}"]) for end in ("", "_low", "_high"))
            change = Estimate(middle, least, most, int(row["n"]))
        smallest = row.get("smallest_effect")
        return cls(
            Estimate(value, low, high, int(row["n"])),
            int(row["seeds"]),
            deviation,
            p_value,
            row["bold"] == "True",
            change,
            float(smallest) if smallest else None,
        )
