"""`emor3 init`: from a person's images to a recipe that passes `data check` and `plan`, and over nothing."""

import os
from collections.abc import Callable
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import pytest
import yaml

import layouts
from emor3.runs.recipe import load_recipe
from emor3.storage.shipped import RECIPES
from emor3.tools.first_recipe import Machine, settings_for


@pytest.fixture
def emor3(
    main_with: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., tuple[int, list[str]]]:
    """Run a command line in a folder with class folders; returns its exit status and the lines it printed."""
    monkeypatch.chdir(tmp_path)
    for split, count in (("train", 3), ("test", 1)):
        for label in ("calm", "at ease"):
            for place in range(count):
                layouts.image(tmp_path / "my photos" / split / label / f"{split}{place}.jpg")

    def run(*arguments: Any) -> tuple[int, list[str]]:
        status, told = main_with(*arguments), capfd.readouterr()
        return status, [line for line in (told.out + told.err).splitlines() if not line.endswith(": loading")]

    return run


def test_class_folders_become_a_recipe_that_passes_data_check_and_plan(
    emor3: Callable[..., tuple[int, list[str]]], random_checkpoint: str
) -> None:
    status, told = emor3("init", "my photos", "--gpu-memory", 0, "--model", random_checkpoint)
    assert (status, told[0]) == (0, "data: data/my_photos: 2 labels (at ease, calm), rows: test 2, train 6")
    assert told[1].startswith("machine: no GPU, ")
    assert told[2] == f"model: {random_checkpoint}, with the settings of the shipped recipe photos_laptop"
    assert told[3] == "written to: my_photos.yaml"
    commands = told[4].removeprefix("next: emor3 ").split(", then emor3 ")
    assert [command.split()[0] for command in commands] == ["data", "plan", "train"]
    for command in commands[:2]:
        assert emor3(*command.split())[0] == 0, command
    assert emor3("init", "data/my_photos") == (
        2,
        ["error: my_photos.yaml exists: choose another name, or delete it"],
    )
    assert emor3("init", "my photos", "-o", "b.yaml")[1][0].startswith(
        "error: data/my_photos exists: `emor3 init data/my_photos` takes it"
    )


@pytest.mark.parametrize(
    ("gigabytes", "shipped"), [(0, "photos_laptop"), (24, "emoset_3b_lora_1x24gb"), (80, "emoset_3b_full_1x80gb")]
)
def test_the_settings_are_those_of_the_shipped_recipe_for_the_machine(
    gigabytes: int, shipped: str, emor3: Callable[..., tuple[int, list[str]]], scenes: str
) -> None:
    status, told = emor3("init", scenes, "--gpu-memory", gigabytes, "-o", "my.yaml", "--labels", "mikels8")
    assert status == 0
    assert f"settings of the shipped recipe {shipped}" in told[2]
    mine, theirs = (yaml.safe_load(path.read_text()) for path in (Path("my.yaml"), RECIPES / f"{shipped}.yaml"))
    own = {"output_dir": "runs/my", "data": {"train": scenes, "labels": "mikels8"}}
    assert mine == theirs | own
    text = Path("my.yaml").read_text()
    assert "not run by us" in text
    above = {line.split(":")[0]: before for before, line in zip(text.splitlines(), text.splitlines()[1:], strict=False)}
    assert all(above[key].startswith("# ") for key in mine)  # each block says what it is for


def test_an_embedded_model_comes_with_its_settings_and_another_model_without_a_limit_it_does_not_know(
    emor3: Callable[..., tuple[int, list[str]]], scenes: str, tmp_path: Path
) -> None:
    assert settings_for(Machine(80e9, 80e9, 8), scenes, "embedded-hard") == ("oasis_photos", "embedded-hard")
    assert emor3("init", scenes, "-m", "embedded-hard", "-o", "a.yaml")[0] == 0
    assert load_recipe("a.yaml").model.path == "embedded-hard"
    config = '{"model_type": "llava", "vision_config": {"model_type": "clip_vision_model"}}'
    (tmp_path / "llava #1").mkdir()
    (tmp_path / "llava #1/config.json").write_text(config)
    assert emor3("init", scenes, "-m", "llava #1", "--gpu-memory", 0, "-o", "b.yaml")[0] == 0
    made = load_recipe("b.yaml").model
    assert (made.path, made.max_pixels) == ("llava #1", None)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "name your images: emor3 init DATA, a folder of class folders, or a table"),
        (("gone",), "gone: no such folder"),
        (("my photos/train/calm",), "my photos/train/calm: nothing tells the labels of its images"),
        (("one.csv", "--copy"), "one.csv has only the label 'calm'"),
        (("rows",), "rows has only the label 'calm'"),
        (("tests",), "tests: no readable rows in split 'train'; `emor3 data check tests --for train` names"),
        (("rows", "--import-to", "new"), "--import-to does nothing here: rows is a data folder already"),
        (("my photos", "--labels", "moods"), "unknown label set 'moods'"),
    ],
)
def test_what_cannot_be_used_is_one_line_and_leaves_no_recipe(
    arguments: tuple[str, ...], told: str, emor3: Callable[..., tuple[int, list[str]]]
) -> None:
    Path("one.csv").write_text("image,label\nmy photos/train/calm/train0.jpg,calm\n")
    for folder, rows in (("rows", ["calm"]), ("tests", ["calm", "tense"])):
        Path(folder).mkdir()
        lines = (f'{{"id": "{label}", "text": "x", "label": "{label}", "split": "test"}}\n' for label in rows)
        Path(folder, "metadata.jsonl").write_text("".join(lines))
    status, lines = emor3("init", *arguments)
    assert status == 2
    assert len(lines) == 1
    assert lines[0].startswith(f"error: {told}")
    assert not list(Path().glob("*.yaml"))
    assert not Path("data/one").exists()


def test_on_a_terminal_it_asks_for_the_images_and_the_name_of_the_recipe(
    emor3: Callable[..., tuple[int, list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    person, terminal = os.openpty()
    with open(terminal, "r+b", buffering=0) as both, open(person, "r+b", buffering=0) as keys:
        monkeypatch.setattr("sys.stdin", TextIOWrapper(both, line_buffering=True))
        monkeypatch.setattr("sys.stderr", TextIOWrapper(both, write_through=True))
        keys.write(b"my photos\nmine.yaml\n")
        status, told = emor3("init", "--gpu-memory", 0)
        shown = keys.read(4096).decode()
    assert (status, told[-1]) == (0, "written to: mine.yaml")
    assert "Folder or table of your labelled images:" in shown
    assert "Recipe to write [my_photos.yaml]:" in shown
