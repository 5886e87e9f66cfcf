"""The page of a data set stands alone, shows pictures of each label and escapes whatever labels and ids hold."""

import json
import re

import pytest
from PIL import Image

from emor3.data.overview import balance_table, stats, write_page
from emor3.errors import UserError


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "data").mkdir()
    rows = []
    for index in range(5):
        Image.new("RGB", (300, 200), (50 * index, 9, 9)).save(tmp_path / f"data/{index}.png")
        label = "calm" if index < 4 else "<script>alert(1)</script>"
        rows.append({"file_name": f"{index}.png", "id": f'"><b>{index}', "label": label})
    (tmp_path / "data/metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path / "data"


def test_the_table_counts_labels_in_splits_and_names_the_majority(folder):
    table = balance_table(stats(str(folder)))
    cells = [list(column.cells) for column in table.columns]
    assert cells[0][-2:] == ["all", "majority class"]
    assert cells[1] == ["1 (20.0%)", "4 (80.0%)", "5", "80.0%"]


def test_the_page_refers_to_nothing_outside_and_escapes_what_it_shows(folder, tmp_path):
    write_page(stats(str(folder)), tmp_path / "page.html", per_label=2, seed=0)
    page = (tmp_path / "page.html").read_text()
    assert page.count("<img ") == 3  # two of four and the only one
    assert all(address.startswith("data:image/jpeg;base64,") for address in re.findall(r'(?:src|href)="([^"]*)"', page))
    assert "<script" not in page
    assert "<b>" not in page
    assert "&lt;script&gt;" in page


def test_a_picture_that_cannot_be_opened_shows_its_fault(folder, tmp_path):
    (folder / "4.png").write_bytes(b"broken")
    write_page(stats(str(folder)), tmp_path / "page.html", per_label=4, seed=0)
    assert "cannot be read" in (tmp_path / "page.html").read_text()


def test_a_page_is_never_written_over(folder, tmp_path):
    (tmp_path / "page.html").touch()
    with pytest.raises(UserError, match="exists"):
        write_page(stats(str(folder)), tmp_path / "page.html", per_label=1, seed=0)
