"""Clips in folders, named by a table, and as MER and DFEW have them become rows of frames; what is no clip is named."""

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import layouts
from clips import clip_folders, frame_folder, moving, write_clip, write_sound
from emor3.data.folders import load_samples
from emor3.data.importers.clips import drawing
from emor3.data.importers.clips.challenges import MER6
from emor3.data.importers.importing import import_data, import_lines
from emor3.errors import UserError
from emor3.method.labels import EKMAN7
from emor3.storage.clips import draw_frames, write_frames


def bring(tmp_path: Path, name: str, source: Path, **options: Any) -> tuple[dict[str, Any], Any]:
    """Samples by id, and what was imported."""
    imported = import_data(name, str(source), tmp_path / "out", **options)
    return {sample.id: sample for sample in load_samples(str(tmp_path / "out"))}, imported


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]


def refused(name: str, source: Path, **options: Any) -> str:
    out = source.parent / "out"
    with pytest.raises(UserError) as caught:
        import_data(name, str(source), out, **options)
    assert not out.exists()
    assert list(source.parent.iterdir()) == [source]  # nothing half-made is left behind
    return str(caught.value)


# --- class folders


@pytest.mark.parametrize(
    ("form", "splits"),
    [("{label}", {"train", "test"}), ("train/{label}", {"train"}), ("my_clips/Testing/{label}/film", {"test"})],
)
def test_class_folders_of_clips_become_rows_of_frames(tmp_path: Path, form: str, splits: set[str]) -> None:
    clip_folders(tmp_path / "src", form=form)
    samples, imported = bring(tmp_path, "clips", tmp_path / "src")
    assert Counter(sample.label for sample in samples.values()) == {"calm": 3, "tense": 3}
    assert {sample.split for sample in samples.values()} == splits
    for name, sample in samples.items():
        assert sample.clip == name
        assert len(sample.images) == 4
        drawn = [frame.picture for frame in draw_frames(tmp_path / "src" / name)]
        for path, picture in zip(sample.images, drawn, strict=True):
            difference = np.asarray(Image.open(path), int) - np.asarray(picture, int)
            assert np.abs(difference).mean() < 2  # steps of 255 that JPEG moves a pixel on average
    assert f"kept: {len(samples)} rows, 4 frames of a clip each" in list(import_lines(imported, tmp_path / "out"))


def test_clips_in_class_folders_that_are_read_as_images_are_named_with_the_way_to_read_them(tmp_path: Path) -> None:
    clip_folders(tmp_path / "src")
    told = refused("folders", tmp_path / "src")
    assert "no usable image" in told
    assert "and video clips, which `emor3 data import clips` reads" in told


def test_a_row_names_its_clip_and_the_seconds_of_its_frames(tmp_path: Path) -> None:
    clip_folders(tmp_path / "src", each=1)
    bring(tmp_path, "clips", tmp_path / "src", frames=2, test_share=0)
    assert rows(tmp_path / "out")[0] == {
        "file_names": ["frames/calm/0.mp4/001.jpg", "frames/calm/0.mp4/002.jpg"],
        "clip": "calm/0.mp4",
        "times": [0.3, 0.9],  # frames 3 and 9 of 12, at 10 a second
        "label": "calm",
        "split": "train",
        "id": "calm/0.mp4",
    }
    assert sorted(path.name for path in (tmp_path / "out/frames").iterdir()) == ["calm", "tense"]


def test_folders_of_frames_are_clips_whose_frames_are_linked(tmp_path: Path) -> None:
    for label in ("calm", "tense"):
        frame_folder(tmp_path / f"src/img/{label}/1")
    samples, _ = bring(tmp_path, "clips", tmp_path / "src", frames=3)
    names = [[Path(path).name for path in sample.images] for sample in samples.values()]
    assert names == [["3.jpg", "7.jpg", "11.jpg"]] * 2  # of 12, of each 4 the third; 11 comes behind 3
    assert all(path.startswith(str(tmp_path / "out/images/img")) for s in samples.values() for path in s.images)
    assert "times" not in rows(tmp_path / "out")[0]


def test_what_is_no_clip_is_dropped_by_name_with_its_reason(tmp_path: Path) -> None:
    source = tmp_path / "src"
    clip_folders(source, each=2)
    write_sound(source / "calm/sound.mp4")
    write_clip(source / "calm/short.avi", moving(9, 3))
    layouts.text(source / "tense/page.mov", "<html>")
    (source / "empty").mkdir()
    samples, imported = bring(tmp_path, "clips", source)
    assert len(samples) == 4
    reasons = {entry["what"]: entry["reason"] for entry in imported.dropped}
    assert reasons == {
        "calm/sound.mp4": "has no video stream: it may be sound alone",
        "calm/short.avi": "has 3 frames, too few to draw 4: give a smaller --frames, or leave it out",
        "tense/page.mov": reasons["tense/page.mov"],
        "empty/": "it holds no clip",
    }
    assert reasons["tense/page.mov"].startswith("cannot be read as a video (Invalid data")


def test_frames_that_cannot_be_drawn_and_a_missing_decoder_end_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "src"
    clip_folders(source, each=1)
    assert refused("clips", source, frames=101).startswith("--frames 101: give a number from 1 to 100")
    monkeypatch.setitem(sys.modules, "av", None)
    assert refused("clips", source) == "reading video clips needs PyAV: pip install 'emor3[video]'"


# --- tables


@pytest.mark.parametrize("written", ["pieces/{}.mp4", "{}.mp4", "{}", "00{}", ".\\pieces\\{}.mp4"])
def test_a_table_names_clips_by_path_name_or_number(tmp_path: Path, written: str) -> None:
    source = tmp_path / "src"
    for number in (1, 2):
        write_clip(source / f"pieces/{number}.mp4", moving(number))
    lines = ["video_name,emotion,speaker", *(f"{written.format(n)},{('calm', 'tense')[n - 1]},anna" for n in (1, 2))]
    layouts.text(source / "labels.csv", *lines)
    samples, _ = bring(tmp_path, "clips", source)
    found = {name: (sample.label, sample.group) for name, sample in samples.items()}
    assert found == {"pieces/1.mp4": ("calm", "anna"), "pieces/2.mp4": ("tense", "anna")}


def test_clips_of_one_speaker_or_film_are_never_in_two_splits(tmp_path: Path) -> None:
    source = tmp_path / "src"
    lines = ["file,label,film"]
    for number in range(8):
        write_clip(source / f"{number}.mp4", moving(number))
        lines.append(f"{number}.mp4,{'calm' if number % 2 else 'tense'},film{number // 2}")
    layouts.text(source / "labels.csv", *lines)
    samples, _ = bring(tmp_path, "clips", source / "labels.csv", test_share=0.5)
    splits: dict[str, set[str]] = {}
    for sample in samples.values():
        splits.setdefault(sample.group, set()).add(sample.split)
    assert len(splits) == 4
    assert all(len(found) == 1 for found in splits.values())
    assert {sample.split for sample in samples.values()} == {"train", "test"}


def test_numbers_as_labels_and_columns_of_ones_own(tmp_path: Path) -> None:
    source = tmp_path / "src"
    for number in (1, 2):
        write_clip(source / f"test/{number:05d}.mp4", moving(number))
    layouts.text(source / "set.jsonl", '{"v": 1, "mood": 0}', '{"v": 2, "mood": 1}', '{"v": 3, "mood": 1}')
    columns, names = {"clip": "v", "label": "mood"}, {0: "calm", 1: "tense"}
    samples, imported = bring(tmp_path, "clips", source / "set.jsonl", columns=columns, label_names=names)
    assert {(sample.id, sample.label, sample.split) for sample in samples.values()} == {
        ("test/00001.mp4", "calm", "test"),
        ("test/00002.mp4", "tense", "test"),
    }
    assert imported.dropped == [{"what": "3", "reason": "there is no such clip"}]


def test_a_name_of_two_clips_is_not_guessed(tmp_path: Path) -> None:
    source = tmp_path / "src"
    for place in ("a/1.mp4", "b/1.mp4", "b/2.mp4", "b/3.mp4"):
        write_clip(source / place, moving(1))
    layouts.text(source / "labels.csv", "clip,label", "1,calm", "2,calm", "b/3,tense", "../src/a/1.mp4,calm")
    samples, imported = bring(tmp_path, "clips", source / "labels.csv")
    assert set(samples) == {"b/2.mp4", "b/3.mp4"}
    assert [entry["reason"] for entry in imported.dropped] == [
        "several clips have its name: a/1.mp4, b/1.mp4",
        "there is no such clip",
    ]


def test_arrays_are_read_and_pickled_objects_never_loaded(tmp_path: Path) -> None:
    source = tmp_path / "src"
    for number in (1, 2):
        write_clip(source / f"video/{number}.mp4", moving(number))
    np.savez(source / "labels.npz", name=np.array(["1", "2"]), discrete=np.array(["happy", "sad"]))
    samples, _ = bring(tmp_path, "clips", source)
    assert [sample.label for sample in samples.values()] == ["happy", "sad"]
    np.savez(source / "labels.npz", train_corpus=np.array({"1": {"emo": "happy"}}, object))
    with pytest.raises(UserError, match=r"found pickled Python objects in labels.npz, which could run any code"):
        import_data("clips", str(source), tmp_path / "other")
    np.savez(source / "labels.npz", name=np.array(["1", "2"]), discrete=np.array(["happy"]))
    with pytest.raises(UserError, match="no columns of one length"):
        import_data("clips", str(source), tmp_path / "other")


@pytest.mark.parametrize(
    ("lines", "options", "complaint"),
    [
        (("mood,label", "1,calm"), {}, "found the columns mood, label, none for the clip: give --column clip=NAME"),
        (("clip,mood", "1,calm"), {}, "none for the label: give --column label=NAME"),
        (("clip,label", "1,calm"), {"columns": {"clip": "piece"}}, "--column clip=piece: the table has the columns"),
        (("clip,label", "9,calm"), {}, "no usable clip; 9: there is no such clip"),
    ],
)
def test_a_table_that_names_no_clips_is_told(
    tmp_path: Path, lines: tuple[str, ...], options: dict[str, Any], complaint: str
) -> None:
    write_clip(tmp_path / "src/1.mp4", moving(1))
    layouts.text(tmp_path / "src/labels.csv", *lines)
    assert complaint in refused("clips", tmp_path / "src", **options)


# --- public sets


def mer(root: Path, table: str, place: str) -> None:
    """Three clips that the table labels, and two that nobody does."""
    labels = {"sample_00000001": "worried", "sample_00000002": "happy", "sample_00000003": "neutral"}
    for number, name in enumerate([*labels, "sample_00000008", "sample_00000009"]):
        write_clip(root / place / f"{name}.{'avi' if number % 2 else 'mp4'}", moving(number))
    layouts.text(root / table, "name,discrete,valence", *(f"{name},{label},-1.5" for name, label in labels.items()))


@pytest.mark.parametrize(
    ("table", "place"),
    [
        ("train-label.csv", "train"),
        ("label-disdim.csv", "video-labeled"),
        ("track1_train_disdim.csv", "video"),
    ],
)
def test_the_labelled_clips_of_a_mer_challenge_are_read_and_some_held_out(
    tmp_path: Path, table: str, place: str
) -> None:
    mer(tmp_path / "src", table, place)
    layouts.text(tmp_path / "src/subtitle_chieng.csv", "name,english", "sample_00000001,Hello.")
    samples, imported = bring(tmp_path, "mer", tmp_path / "src", test_share=0.5)
    assert [sample.label for sample in samples.values()] == ["worried", "happy", "neutral"]
    assert {sample.labels.labels for sample in samples.values()} == {MER6.labels}
    assert {sample.valence for sample in samples.values()} == {-1.5}
    assert imported.split == "0.5 of each label held out as test, seed 0"
    assert imported.labels == "mer6"


def test_mer_2025_is_tested_on_its_own_labels_if_they_are_there(tmp_path: Path) -> None:
    mer(tmp_path / "src", "track1_train_disdim.csv", "video")
    layouts.text(tmp_path / "src/track1_test_dis.csv", "name,discrete", "sample_00000008,angry")
    samples, imported = bring(tmp_path, "mer", tmp_path / "src")
    assert Counter(sample.split for sample in samples.values()) == {"train": 3, "test": 1}
    assert imported.split == "the set's own"


def test_what_the_mer_baselines_make_is_not_loaded_and_the_table_is_named(tmp_path: Path) -> None:
    write_clip(tmp_path / "src/video/a.mp4", moving(1))
    np.savez(tmp_path / "src/label-6way.npz", train_corpus=np.array({"a": {"emo": "happy", "val": 1.0}}, object))
    message = refused("mer", tmp_path / "src")
    assert "found none of train-label.csv, label-disdim.csv" in message
    assert "(label-6way.npz is pickled, and is not loaded)" in message


@pytest.mark.parametrize("layout", ["splits", "frames"])
def test_a_fold_of_dfew_is_read_with_its_numbers(tmp_path: Path, layout: str) -> None:
    source = tmp_path / "src"
    for number, label in ((1, 1), (2, 7)):
        if layout == "frames":
            frame_folder(source / f"data/{number:05d}")
        else:
            write_clip(source / f"Clip/original/{number}.mp4", moving(number))
            frame_folder(source / f"Clip/clip_224x224_16f/{number:05d}")
        form = "label/single_{}set_2.csv" if layout == "frames" else "EmoLabel_DataSplit/{}(single-labeled)/set_2.csv"
        layouts.text(source / form.format(("train", "test")[number - 1]), "video_name,label", f"{number},{label}")
    samples, _ = bring(tmp_path, "dfew", source, policy="fold2")
    assert [(sample.label, sample.split) for sample in samples.values()] == [("joy", "train"), ("fear", "test")]
    assert next(iter(samples.values())).labels == EKMAN7
    assert next(iter(samples)) == ("data/00001" if layout == "frames" else "Clip/original/1.mp4")
    with pytest.raises(UserError, match=r"found neither EmoLabel_DataSplit/train\(single-labeled\)/set_1.csv nor"):
        import_data("dfew", str(source), tmp_path / "other")


# --- an import that ends early goes on


def test_what_a_killed_import_had_drawn_is_not_drawn_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clip_folders(tmp_path / "src")
    whole = rows_and_frames(tmp_path, "whole")
    calls: list[Path] = []

    def two_then_a_kill(clip: Path, files: list[Path]) -> Any:
        calls.append(clip)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return write_frames(clip, files)

    monkeypatch.setattr(drawing, "write_frames", two_then_a_kill)
    with pytest.raises(KeyboardInterrupt):
        import_data("clips", str(tmp_path / "src"), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    journal = tmp_path / ".out.frames/drawn.jsonl"
    journal.write_text(journal.read_text() + '{"clip": "ten')  # cut short
    assert rows_and_frames(tmp_path, "out") == whole
    assert len(calls) == 3 + 4  # of six clips, two were drawn before
    assert "2 clips: their frames were drawn by an import that ended early" in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"src", "whole", "out"}


def rows_and_frames(tmp_path: Path, name: str) -> tuple[str, dict[str, bytes]]:
    import_data("clips", str(tmp_path / "src"), tmp_path / name)
    frames = {path.relative_to(tmp_path / name).as_posix(): path for path in (tmp_path / name).rglob("*.jpg")}
    content = {place: path.read_bytes() for place, path in sorted(frames.items())}
    return (tmp_path / name / "metadata.jsonl").read_text(), content


@pytest.mark.parametrize("change", ["frames", "clip"])
def test_frames_of_another_number_or_of_a_changed_clip_are_drawn_anew(tmp_path: Path, change: str) -> None:
    clip_folders(tmp_path / "src", each=1, form="train/{label}")
    with pytest.raises(UserError, match="--test-share does nothing here"):  # told when all clips are drawn
        import_data("clips", str(tmp_path / "src"), tmp_path / "out", test_share=0.5, frames=6)
    assert (tmp_path / ".out.frames/train/calm/0.mp4/006.jpg").is_file()
    if change == "clip":
        write_clip(tmp_path / "src/train/calm/0.mp4", moving(5, 20))
    count = 4 if change == "frames" else 6
    again = rows_and_frames_of(tmp_path, "out", count)
    assert again == rows_and_frames_of(tmp_path, "fresh", count)
    assert len(again) == 2 * count
    assert not (tmp_path / ".out.frames").exists()


def rows_and_frames_of(tmp_path: Path, name: str, count: int) -> dict[str, bytes]:
    import_data("clips", str(tmp_path / "src"), tmp_path / name, frames=count)
    return {
        path.relative_to(tmp_path / name).as_posix(): path.read_bytes() for path in (tmp_path / name).rglob("*.jpg")
    }
