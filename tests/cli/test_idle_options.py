"""An option that a command would take and ignore is refused in one line, before anything is loaded or written."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner, Result

from emor3.cli import main as cli
from emor3.errors import UserError
from made_up import prediction, save_evaluation

VALUES = {"labels": "a,b", "engine": "vllm", "template": "steps", "judge": "m", "model": "m", "data": "d", "split": "x"}
"""Words for the options that take one; the others take a number or nothing."""


def run(*arguments: Any) -> Result:
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


def options_of(command: str) -> list[Any]:
    return [p for p in get_command(cli.app).commands[command].params if p.opts[0].startswith("--")]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = [prediction("joy", answer, id=f"s{place}") for place, answer in enumerate(("joy", "fear"))]
    return save_evaluation(tmp_path_factory.mktemp("saved") / "a", {"d": made})


TAKEN = ("saved", "data", "output", "help")
"""What `evaluate --from` takes."""


@pytest.mark.parametrize("option", [o for o in options_of("evaluate") if o.name not in TAKEN], ids=lambda o: o.name)
def test_recomputing_figures_refuses_every_option_of_an_evaluation(option: Any, saved: Path, tmp_path: Path) -> None:
    value = [] if option.is_flag else [VALUES.get(option.name, 1)]
    refused = run("evaluate", "--from", saved, "-o", tmp_path / "b", option.opts[0], *value)
    assert isinstance(refused.exception, UserError)
    assert f"{option.opts[0]} does nothing with --from" in str(refused.exception)
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("arguments", "idle"),
    [
        (["predict", "a.png", "-m", "m", "--abstain-below", 0.4], "--abstain-below does nothing without --samples"),
        (["predict", "a.png", "-m", "m", "--samples", 2, "--temperature", 0], "--temperature does nothing with --samp"),
        (["train", "r.yaml", "--resume", "--overwrite"], "give one of them"),
        (["demo", "--export-space", "d", "--port", 1], "--port does nothing with --export-space"),
        (["demo", "--export-space", "d", "--host", "::"], "--host does nothing with --export-space"),
        (["quickstart", "--set", "seed=3"], "give --seed"),
        (["quickstart", "--set", "output_dir=x"], "give --output"),
        (["quickstart", "--easy", "--set", "seed=3"], "give --seed"),
        (["report", "runs", "--every", 5], "--every does nothing without --watch"),
        (["data", "import", "folders", "a", "b", "--column", "label=x"], "--column does nothing with folders"),
        (["data", "sample", "a", "b", "--ids", "x", "--natural"], "--natural does nothing with --ids"),
        (["data", "sample", "a", "b", "--ids", "x", "--seed", 1], "--seed does nothing with --ids"),
        (["data", "stats", "a", "--per-label", 3], "--per-label does nothing without --html"),
        (["data", "stats", "a", "--seed", 3], "--seed does nothing without --html"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, list) else "",
)
def test_an_option_that_would_be_ignored_is_refused(arguments: list[Any], idle: str) -> None:
    refused = run(*arguments)
    assert isinstance(refused.exception, UserError), refused.output
    assert idle in str(refused.exception)


def test_a_share_to_hold_out_is_refused_for_a_set_with_splits(tmp_path: Path, scenes: str) -> None:
    shutil.copytree(scenes, tmp_path / "rows")
    rows = [json.loads(line) for line in (tmp_path / "rows/metadata.jsonl").read_text().splitlines()]
    written = [{"image": row["file_name"], "label": row["label"], "split": row["split"]} for row in rows]
    (tmp_path / "rows/t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in written))
    taken = ["data", "import", "table", tmp_path / "rows/t.jsonl"]
    assert run(*taken, tmp_path / "out").exit_code == 0
    refused = run(*taken, tmp_path / "other", "--test-share", 0.5)
    assert "has splits of its own" in str(refused.exception)
    assert not (tmp_path / "other").exists()


def test_recomputed_figures_go_to_the_folder_asked_for_and_leave_the_saved_ones(saved: Path, tmp_path: Path) -> None:
    (saved / "results.json").write_text("old")
    result = run("evaluate", "--from", saved, "-o", tmp_path / "b")
    assert result.exit_code == 0, result.output
    assert (saved / "results.json").read_text() == "old"
    assert json.loads((tmp_path / "b/results.json").read_text())["data"][0]["n"] == 2
    assert run("compare", saved, tmp_path / "b").exit_code == 0  # a whole evaluation, which others can read
    refused = run("evaluate", "--from", saved, "-o", tmp_path / "b")
    assert "exists and is not empty" in str(refused.exception)
    assert run("evaluate", "--from", saved).exit_code == 0
    assert json.loads((saved / "results.json").read_text())["data"]
