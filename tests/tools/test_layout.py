"""What lies in a folder is told as the importers read it, and what cannot be used in one line."""

from pathlib import Path

import pytest

import layouts
from emor3.errors import UserError
from emor3.tools.layout import layout_of

ALIKE = {"flickr-ldl": "flickr-ldl or twitter-ldl", "twitter-ldl": "flickr-ldl or twitter-ldl"}
ALIKE |= {"ferplus": "fer2013 or ferplus"}
"""Sets whose files do not tell which they are."""
CLASS_FOLDERS = {"fi", "unbiasedemo", "emotionroi", "caer-s", "folders"}
"""Sets that lie as anyone's class folders do."""


@pytest.mark.parametrize("name", layouts.BUILDERS)
def test_a_public_set_is_known_by_its_files(name: str, tmp_path: Path) -> None:
    layouts.BUILDERS[name](tmp_path)
    if name in ALIKE:
        with pytest.raises(UserError, match=f"may be {ALIKE[name]}: `emor3 data import NAME"):
            layout_of(str(tmp_path))
    else:
        assert layout_of(str(tmp_path)) == ("folders" if name in CLASS_FOLDERS else name, tmp_path)


def pictures(root: Path, *names: str) -> None:
    for name in names:
        layouts.image(root / name)


def test_class_folders_win_over_a_table_beside_them_and_a_table_over_folders_without_labels(tmp_path: Path) -> None:
    pictures(tmp_path, "calm/1.jpg", "tense/2.jpg")
    (tmp_path / "notes.csv").write_text("a,b\n")
    assert layout_of(str(tmp_path)) == ("folders", tmp_path)
    other = tmp_path / "other"
    pictures(other, "images/1.jpg", "images/2.jpg")
    (other / "labels.tsv").write_text("image\tlabel\n")
    assert layout_of(str(other)) == layout_of(str(other / "labels.tsv")) == ("table", other / "labels.tsv")


def test_clips_are_told_from_images_and_a_table_of_clips_from_one_of_images(tmp_path: Path) -> None:
    layouts.text(tmp_path / "set/calm/1.mp4", "of a name alone")
    layouts.text(tmp_path / "set/labels.csv", "clip,label")
    assert layout_of(str(tmp_path / "set")) == ("clips", tmp_path / "set")
    assert layout_of(str(tmp_path / "set/labels.csv")) == ("clips", tmp_path / "set/labels.csv")
    pictures(tmp_path, "set/calm/1.jpg", "set/tense/2.jpg")
    assert layout_of(str(tmp_path / "set")) == ("folders", tmp_path / "set")
    layouts.text(tmp_path / "mer/video/a.mp4", "of a name alone")
    layouts.text(tmp_path / "mer/label-disdim.csv", "name,discrete,valence", "a,happy,1")
    assert layout_of(str(tmp_path / "mer")) == ("mer", tmp_path / "mer")


def test_a_data_folder_needs_no_import(tmp_path: Path) -> None:
    (tmp_path / "metadata.jsonl").write_text("{}\n")
    assert layout_of(str(tmp_path)) is None
    assert layout_of("embedded:scenes8") is None


@pytest.mark.parametrize(
    ("names", "told"),
    [
        ([], "no images and no table in it; the folder is empty"),
        (["a.txt"], "no images and no table in it; the folder holds a.txt"),
        (["1.jpg", "2.jpg"], "nothing tells the labels of its images: put them in one folder for each label"),
        (["calm/1.jpg", "calm/2.jpg"], "has only the label 'calm': give images of two labels or more"),
        (["a.csv", "b.csv"], r"holds several tables: name the one with the labels, as in `emor3 init .*a\.csv`"),
        (["train/calm/1.jpg", "sad/2.jpg"], "train/ beside sad/, which can be read in more than one way"),
    ],
)
def test_what_cannot_be_used_is_told_in_one_line(names: list[str], told: str, tmp_path: Path) -> None:
    for name in names:
        if name.endswith(".jpg"):
            pictures(tmp_path, name)
        else:
            (tmp_path / name).write_text("x\n")
    with pytest.raises(UserError, match=told):
        layout_of(str(tmp_path))


def test_a_place_that_is_no_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="gone: no such folder"):
        layout_of(str(tmp_path / "gone"))
    (tmp_path / "a.xlsx").write_text("x")
    with pytest.raises(UserError, match=r"a\.xlsx: no folder, and no table \(\.csv, "):
        layout_of(str(tmp_path / "a.xlsx"))
