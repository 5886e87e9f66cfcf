"""Cells of CSV and TSV files: harmless for spreadsheets and terminals, and the same when they are read back."""

import csv
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emor3.storage.cells import from_cell, table_text, to_cell

FORMULAS = ("=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "'=1", "''@x", "-", "=cmd|' /C calc'!A0")
PLAIN = ("joy", "it's", "'quoted'", "1-2", "", " = ", "é 喜び", r"C:\x41\u0041", "two\nlines", "<b>")


@pytest.mark.parametrize("text", FORMULAS)
def test_what_a_spreadsheet_would_compute_begins_with_an_apostrophe_and_reads_back(text: str) -> None:
    assert to_cell(text).startswith("'")
    assert from_cell(to_cell(text)) == text


@pytest.mark.parametrize("text", PLAIN)
def test_other_texts_are_cells_as_they_are(text: str) -> None:
    assert to_cell(text) == from_cell(text) == text


def test_control_characters_are_escaped_and_what_only_looks_so_is_told_apart() -> None:
    assert to_cell("\rjoy\x1b[2J\u202e") == r"\x0djoy\x1b[2J\u202e"
    assert to_cell(r"joy\x1b[2J") == r"joy\\x1b[2J"
    assert from_cell(r"joy\x1b") == "joy\x1b"


@given(st.text(alphabet=[*"'=+-@\t\r\n\\x1bu202eU000e000", "\x1b", "\u202e", "\ud800", "\U000e0001", "a", "é"]))
def test_any_text_reads_back_and_no_cell_is_computed_or_obeyed(text: str) -> None:
    cell = to_cell(text)
    assert from_cell(cell) == text
    assert cell[:1] not in ("=", "+", "-", "@", "\t", "\r")
    assert all(c.isprintable() or c in "\n\t" for c in cell)


def test_a_table_reads_back_its_texts_and_keeps_its_numbers(tmp_path: Path) -> None:
    rows = [{"method": text, "value": -0.5, "p": None} for text in (*FORMULAS, *PLAIN, "joy\x1b", "\ud800")]
    for separator in (",", "\t"):
        (tmp_path / "table.csv").write_text(table_text(rows, separator))
        with (tmp_path / "table.csv").open(encoding="utf-8", newline="") as file:
            read = list(csv.DictReader(file, delimiter=separator))
        assert [from_cell(row["method"]) for row in read] == [row["method"] for row in rows]
        assert {(row["value"], row["p"]) for row in read} == {("-0.5", "")}
