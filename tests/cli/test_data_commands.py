"""The `emor3 data` commands, as a newcomer meets them: what they print, write and return, wrong input included."""

import json

import pytest
from PIL import Image
from typer.testing import CliRunner

import layouts
from emor3.cli.main import app
from emor3.data.check import check
from emor3.data.importers.catalogue import SETS
from emor3.data.prompt_lengths import PROMPT_TOKENS, suggest_max_pixels, text_tokens, token_counter
from emor3.errors import UserError
from emor3.experiments.quickstart import RECIPE
from emor3.models.architectures import limit_pixels
from emor3.models.checkpoints import resolve_checkpoint
from emor3.models.processors import load_processor
from emor3.runs.recipe import load_recipe
from places import ROOT


def call(*arguments):
    return CliRunner().invoke(app, ["data", *map(str, arguments)])


def folder_of(path, rows, seed=0):
    """A data folder; rows are (name, split, picture, more fields)."""
    path.mkdir()
    lines = []
    for name, split, picture, more in rows:
        picture.save(path / name)
        lines.append(json.dumps({"file_name": name, "label": "joy", "split": split, **more}) + "\n")
    (path / "metadata.jsonl").write_text("".join(lines))
    return path


@pytest.fixture
def picture(tmp_path):
    """A picture with something in it."""
    image = Image.radial_gradient("L").resize((120, 90)).convert("RGB")
    image.paste("red", (10, 20, 60, 40))
    image.paste("navy", (70, 50, 100, 85))
    return image


@pytest.fixture(scope="module")
def processor():
    return load_processor(resolve_checkpoint("embedded"))


def report_of(folder, processor):
    return check(str(folder), load_recipe(RECIPE, ["data.labels=ekman6"]).data, processor)


def test_a_set_goes_from_download_to_checked_data_in_two_commands(tmp_path):
    layouts.emoset(tmp_path / "EmoSet-118K")
    done = call("import", "emoset", tmp_path / "EmoSet-118K", tmp_path / "emoset")
    assert done.exit_code == 0
    assert "train: 8 rows" in done.output
    done = call("check", tmp_path / "emoset")
    assert done.exit_code == 0
    assert "mikels8" in done.output


def test_the_help_of_import_and_its_page_name_every_set():
    text = " ".join(call("import", "--help").output.split())
    page = (ROOT / "docs/datasets.md").read_text(encoding="utf-8")
    for name in SETS:
        assert name in text
        assert f"import {name}" in page


def test_options_in_a_wrong_form_are_answered_with_an_example(tmp_path):
    for arguments, example in (
        (("import", "table", "t.csv", tmp_path / "out", "--column", "mood"), "--column label=mood"),
        (("sample", tmp_path, tmp_path / "out", "--size", "2100"), "--size train=2100"),
        (("sample", tmp_path, tmp_path / "out"), "give --size, as in --size train=2100, or --ids"),
    ):
        result = call(*arguments)
        assert isinstance(result.exception, UserError)
        assert example in str(result.exception)


def test_check_finds_near_copies_across_splits_and_between_labels(tmp_path, picture, processor):
    smaller = picture.resize((80, 60))
    other = Image.linear_gradient("L").convert("RGB")
    rows = [
        ("a.png", "train", picture, {}),
        ("b.jpg", "test", smaller, {"label": "fear"}),
        ("c.png", "test", other, {}),
    ]
    report = report_of(folder_of(tmp_path / "data", rows), processor)
    assert report.near.cases == ["'a.png' in 'train' and 'b.jpg' in 'test'"]
    assert report.two_labels.cases == ["'a.png' is 'joy' and 'b.jpg' is 'fear'"]
    assert report.duplicates.count == 0  # the files differ


def test_an_exact_copy_is_not_counted_as_a_near_one_too(tmp_path, picture, processor):
    rows = [("a.png", "train", picture, {}), ("b.png", "test", picture, {})]
    report = report_of(folder_of(tmp_path / "data", rows), processor)
    assert (report.duplicates.count, report.near.count) == (1, 0)


def test_check_hints_at_labels_that_the_votes_do_not_carry(tmp_path, picture, processor):
    rows = [
        ("a.png", "train", picture, {"distribution": {"joy": 2, "fear": 5, "anger": 3}}),
        ("b.png", "train", picture, {"distribution": {"joy": 4, "fear": 4, "anger": 2}}),
        ("c.png", "train", picture, {"distribution": {"joy": 4, "fear": 3, "anger": 3}}),
    ]
    report = report_of(folder_of(tmp_path / "data", rows), processor)
    assert report.outvoted.cases == ["'a.png' is 'joy', but 50% of the votes say 'fear'"]
    assert report.tied.cases == ["'b.png': 'joy' and 'fear' have 40% of the votes each"]


def test_every_case_is_named_in_a_file_where_the_screen_shows_three(tmp_path, picture):
    rows = [(f"{index}.png", "train", picture, {"label": "bored"}) for index in range(5)]
    folder = folder_of(tmp_path / "data", [*rows, ("ok.png", "train", picture, {})])
    faults = tmp_path / "faults.jsonl"
    done = call("check", folder, "--rows-only", "--set", "data.labels=ekman6", "--faults", faults)
    assert done.exit_code == 1
    cases = [json.loads(line) for line in faults.read_text().splitlines()]
    assert [case["what"] for case in cases] == ["bad rows"] * 5
    assert "line 5: label 'bored'" in cases[4]["case"]


def test_a_test_set_passes_the_check_unless_a_recipe_or_the_person_asks_for_training(tmp_path, picture):
    rows = [(f"{label}.png", "test", picture, {"label": label}) for label in ("joy", "fear")]
    folder = folder_of(tmp_path / "data", rows)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"output_dir: run\nmodel: {{path: embedded}}\ndata: {{train: {folder}}}\n")
    asked = {(): 0, ("--for", "evaluate"): 0, ("--for", "train"): 1, ("--recipe", recipe): 1}
    asked[("--recipe", recipe, "--for", "evaluate")] = 0
    for options, status in asked.items():
        done = call("check", folder, "--rows-only", *options)
        assert (done.exit_code, "no readable rows in split 'train'" in done.output) == (status, bool(status)), options


def test_rows_alone_can_be_checked_without_opening_an_image(tmp_path, picture):
    folder = folder_of(tmp_path / "data", [("a.png", "train", picture, {})])
    (folder / "a.png").write_bytes(b"no picture")
    report = report_of(folder, None)
    assert (report.counts["train", "joy"], report.unreadable.count, report.text_tokens) == (1, 0, 0)


def test_the_suggested_limit_is_the_largest_at_which_the_longest_prompt_fits(processor):
    prompt = "word " * 400
    text = text_tokens(processor, prompt)
    limit = suggest_max_pixels(processor, text)
    limited = load_processor(resolve_checkpoint("embedded"))
    limit_pixels(limited, limit)
    longest = text + token_counter(limited, prompt)((4000, 4000))
    assert PROMPT_TOKENS - 200 < longest <= PROMPT_TOKENS
    assert suggest_max_pixels(processor, PROMPT_TOKENS) is None
