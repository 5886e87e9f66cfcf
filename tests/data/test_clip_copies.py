"""Copies of clips are found whole; frames of one clip, and blank ones, are no copies of each other."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image
from transformers import ProcessorMixin
from typer.testing import CliRunner

from clips import clip_folders, grey_frames, moving, write_clip
from emor3.cli.main import app
from emor3.data.check import Report, check
from emor3.data.copies.overlaps import find_copies
from emor3.data.copies.scan import scan
from emor3.data.importers.importing import import_data
from emor3.data.settings import DataBlock
from emor3.models.checkpoints import resolve_checkpoint
from emor3.models.processors import load_processor

Clip = Sequence[Image.Image]


@pytest.fixture(scope="module")
def processor() -> ProcessorMixin:
    return load_processor(resolve_checkpoint("embedded"))


def still(seed: int) -> Clip:
    """A clip in which nothing moves."""
    return [moving(seed)[0]] * 12


def data(tmp_path: Path, **clips: Clip) -> str:
    """A data folder of clips, each named `split_label_…`."""
    for name, frames in clips.items():
        split, label, _ = name.split("_")
        write_clip(tmp_path / f"src/{split}/{label}/{name}.mp4", frames)
    import_data("clips", str(tmp_path / "src"), tmp_path / "data")
    return str(tmp_path / "data")


def looked_at(folder: str, processor: ProcessorMixin) -> Report:
    return check(folder, DataBlock(train=folder), processor)


def copied(folder: str) -> int:
    """Frames of the folder that have a copy anywhere."""
    return sum(overlap.near for overlap in find_copies(scan([folder], 1)).overlaps)


def test_frames_of_a_still_clip_are_no_copies(tmp_path: Path, processor: ProcessorMixin) -> None:
    folder = data(
        tmp_path, train_calm_1=still(1), train_tense_1=moving(2), test_calm_2=still(3), test_tense_2=moving(4)
    )
    report = looked_at(folder, processor)
    assert not any(tally.cases for tally in report.tallies())
    assert copied(folder) == 0


@pytest.mark.parametrize("frames", [still(1), moving(1)], ids=["still", "moving"])
def test_the_same_clip_in_two_splits_is_told_once(tmp_path: Path, processor: ProcessorMixin, frames: Clip) -> None:
    folder = data(tmp_path, train_calm_1=frames, train_tense_1=moving(2), test_calm_2=frames, test_tense_2=moving(4))
    report = looked_at(folder, processor)
    assert len(report.duplicates.cases) == 1  # not one for each of four frames
    assert "'train/calm/train_calm_1.mp4' in 'train' is also in 'test'" in report.duplicates.cases[0]
    assert report.near.cases == report.two_labels.cases == []
    assert copied(folder) >= 2  # a frame of either


def test_a_clip_encoded_again_is_a_near_copy_told_once_also_with_its_labels(
    tmp_path: Path, processor: ProcessorMixin
) -> None:
    smaller = [frame.resize((48, 36)) for frame in moving(1)]
    folder = data(tmp_path, train_calm_1=moving(1), train_tense_1=moving(2), test_tense_2=smaller)
    report = looked_at(folder, processor)
    assert report.duplicates.cases == []
    assert len(report.near.cases) == len(report.two_labels.cases) == 1
    assert copied(folder) >= 2


def test_clips_that_fade_from_black_are_no_copies(tmp_path: Path, processor: ProcessorMixin) -> None:
    black = grey_frames([0] * 3)  # of 12 frames, of each 3 the second: 1 is black
    folder = data(
        tmp_path, train_calm_1=[*black, *moving(1, 9)], train_tense_1=moving(2), test_calm_2=[*black, *moving(3, 9)]
    )
    report = looked_at(folder, processor)
    assert report.duplicates.cases == report.near.cases == report.two_labels.cases == []
    assert copied(folder) == 0


def test_a_group_of_clips_torn_between_splits_is_told(tmp_path: Path, processor: ProcessorMixin) -> None:
    clip_folders(tmp_path / "src", each=1)
    (tmp_path / "src/set.csv").write_text("clip,label,split,film\n0,calm,train,x\n1,tense,test,x\n")
    import_data("clips", str(tmp_path / "src/set.csv"), tmp_path / "data")
    assert len(looked_at(str(tmp_path / "data"), processor).torn_groups.cases) == 1


def test_a_prompt_counts_the_tokens_of_all_frames(tmp_path: Path, processor: ProcessorMixin) -> None:
    clip_folders(tmp_path / "src", each=1)
    for frames in (2, 4):
        import_data("clips", str(tmp_path / "src"), tmp_path / str(frames), frames=frames, test_share=0)
    two, four = (looked_at(str(tmp_path / str(frames)), processor) for frames in (2, 4))
    (frame,) = two.tokens
    assert (two.most_images, four.most_images) == (2, 4)
    assert max(four.lengths) - max(two.lengths) == 2 * frame
    result = CliRunner().invoke(app, ["data", "check", str(tmp_path / "4")])
    assert f"{max(four.lengths)} to {max(four.lengths)}" in " ".join(result.output.split())


def test_pages_show_all_frames(tmp_path: Path) -> None:
    folder = data(tmp_path, train_calm_1=moving(1), train_tense_1=moving(2))
    result = CliRunner().invoke(app, ["data", "stats", folder, "--html", str(tmp_path / "page.html")])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "page.html").read_text().count("data:image/jpeg") == 2 * 4
    assert json.loads((tmp_path / "data/import.json").read_text())["frames"] == 4
