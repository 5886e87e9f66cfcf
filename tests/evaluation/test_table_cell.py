"""A number of a reproduction's table keeps everything through `table.csv`."""

import csv

import pytest

from emor3.evaluation.table_cell import TableCell
from emor3.method.types import Estimate
from emor3.storage.cells import table_text

ESTIMATE = Estimate(0.1 + 0.2, 0.25, 1 / 3, 512)


@pytest.mark.parametrize("cell", [TableCell(ESTIMATE, 1, None), TableCell(ESTIMATE, 3, 1e-17, 0.0013, True)])
def test_a_written_cell_is_read_as_it_was(cell: TableCell) -> None:
    rows = list(csv.DictReader(table_text([cell.to_row()]).splitlines()))
    assert [TableCell.from_row(row) for row in rows] == [cell]
