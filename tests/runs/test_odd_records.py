"""Records that are not as they were written are one line that names the file, in every command that reads them."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_reproduce import finish, write_plan

from emor3.cli.main import app
from emor3.errors import UserError
from emor3.experiments.plan import cells_of, load_plan
from emor3.experiments.results import Results
from emor3.experiments.table import write_tables
from emor3.method.types import Prediction
from emor3.runs.directory import CONFIG, ENVIRONMENT, METRICS, ROLLOUTS
from emor3.runs.predictions import EVALUATION, PREDICTIONS, RESULTS, read_evaluation
from emor3.runs.recipe import build_recipe
from emor3.runs.records import append_jsonl, read_json
from emor3.training.run import train
from made_up import prediction, prepare_run, save_evaluation

OBJECTS = [b"{}", b"[1]", b"3", b"\xff", b"", b"[" * 5000, b'{"version": 2, "version": ' + b"9" * 5000 + b"}"]
LINES = [*OBJECTS[:4], b"[" * 5000, b"null"]


def two_items() -> list[Prediction]:
    return [
        prediction("joy", "joy", id="a", sampled=("joy", None)),
        prediction("fear", "joy", id="b", votes={"fear": 1.0}),
    ]


@pytest.fixture
def evaluation(tmp_path: Path) -> Path:
    return save_evaluation(tmp_path / "evaluation", {"d": two_items()})


@pytest.fixture
def run(tmp_path: Path, scenes: str, random_checkpoint: str) -> Path:
    """A run that was killed after two steps and before its first checkpoint."""
    content = {"output_dir": str(tmp_path / "run"), "model": {"path": random_checkpoint}, "data": {"train": scenes}}
    folder = prepare_run(build_recipe(content, [], "here"), resume=False, overwrite=False)
    for name in (METRICS, ROLLOUTS):
        append_jsonl(folder / name, [{"step": 1, "reward": 0.5}, {"step": 2, "reward": 0.5}])
    shutil.copytree(random_checkpoint, folder / "final")
    return folder


def one_line(call: Any, path: Path) -> str:
    """Call it, and return its message, which must be one about that file."""
    with pytest.raises(UserError) as caught:
        call()
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    assert len(message) < 600
    return message


def command(*arguments: Any) -> Callable[[], Any]:
    return lambda: app([str(argument) for argument in arguments], standalone_mode=False)


def spoil(path: Path, number: int, line: Any) -> None:
    """Put a line in the place of another (from 1)."""
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[: number - 1], line + b"\n", *lines[number:]]))


@pytest.mark.parametrize("content", OBJECTS)
@pytest.mark.parametrize("use", ["evaluate", "compare", "share"])
def test_an_odd_evaluation_json_is_one_line(evaluation: Path, tmp_path: Path, use: str, content: Any) -> None:
    (evaluation / EVALUATION).write_bytes(content)
    arguments = {"evaluate": ["--from"], "compare": [evaluation], "share": []}[use]
    if content == b"{}":
        one_line(command(use, *arguments, evaluation, *([tmp_path / "out"] if use == "share" else [])), evaluation)
    else:
        out = [tmp_path / "out"] if use == "share" else []
        one_line(command(use, *arguments, evaluation, *out), evaluation / EVALUATION)


@pytest.mark.parametrize("line", LINES)
def test_an_odd_line_of_predictions_is_named_by_its_number(evaluation: Path, line: Any) -> None:
    spoil(evaluation / PREDICTIONS, 2, line)
    for use in (["evaluate", "--from"], ["compare", evaluation]):
        assert "line 2: " in one_line(command(*use, evaluation), evaluation / PREDICTIONS)


def test_every_field_of_an_evaluation_that_is_missing_or_of_another_type_is_named(evaluation: Path) -> None:
    for name, read in ((EVALUATION, lambda text: [json.loads(text)]), (PREDICTIONS, _rows)):
        path = evaluation / name
        written = path.read_text()
        rows = read(written)
        for field in rows[0].keys() - NOT_READ:
            missing = {k: v for k, v in rows[0].items() if k != field}
            for changed in (*(() if field in LATER else (missing,)), rows[0] | {field: {"odd": [1]}}):
                path.write_text("".join(json.dumps(row) + "\n" for row in [changed, *rows[1:]]))
                assert field in one_line(lambda: read_evaluation(evaluation), path)
        path.write_text(written)
    assert read_evaluation(evaluation).predictions["d"] == two_items()


THOUGHT = ("trigger", "feeling", "conclusion", "answer", "problem", "confidence")
LATER = {"valence", "arousal"}  # older records are without
NOT_READ = {"version", "environment", "checkpoints", "predicted", "images", "text", *THOUGHT}


def _rows(text: str) -> list[Any]:
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize(
    ("field", "value"), [("label", "no such"), ("sampled", ["no such"]), ("votes", {"no such": 1.0}), ("images", [7])]
)
def test_a_label_outside_the_set_is_named_with_its_line(evaluation: Path, field: str, value: Any) -> None:
    row = _rows((evaluation / PREDICTIONS).read_text())[1] | {field: value}
    spoil(evaluation / PREDICTIONS, 2, json.dumps(row).encode())
    assert "line 2: " in one_line(lambda: read_evaluation(evaluation), evaluation / PREDICTIONS)


@pytest.mark.parametrize("content", OBJECTS)
def test_odd_results_are_a_line_of_the_report_which_shows_the_rest(
    evaluation: Path, tmp_path: Path, content: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    (evaluation / RESULTS).write_bytes(content)
    assert app(["report", str(tmp_path), "-o", str(tmp_path / "page.html")], standalone_mode=False) == 1
    told = [line for line in capsys.readouterr().err.splitlines() if "pictures cannot be read" not in line]
    assert len(told) == 2
    assert re.match(f"left out: evaluation: .*{RESULTS}", told[0])
    assert told[1].startswith("next: ")


@pytest.mark.parametrize("content", OBJECTS)
@pytest.mark.parametrize("use", ["resume", "evaluate", "export"])
def test_an_odd_config_of_a_run_is_one_line(run: Path, tmp_path: Path, use: str, content: Any) -> None:
    recipe = build_recipe(read_json(run / CONFIG), [], "here")
    (run / CONFIG).write_bytes(content)
    calls = {
        "resume": lambda: train(recipe, resume=True),
        "evaluate": command("evaluate", "-m", run, "-d", recipe.data.train, "-o", tmp_path / "evaluation"),
        "export": command("export", run, tmp_path / "out"),
    }
    one_line(calls[use], run)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", [METRICS, ROLLOUTS])
@pytest.mark.parametrize("line", [*LINES, b'{"step": "2"}', b'{"step": null}'])
def test_an_odd_line_of_a_run_is_named_when_it_goes_on(run: Path, name: str, line: Any) -> None:
    before = (run / name).read_bytes()
    spoil(run / name, 2, line)
    recipe = build_recipe(read_json(run / CONFIG), [], "here")
    shutil.rmtree(run / "final")
    assert "line 2: " in one_line(lambda: train(recipe, resume=True), run / name)
    assert (run / name).read_bytes() != before  # nothing is dropped of what a person may still mend


@pytest.mark.parametrize("content", [b"{}", b'{"packages": []}', b"[1]"])
def test_an_odd_environment_is_named_by_export_which_leaves_no_folder(
    run: Path, tmp_path: Path, content: bytes
) -> None:
    (run / ENVIRONMENT).write_bytes(content)
    one_line(command("export", run, tmp_path / "out"), run / ENVIRONMENT)
    assert not (tmp_path / "out").exists()


def test_odd_records_of_a_cell_are_one_line_of_reproduce(tmp_path: Path) -> None:
    plan = load_plan(write_plan(tmp_path), None, quick=False)
    cells = cells_of(plan)
    for cell in cells:
        finish(cell, plan, right=4)
    trained = next(cell for cell in cells if cell.trains)
    trained.training.mkdir(parents=True)
    for rows in ([{"step": 1, "reward": "high"}], [{"reward": 0.5}], [[1]]):
        (trained.training / METRICS).write_text("".join(json.dumps(row) + "\n" for row in rows))
        message = one_line(lambda: write_tables(Results(plan, cells), cells, tmp_path), trained.training / METRICS)
        assert "line 1: " in message
    spoil(trained.evaluation / PREDICTIONS, 1, b"{}")
    one_line(lambda: Results(plan, cells), trained.evaluation / PREDICTIONS)


def test_names_of_files_that_are_no_text_are_written_and_read_again(tmp_path: Path) -> None:
    item = prediction("joy", "joy", id="a\udcff")
    folder = save_evaluation(tmp_path / "e\udcff", {"d": [item]}, model="m\udcff")
    assert read_evaluation(folder).predictions["d"] == [item]
    assert b"\\udcff" in (folder / PREDICTIONS).read_bytes()
