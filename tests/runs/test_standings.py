"""`emor3 runs` tells how every run under a folder stands, reads little of each, and names what is broken."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from emor3.runs.directory import CHECKPOINTS, CONFIG, FINAL, METRICS
from emor3.runs.overview import find_records, standings, standings_table
from emor3.runs.predictions import RESULTS
from emor3.runs.recipe import build_recipe
from emor3.runs.records import append_jsonl
from emor3.storage.locks import held, is_held
from made_up import prediction, prepare_run, save_evaluation


def made_run(folder: Path, steps: int = 3, seed: int = 0) -> Path:
    """A run of a recipe of 8 steps that got so far; accuracy is half the reward, which is 0.1 a step."""
    content = {"output_dir": str(folder), "model": {"path": "embedded"}, "data": {"train": "embedded:scenes8"}}
    recipe = build_recipe({**content, "seed": seed, "grpo": {"max_steps": 8}}, [], "here")
    prepare_run(recipe, resume=False, overwrite=False)
    rows = [{"step": n, "loss": 0.0, "reward": n / 10, "rewards/accuracy/mean": n / 20} for n in range(1, steps + 1)]
    append_jsonl(folder / METRICS, rows)
    return folder


def evaluated(folder: Path, model: Path | str, **settings: float) -> Path:
    """An evaluation on two items, one of them right: accuracy 50.0%."""
    made = [prediction("joy", "joy", id="a"), prediction("fear", "joy", id="b")]
    return save_evaluation(folder, {"embedded:scenes8": made}, model=str(model), **settings)


def test_finished_and_stopped_runs_stand_with_their_last_step_seed_and_evaluations(tmp_path: Path) -> None:
    made_run(tmp_path / "a", steps=8, seed=1)
    (tmp_path / "a" / FINAL).mkdir()
    made_run(tmp_path / "b")
    append_jsonl(tmp_path / "b" / METRICS, [{"step": 4, "loss": 0.0}])  # reuses the completions of step 3
    evaluated(tmp_path / "of-a", tmp_path / "a" / FINAL)
    evaluated(tmp_path / "of-a-hot", tmp_path / "a" / FINAL, temperature=1.0)
    first, second = standings(tmp_path)
    assert (first.name, first.state, first.step, first.seed) == ("a", "finished", "8 of 8", 1)
    assert first.notes == ["embedded:scenes8 50.0", "embedded:scenes8 (T = 1) 50.0"]
    assert (second.name, second.state, second.step, second.notes) == ("b", "stopped", "4 of 8", [])
    assert (second.reward, second.accuracy) == (0.3, 0.15)  # of step 3, the last one with some


def test_a_run_is_running_while_a_command_holds_it_and_looking_leaves_nothing(tmp_path: Path) -> None:
    run = made_run(tmp_path / "a")
    with held(run):
        code = "import sys, pathlib, emor3.runs.overview as o; print(o.standings(pathlib.Path(sys.argv[1]))[0].state)"
        done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
        assert done.stdout == "running\n"
    before = sorted(run.rglob("*"))
    assert standings(tmp_path)[0].state == "stopped"
    assert sorted(run.rglob("*")) == before
    assert not is_held(tmp_path / "nowhere")


def test_a_cell_of_a_reproduction_has_one_row_under_its_own_name(tmp_path: Path) -> None:
    cell = tmp_path / "table1" / "grpo-scenes8-seed0"
    made_run(cell / "training")
    evaluated(cell / "evaluation", "moved/elsewhere")
    [row] = standings(tmp_path)
    assert (row.name, row.notes) == ("table1/grpo-scenes8-seed0", ["embedded:scenes8 50.0"])


def test_evaluations_of_other_models_have_rows_of_their_own(tmp_path: Path) -> None:
    evaluated(tmp_path / "base", "embedded")
    (evaluated(tmp_path / "cut", "embedded") / RESULTS).unlink()
    assert [(row.name, row.state, list(row.notes)) for row in standings(tmp_path)] == [
        ("base", "evaluated", ["embedded:scenes8 50.0"]),
        ("cut", "stopped", [f"cut: no {RESULTS}"]),
    ]


@pytest.mark.parametrize("name", [CONFIG, METRICS])
@pytest.mark.parametrize("content", ["{", "[]", '{"step": "x"}'])
def test_a_damaged_run_keeps_its_row_and_says_why(tmp_path: Path, name: str, content: str) -> None:
    run = made_run(tmp_path / "a")
    (run / name).write_text(content + "\n")
    [row] = standings(tmp_path)
    assert (row.name, row.state) == ("a", "broken")
    assert name in row.notes[0]
    assert "\n" not in row.notes[0]


def test_damaged_figures_of_an_evaluation_are_told_in_its_row(tmp_path: Path) -> None:
    (evaluated(tmp_path / "base", "embedded") / RESULTS).write_text("{")
    [row] = standings(tmp_path)
    assert row.state == "broken"
    assert row.notes[0].startswith(f"cannot read {RESULTS}: not JSON")


def test_of_long_metrics_only_the_end_is_read_and_a_last_line_cut_short_is_left_out(tmp_path: Path) -> None:
    run = made_run(tmp_path / "a", steps=0)
    (run / METRICS).write_bytes(b"broken, and never read\n" + b" " * (1 << 16))
    append_jsonl(run / METRICS, [{}, {"step": 7, "reward": 0.5, "rewards/accuracy/mean": 0.25}])
    with (run / METRICS).open("ab") as file:
        file.write(b'{"step": 8, "rew')
    [row] = standings(tmp_path)
    assert (row.state, row.step, row.reward, row.accuracy) == ("stopped", "7 of 8", 0.5, 0.25)


def test_weights_are_not_entered(tmp_path: Path) -> None:
    run = made_run(tmp_path / "a")
    made_run(run / CHECKPOINTS / "checkpoint-1")
    assert list(find_records([tmp_path])) == [run]


def test_the_table_names_states_figures_and_reasons(
    main_with: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    made_run(tmp_path / "a", seed=5)
    assert standings_table(standings(tmp_path)).row_count == 1
    assert main_with("runs", tmp_path) == 0
    shown = capsys.readouterr().out
    assert ["a", "stopped", "3", "of", "8", "0.300", "0.150", "5"] in [line.split() for line in shown.splitlines()]


def test_nothing_found_is_one_line_that_says_what_was_looked_for(
    main_with: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main_with("runs", tmp_path) == 0
    assert capsys.readouterr().out == (
        f"nothing in {tmp_path}: no folder that `emor3 train`, `reproduce`, `quickstart` or `evaluate` wrote\n"
    )
    assert main_with("runs", tmp_path / "no") == 2
    missing = f"{tmp_path / 'no'}: no such folder: nothing was trained there yet; `emor3 train quickstart` would"
    assert capsys.readouterr().err == f"error: {missing}\n"
