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
    """Against the plan's reference method, paired on items over all seeds, after Holm's correction in the column."""
    bold: bool = False
    """Whether it is the column's best and beats the runner-up in a paired test at 5%, Holm-corrected over columns."""

    def to_row(self) -> dict[str, Any]:
        """The cell's own columns of `table.csv`."""
        rest = {"seed_deviation": self.seed_deviation, "p_value": self.p_value, "bold": self.bold}
        return {**vars(self.estimate), "seeds": self.seeds, **rest}

    @classmethod
    def from_row(cls, row: Mapping[str, str]) -> "TableCell":
        """The cell of a row as CSV readers give it. Raises KeyError, TypeError or ValueError for a broken row."""
        value, low, high = (float(row[key]) for key in ("value", "low", "high"))
        deviation, p_value = (float(row[key]) if row[key] else None for key in ("seed_deviation", "p_value"))
        return cls(
            Estimate(value, low, high, int(row["n"])), int(row["seeds"]), deviation, p_value, row["bold"] == "True"
        )
