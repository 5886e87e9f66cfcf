"""A number of a reproduction's table keeps everything through `table.csv`."""

import csv

import pytest

from emor3.method.types import Estimate
from emor3.report.table_cell import TableCell
from emor3.storage.cells import table_text

ESTIMATE = Estimate(0.1 + 0.2, 0.25, 1 / 3, 512)


CHANGE = Estimate(0.0, -1 / 3, 1e-9, 512)


@pytest.mark.parametrize(
    "cell", [TableCell(ESTIMATE, 1, None), TableCell(ESTIMATE, 3, 1e-17, 0.0013, True, CHANGE, 0.021)]
)
def test_a_written_cell_is_read_as_it_was(cell: TableCell) -> None:
    rows = list(csv.DictReader(table_text([cell.to_row()]).splitlines()))
    assert [TableCell.from_row(row) for row in rows] == [cell]


def test_a_row_of_a_table_from_before_differences_were_written_is_read() -> None:
    row = TableCell(ESTIMATE, 3, 0.01, 0.0013, True).to_row()
    old = {key: str(value) for key, value in row.items() if not key.startswith(("difference", "smallest"))}
    assert TableCell.from_row(old) == TableCell(ESTIMATE, 3, 0.01, 0.0013, True)
