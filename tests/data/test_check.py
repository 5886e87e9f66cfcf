"""`emor3 data check` finds each defect, counts what is there, and tells what breaks training from what flatters."""

import json

import pytest
from PIL import Image
from rich.console import Console

from emor3.data.check import check, report_table, token_counter
from emor3.data.settings import DataBlock
from emor3.errors import UserError
from emor3.models.checkpoints import load
from emor3.models.generation import chat, encode
from emor3.storage.images import open_image

LABELS = ["joy", "fear"]


@pytest.fixture(scope="module")
def processor(random_checkpoint):
    return load(random_checkpoint)[1]


def settings(**data):
    return DataBlock(**{"train": "x", "labels": LABELS, **data})


def write(folder, rows):
    """A folder with an image of its own colour for every row; returns a function that checks it."""
    for index, row in enumerate(rows):
        Image.new("RGB", (64, 64), (index, 9, 9)).save(folder / row["file_name"])
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(folder)


def row(name, label="joy", **fields):
    return {"file_name": f"{name}.png", "label": label, **fields}


def found(report):
    return {tally.what: tally.count for tally in report.tallies() if tally.count}


def text_of(report):
    console = Console(width=100, color_system=None, markup=False)  # as the command prints it
    with console.capture() as capture:
        console.print(report_table(report))
    return capture.get()


def test_a_sound_folder_has_no_faults_and_its_rows_and_tokens_are_counted(tmp_path, processor):
    report = check(write(tmp_path, [row("a"), row("b", "fear", split="test"), row("c")]), settings(), processor)
    assert found(report) == {}
    assert not report.breaks_training()
    assert (report.rows, report.counts["train", "joy"], report.counts["test", "fear"]) == (3, 2, 1)
    assert dict(report.tokens) == {18: 3}  # 64 x 64 pixels / (8 x 2)^2 = 16 tokens between a start and an end
    assert "train 2 (joy 2, fear 0)" in " ".join(text_of(report).split())


def test_the_tokens_of_an_image_are_those_of_the_prompt_that_training_makes(tmp_path, processor):
    path = tmp_path / "wide.png"
    Image.new("RGB", (320, 64)).save(path)
    both = [encode(processor, [(images, "Look.")])["input_ids"].shape[1] for images in ((str(path),), ())]
    assert token_counter(processor, "Look.")(open_image(str(path)).size) == both[0] - both[1]
    assert chat("Look.", True)[0]["content"][0] == {"type": "image"}


@pytest.mark.parametrize(
    ("bad", "what", "message"),
    [
        (row("x", "bored"), "bad rows", "label 'bored' is not in the set"),
        (row("x", 3), "bad rows", "must be a label in words"),
        (row("a"), "bad rows", "the id 'a.png' is used by an earlier row"),
        (row("x") | {"file_name": "../x.png"}, "bad rows", "leads out of the folder"),
        (row("x") | {"file_name": "gone.png"}, "bad rows", "image 'gone.png' does not exist"),
        (row("x", distribution={"bored": 1}), "bad rows", "must hold votes for labels"),
        (row("truncated"), "unreadable images", "line 2: image"),
        (row("empty"), "unreadable images", "cannot identify image file"),
        (row("strip"), "unreadable images", "too long a strip"),
    ],
)
def test_each_defect_of_a_row_breaks_training_and_is_shown_with_its_line(tmp_path, processor, bad, what, message):
    write(tmp_path, [row("a")])
    Image.new("RGB", (64, 64), "red").save(tmp_path / "x.png")
    (tmp_path / "truncated.png").write_bytes((tmp_path / "x.png").read_bytes()[:60])
    (tmp_path / "empty.png").touch()
    Image.new("RGB", (400, 2)).save(tmp_path / "strip.png")
    (tmp_path / "metadata.jsonl").write_text(f"{json.dumps(row('a'))}\n{json.dumps(bad)}\n", encoding="utf-8")
    report = check(str(tmp_path), settings(), processor)
    assert found(report) == {what: 1}
    assert report.breaks_training()
    assert message in report.bad_rows.examples[0] if what == "bad rows" else message in report.unreadable.examples[0]
    assert "line 2" in text_of(report)


def test_a_line_that_is_not_json_is_counted_and_the_rest_is_still_checked(tmp_path, processor):
    folder = write(tmp_path, [row("a"), row("b", "fear")])
    with (tmp_path / "metadata.jsonl").open("a", encoding="utf-8") as manifest:
        manifest.write("{broken\n")
    report = check(folder, settings(labels=None), processor)
    assert (report.rows, found(report), report.counts.total()) == (3, {"bad rows": 1}, 2)


def test_a_split_without_readable_rows_cannot_be_trained_on(tmp_path, processor):
    folder = write(tmp_path, [row("a", split="test"), row("b", "fear", split="test")])
    assert found(check(folder, settings(), processor)) == {"empty training split": 1}
    assert found(check(folder, settings(split="test"), processor)) == {}
    assert found(check(folder, settings(split=None), processor)) == {}


def test_what_is_in_two_splits_flatters_evaluation_but_does_not_break_training(tmp_path, processor):
    rows = [row("a", group="g"), row("b", split="test", group="g"), row("c"), row("d", split="test")]
    folder = write(tmp_path, rows)
    (tmp_path / "d.png").write_bytes((tmp_path / "c.png").read_bytes())
    report = check(folder, settings(), processor)
    assert found(report) == {"same image or text in two splits": 1, "group in two splits": 1}
    assert not report.breaks_training()
    assert "flatters evaluation" in text_of(report)


@pytest.mark.parametrize("name", ["train", "Testing", "vals", "test_set"])
def test_a_label_with_the_name_of_a_split_is_warned_about(tmp_path, name):
    report = check(write(tmp_path, [row("a"), row("b", label=name)]), settings(labels=["joy", name]), None)
    assert found(report) == {"label with the name of a split": 1}
    assert not report.breaks_training()


def test_a_folder_whose_label_set_cannot_be_told_is_refused(tmp_path, processor):
    with pytest.raises(UserError, match="label"):
        check(write(tmp_path, [row("a"), row("b")]), settings(labels=None), processor)  # one label only


def test_hostile_text_in_a_manifest_does_not_reach_the_terminal_as_it_is(tmp_path, processor):
    folder = write(tmp_path, [row("a"), row("b", "\x1b[2J[red]x\nforged line")])
    shown = text_of(check(folder, settings(), processor))
    assert "\x1b" not in shown
    assert "[red]x" in shown
