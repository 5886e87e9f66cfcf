"""Bad input through the command line, as a person meets it: one clear line, exit status 2, no traceback."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from waiting import HANGS

GRPO = {"max_steps": 1, "num_generations": 2, "per_device_train_batch_size": 4, "max_completion_length": 8}


@pytest.fixture
def emor3(
    main_with: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., tuple[int, list[str]]]:
    """Run a command line in this process through `main`; returns its exit status and the lines it printed."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: Any) -> tuple[Any, ...]:
        status, told = main_with(*arguments), capfd.readouterr()
        return status, [line for line in (told.out + told.err).splitlines() if line.strip()]

    return run


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A good folder of four images with two labels, to be spoilt."""
    folder = tmp_path / "photos"
    folder.mkdir()
    rows = [{"file_name": f"{i}.jpg", "label": ("joy", "fear")[i % 2]} for i in range(4)]
    for i, row in enumerate(rows):
        Image.effect_noise((64, 64), 20 + i).save(folder / row["file_name"])
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture
def recipe(tmp_path: Path, photos: Path, random_checkpoint: str) -> Path:
    path = tmp_path / "recipe.yaml"
    content = {"output_dir": "run", "model": {"path": random_checkpoint}, "data": {"train": str(photos)}, "grpo": GRPO}
    path.write_text(yaml.safe_dump(content))
    return path


def spoil(photos: Any, **fields: Any) -> None:
    """Change the first row."""
    first, *rest = (photos / "metadata.jsonl").read_text().splitlines()
    (photos / "metadata.jsonl").write_text("\n".join([json.dumps(json.loads(first) | fields), *rest]) + "\n")


def cut(photos: Any) -> None:
    for path in photos.glob("*.jpg"):
        path.write_bytes(path.read_bytes()[:300])


SPOILT = {
    "missing image": (lambda photos: (photos / "0.jpg").unlink(), [], "line 1: image '0.jpg' does not exist"),
    "truncated jpeg": (cut, [], "cannot be read"),
    "label outside the set": (lambda photos: spoil(photos, label="bored"), ["data.labels=[joy, fear]"], "'bored'"),
    "label is no text": (lambda photos: spoil(photos, label=7), [], "line 1: 'label' must be a label in words"),
    "corrupt line": (lambda photos: (photos / "metadata.jsonl").write_text("{]\n"), [], "line 1: not JSON"),
    "no rows": (lambda photos: (photos / "metadata.jsonl").write_text(""), [], "label"),
    "no folder": (shutil.rmtree, [], "no such folder"),
    "no manifest": (lambda photos: (photos / "metadata.jsonl").unlink(), [], "no metadata.jsonl in this folder"),
    "way out of the folder": (lambda photos: spoil(photos, file_name="../0.jpg"), [], "leads out of the folder"),
}


@pytest.mark.parametrize("case", SPOILT)
def test_spoilt_data_ends_training_with_one_line(
    emor3: Callable[..., tuple[int, list[str]]], recipe: Path, photos: Path, case: str
) -> None:
    break_it, overrides, message = SPOILT[case]
    break_it(photos)
    status, lines = emor3("train", recipe, *(f"--set={override}" for override in overrides))
    assert (status, len([line for line in lines if line.startswith("error: ")])) == (2, 1), lines
    assert message in lines[-1]
    assert not any("Traceback" in line for line in lines)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("reward.fromat=0.1", "did you mean 'reward.format'?"),
        ("data.split=val", "no rows in split 'val'; it has train 4"),
        ("grpo.num_generations=1", "at least 2"),
        ("grpo.num_generations=four", "found 'four'"),
        ("grpo.num_generations=[2, 3]", "found [2, 3]"),
        ("grpo.learning_rate=high", "grpo.learning_rate: Input should be a valid number"),
        ("grpo.num_generation=4", "did you mean 'num_generations'?"),
        ("grpo.num_generations=3", "TRL refuses the grpo settings"),
        ("model.path=nowhere", "no checkpoint at nowhere"),
        ("model.path=./photos", "it has no config.json"),
        ("reward.reflective=0.95", "exceed 1"),
        ("reward.format=1.5", "a number from 0 to 1"),
        ("data.labels=moods.yaml", "cannot read the label set moods.yaml"),
        ("data.labels=moods", "unknown label set 'moods'"),
        ("template=prompt.txt", "template 'prompt.txt' is neither a shipped template nor a file"),
        ("nonsense", "--set takes KEY=VALUE"),
    ],
)
def test_a_bad_setting_ends_training_with_one_line(
    emor3: Callable[..., tuple[int, list[str]]], recipe: Path, override: str, message: str
) -> None:
    status, lines = emor3("train", recipe, "--set", override)
    assert status == 2
    assert lines[-1].startswith("error: ")
    assert message in lines[-1]
    assert not any("Traceback" in line for line in lines)


@pytest.mark.slow
def test_the_quickstart_refuses_a_bad_setting_before_it_evaluates_or_writes_anything(
    emor3: Callable[..., tuple[int, list[str]]],
) -> None:
    status, lines = emor3("quickstart", "--easy", "--set", "grpo.beat=1")
    assert status == 2
    assert lines[-1].startswith("error: ")
    assert "did you mean 'beta'?" in lines[-1]
    assert not any("evaluating" in line for line in lines)
    assert not Path("runs").exists()


def test_a_rate_in_scientific_notation_is_a_number_though_yaml_reads_a_text(recipe: Path, tmp_path: Path) -> None:
    from emor3.runs.recipe import load_recipe
    from emor3.training.trl_config import grpo_config

    loaded = load_recipe(recipe, ["grpo.learning_rate=5e-5"])
    assert loaded.grpo["learning_rate"] == "5e-5"
    assert grpo_config(loaded, tmp_path, 4).learning_rate == 5e-5


@pytest.mark.parametrize("command", ["train", "check"])
def test_a_file_that_is_no_recipe_ends_with_one_line(
    emor3: Callable[..., tuple[int, list[str]]], tmp_path: Path, photos: Path, command: str
) -> None:
    (tmp_path / "list.yaml").write_text("- a\n")
    for name, message in (("none.yaml", "cannot read the recipe"), ("list.yaml", "must be a mapping of settings")):
        arguments = ("train", name) if command == "train" else ("data", "check", photos, "--recipe", name)
        status, lines = emor3(*arguments)
        assert (status, len(lines)) == (2, 1)
        assert message in lines[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("evaluate", "--model", "nowhere", "--data", "photos"), "no checkpoint at nowhere"),
        (("evaluate", "--model", "embedded", "--data", "nowhere"), "no such folder"),
        (("evaluate", "--model", "embedded", "--data", "embedded:nine"), "choose one of scenes8, scenes6, scenes7"),
        (("evaluate", "--model", "embedded", "--data", "photos"), "no rows in split 'test'; it has train 4"),
        (("evaluate", "--model", "embedded", "--data", "photos", "--template", "x"), "neither a shipped template"),
        (("predict", "--model", "./photos", "0.jpg"), "it has no config.json"),
        (("predict", "--model", "embedded", "--labels", "moods", "0.jpg"), "unknown label set 'moods'"),
        (("predict", "--model", "embedded", "--labels", "one,one", "0.jpg"), "label"),
        (("data", "check", "nowhere"), "no such folder"),
        (("data", "check", "photos", "--set", "model.path=nowhere"), "no checkpoint at nowhere"),
        (("score", "nowhere.jsonl"), "cannot read nowhere.jsonl"),
        (("quickstart", "--output", "photos"), "exists and is not empty"),
    ],
)
def test_the_other_commands_refuse_bad_input_with_one_line(
    emor3: Callable[..., tuple[int, list[str]]], photos: Path, arguments: tuple[Any, ...], message: str
) -> None:
    split = ("--split", "all") if "--template" in arguments else ()
    status, lines = emor3(*arguments, *split)
    assert (status, len(lines)) == (2, 1), lines
    assert message in lines[0]


@pytest.mark.slow
def test_a_model_that_no_hub_gives_is_refused_at_once_in_a_process_of_its_own(tmp_path: Path) -> None:
    closed = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path)}  # nothing listens there
    command = [sys.executable, "-m", "emor3.cli.main", "predict", "--model", "org/nothing", "x.png"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, **closed}, timeout=HANGS
    )
    assert done.returncode == 2
    first, told = done.stderr.splitlines()  # no retry after retry
    assert first == "emor3 predict: loading"
    assert told.startswith("error: no folder org/nothing, and the hub cannot be reached (")
    assert not Path(tmp_path, "hub").exists()


@pytest.mark.parametrize("spoilt", ["weights", "config", "template", "length"])
def test_a_checkpoint_that_cannot_be_used_ends_every_command_with_one_line(
    emor3: Callable[..., tuple[int, list[str]]],
    recipe: Path,
    photos: Path,
    random_checkpoint: str,
    tmp_path: Path,
    spoilt: str,
) -> None:
    folder = shutil.copytree(random_checkpoint, tmp_path / "model")
    content = (folder / "model.safetensors").read_bytes()
    if spoilt == "weights":
        (folder / "model.safetensors").write_bytes(content[: len(content) // 2])
    elif spoilt == "config":
        (folder / "config.json").write_text("[1]")
    elif spoilt == "template":
        (folder / "chat_template.jinja").write_text("{{ 1 / 0 }}")
    too_long = spoilt == "length"
    tokens = 2040 if too_long else 8
    length = ("--max-new-tokens", tokens)
    for arguments in (
        ("predict", "-m", folder, photos / "0.jpg", *length),
        ("evaluate", "-m", folder, "-d", photos, "--split", "all", *length),
        (
            "train",
            recipe,
            "--set",
            f"model.path={folder}",
            f"--set=grpo.max_completion_length={2040 if too_long else 8}",
        ),
    ):
        status, lines = emor3(*arguments)
        told = [line for line in lines if not line.startswith("Loading weights")]
        assert (status, len(told)) == (2, 1), told
        assert ("context of" if too_long else str(folder)) in told[0]
    assert not (tmp_path / "runs").exists()
    assert not list((tmp_path / "run").glob("checkpoints/checkpoint-*"))


def test_a_checkpoint_with_code_ends_with_one_line_though_a_yes_is_waiting(
    emor3: Callable[..., tuple[int, list[str]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model").mkdir()
    code = {"model_type": "own", "auto_map": {"AutoConfig": "own.C", "AutoModelForImageTextToText": "own.M"}}
    (tmp_path / "model" / "config.json").write_text(json.dumps(code))
    (tmp_path / "model" / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    monkeypatch.setattr("builtins.input", lambda prompt="": "yes")
    status, lines = emor3("predict", "-m", "./model", "0.jpg")
    assert (status, len(lines)) == (2, 1), lines
    assert "code in checkpoints is never run" in lines[0]
    assert not (tmp_path / "ran").exists()
