"""Plans become cells that differ in their recipe only; finished ones never run again; tables say what was tested."""

import os
import shutil
import signal
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import yaml
from scipy.stats import t as student

from emor3.errors import UserError
from emor3.experiments import reproduce, training_table
from emor3.experiments.plan import Cell, cells_of, load_plan, merge
from emor3.experiments.results import Results
from emor3.experiments.table import accuracy_table, reasoning_table, truth_table, write_tables
from emor3.report.records import read_records
from emor3.runs import directory, records
from emor3.runs.directory import CONFIG, EVALUATIONS, METRICS
from emor3.runs.predictions import RESULTS
from emor3.runs.records import append_jsonl
from emor3.stats.classification import is_correct
from emor3.stats.power import detectable
from emor3.stats.uncertainty import mcnemar, sign_flip
from emor3.storage.outputs import write_json
from forked import Forked
from made_up import prediction, save_evaluation
from places import ROOT
from plans import finish, write_plan
from waiting import wait_until

RECIPES = ROOT / "recipes"
SHIPPED = RECIPES / "table1_tiny.yaml"


def test_a_plan_has_a_cell_for_every_method_domain_and_seed_and_one_for_the_start_model(tmp_path: Path) -> None:
    cells = cells_of(load_plan(write_plan(tmp_path), None, quick=False))
    assert len(cells) == 1 + 2 * 2 * 2  # vanilla once, two methods on two domains with two seeds
    assert [cell.seed for cell in cells] == [0] * 5 + [1] * 4  # whole seeds first
    assert sum(not cell.trains for cell in cells) == 1


def test_quick_keeps_one_seed_and_the_core_methods(tmp_path: Path) -> None:
    cells = cells_of(load_plan(write_plan(tmp_path), tmp_path / "other", quick=True))
    assert {(cell.method, cell.seed) for cell in cells} == {("vanilla", 0), ("grpo", 0)}
    assert all(cell.folder.is_relative_to(tmp_path / "other") for cell in cells)


def test_methods_differ_from_emo_r3_in_what_they_set_only(tmp_path: Path) -> None:
    by_method = {c.method: c.recipe for c in cells_of(load_plan(write_plan(tmp_path), None, quick=False))}
    ours, grpo = by_method["emo_r3"], by_method["grpo"]
    changed = {name for name in type(ours).model_fields if getattr(ours, name) != getattr(grpo, name)}
    assert changed == {"thinking", "reward", "output_dir"}


def test_the_shipped_plan_holds_every_method_of_the_paper_and_valid_recipes(tmp_path: Path) -> None:
    plan = load_plan(SHIPPED, tmp_path, quick=False)
    cells = cells_of(plan)
    assert len(plan.seeds) >= 3
    assert len(cells) == 2 + 12 * len(plan.domains) * len(plan.seeds)
    assert {"sft", "sft_reasoning", "grpo", "dapo", "dr_grpo", "gspo", "emo_r3", "emo_r3_cold_start"} <= set(
        plan.methods
    )


@pytest.mark.parametrize(
    ("block", "named"),
    [
        ({"reward": {"own": {"brevity": {"function": "mine:brevity", "weight": 0.1}}}}, "reward.own"),
        ({"judge": {"model": "own"}}, "judge.model own"),
    ],
)
def test_code_of_ones_own_which_no_plan_hands_over_is_refused_before_a_cell_runs(
    tmp_path: Path, block: dict[str, Any], named: str
) -> None:
    plan = load_plan(write_plan(tmp_path), None, quick=False)
    methods = {**plan.methods, "mine": plan.methods["emo_r3"] | block}
    with pytest.raises(UserError, match=f"method mine: {named} is code of your own, which only"):
        cells_of(plan.model_copy(update={"methods": methods}))


def test_settings_are_merged_block_by_block_and_null_removes_a_block() -> None:
    base = {"grpo": {"beta": 0.01, "max_steps": 3}, "reward": {"format": 0.1}}
    assert merge(base, {"grpo": {"beta": 0}, "reward": None}) == {"grpo": {"beta": 0, "max_steps": 3}, "reward": None}
    assert base["grpo"]["beta"] == 0.01


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reference": "ppo"}, "'ppo' is no method"),
        ({"seeds": []}, "seeds"),
        ({"metods": {}}, "unknown setting 'metods'; did you mean 'methods'"),
        ({"evaluation": {"limt": 3}}, "unknown setting 'evaluation.limt'; did you mean 'evaluation.limit'"),
        ({"families": {"main": {"methods": ["ppo"]}}}, "'ppo' is no method"),
        ({"families": {"main": {"methods": ["emo_r3", "grpo"]}}}, "grpo is the reference"),
        ({"families": {"main": {"methods": ["emo_r3"], "columns": ["alll"]}}}, "families.main.columns"),
        ({"methods": {"grpo": {"grppo": {}}}, "quick": {"methods": ["grpo"]}}, "method grpo: unknown setting 'grppo'"),
    ],
)
def test_a_bad_plan_is_refused_with_the_reason(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        cells_of(load_plan(write_plan(tmp_path, **changes), None, quick=False))


# --- the table, on made-up evaluations --------------------------------------------------------------------------------


HITS = {("vanilla", 0): 2, ("grpo", 0): 4, ("grpo", 1): 6, ("emo_r3", 0): 10, ("emo_r3", 1): 10}
"""Right answers of ten by method and seed."""


def results_of(folder: Any, **changes: Any) -> Results:
    plan = load_plan(write_plan(folder, **changes), None, quick=False)
    cells = cells_of(plan)
    for cell in cells:
        finish(cell, plan, HITS[cell.method, cell.seed])
    return Results(plan, cells)


@pytest.fixture
def filled(tmp_path: Path, few_draws: None) -> Results:
    return results_of(tmp_path)


@pytest.fixture
def one_seed(tmp_path: Path, few_draws: None) -> Results:
    return results_of(tmp_path, seeds=[0])


def markdown_of(results: Results, folder: Path) -> str:
    return write_tables(results, cells_of(results.plan), folder)[0].read_text(encoding="utf-8")


def test_a_number_is_the_mean_over_seeds_and_averages_weigh_cells_equally(filled: Results) -> None:
    row = accuracy_table(filled)["grpo"]
    assert row["a → b"].estimate.value == row["all"].estimate.value == pytest.approx(0.5)  # 4 and 6 of 10
    assert row["all"].estimate.n == 30  # items of three test sets, each drawn with all its completions
    assert row["all"].seeds == 2
    assert row["all"].seed_deviation == pytest.approx(0.1414, abs=1e-4)  # 0.4 and 0.6
    assert accuracy_table(filled)["vanilla"]["all"].seed_deviation is None


def test_averages_are_over_the_cells_their_name_says(filled: Results) -> None:
    assert filled.cells_of_average("in domain") == [("a", "a"), ("b", "b")]
    assert len(filled.cells_of_average("out of domain")) == 4
    assert len(filled.cells_of_average("all")) == 6


def test_bold_is_the_best_only_where_a_paired_test_tells_it_from_the_runner_up(one_seed: Results) -> None:
    table = accuracy_table(one_seed)
    assert table["emo_r3"]["all"].bold
    assert not any(entry.bold for name in ("vanilla", "grpo") for entry in table[name].values())
    # One cell has 10 items, of which 6 change: sign flips over items can say 2 / 2^6 = 0.03 at best, which nine
    # columns turn into more than 0.05.
    assert not table["emo_r3"]["a → a"].bold


def test_one_run_of_each_method_is_tested_on_the_same_items(one_seed: Results) -> None:
    table = accuracy_table(one_seed)
    changes = one_seed.changes("vanilla", "grpo", [("a", "a")], is_correct)
    p_value = sign_flip(changes, seed=0)
    assert changes.sum() == pytest.approx(-0.2)
    assert p_value == pytest.approx(mcnemar([True] * 2, [False] * 2), abs=0.02)  # 2 items lose
    assert table["grpo"]["a → a"].p_value is None
    assert table["vanilla"]["a → a"].p_value >= p_value


def test_several_runs_are_tested_over_seeds_and_items_together(filled: Results) -> None:
    table = accuracy_table(filled)
    found = filled.compare("emo_r3", "grpo", [("a", "a")], is_correct)
    # grpo has 4 and 6 of 10, so its seeds add 0.02 / 2 = 0.01. Items gain 0 (four), 0.5 (two) and 1 (four), variance
    # 2 / 9; what neither run nor item explains is 0.8 / 9, half of which is in it: (2 / 9 - 0.4 / 9) / 10 = 0.16 / 9.
    seeds, items = 0.01, 0.16 / 9
    error, freedom = 1 / 6, (seeds + items) ** 2 / (seeds**2 / 1 + items**2 / 9)
    assert found.standard_error == pytest.approx(error) == pytest.approx((seeds + items) ** 0.5)
    assert found.p_value == pytest.approx(2 * student.sf(0.5 / error, freedom))
    cell = table["emo_r3"]["a → a"]
    assert cell.difference.value == pytest.approx(0.5)
    assert cell.p_value == pytest.approx(2 * found.p_value)  # the surer of two methods, Holm
    assert cell.smallest_effect == pytest.approx(detectable(error, freedom, 0.05 / 2))
    assert found.p_value < 0.05 < cell.p_value


def test_an_average_is_tested_over_the_items_of_all_its_cells(filled: Results) -> None:
    found = filled.compare("emo_r3", "grpo", filled.columns, is_correct)
    assert found.difference.value == pytest.approx(0.5)
    assert found.difference.n == 30
    assert found.seeds == (2, 2)
    # Seeds make the same figure in each cell, so their part stays 0.01. Items: as above with three times as many,
    # 3 * (2 - 0.4) / 29 / 30; leaving one of ten out moves a third of the figure by 1 / 9, not by 3 / 29.
    assert found.standard_error**2 == pytest.approx(0.01 + 4.8 / 29 / 30 * (29 / 27) ** 2)


def test_seeds_of_two_cells_are_matched_by_their_number(filled: Results, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "out" / "grpo" / "a" / "seed0")
    results = Results(filled.plan, cells_of(filled.plan))
    assert results.whole_seeds("grpo", [("a", "a"), ("b", "a")]) == [1]
    assert results.seed_values("grpo", [("a", "a"), ("b", "a")], is_correct) == [0.6]


def test_with_families_their_tables_alone_have_p_values(tmp_path: Path) -> None:
    results = results_of(tmp_path, families={"main": {"methods": ["emo_r3"], "columns": ["all", "in domain"]}})
    table = accuracy_table(results)
    assert not [cell for row in table.values() for cell in row.values() if cell.p_value is not None]
    text = markdown_of(results, tmp_path)
    assert f"(sees {100 * table['emo_r3']['out of domain'].smallest_effect:.1f})" in text
    assert "## Tests that decide: main" in text


def test_the_table_says_what_its_tests_speak_for(filled: Results, tmp_path: Path) -> None:
    text = markdown_of(filled, tmp_path)
    assert "over seeds and items together" in text
    assert "One run, which is taken as it is: vanilla." in text
    assert "smallest difference, in points, that such a test finds in 80% of studies" in text


def test_the_table_of_one_seed_says_that_it_speaks_for_its_runs_only(one_seed: Results, tmp_path: Path) -> None:
    text = markdown_of(one_seed, tmp_path)
    assert "paired sign flips over items, which speak for these runs only" in text
    assert "| vanilla | -20.0 (p = " in text


def test_missing_cells_leave_gaps_and_methods_without_reasoning_have_none(filled: Results, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "out" / "emo_r3" / "a")
    plan = filled.plan
    text = markdown_of(Results(plan, cells_of(plan)), tmp_path)
    ours = next(line for line in text.splitlines() if line.startswith("| emo_r3"))
    assert ours.count(" - ") >= 3
    assert "consistency" not in reasoning_table(filled)["vanilla"]
    assert "step3_polarity" not in reasoning_table(filled)["grpo"]


def test_methods_that_answer_at_once_say_nothing_that_the_drawing_could_show_wrong(filled: Results) -> None:
    filled.truth = SimpleNamespace(checks=lambda: {"seen": lambda prediction: False})
    assert filled.thinking["vanilla"] == "direct"
    assert set(truth_table(filled)) == {"grpo", "emo_r3"}


def test_cells_on_other_items_are_refused(filled: Results, tmp_path: Path) -> None:
    plan, cells = filled.plan, cells_of(filled.plan)
    shutil.rmtree(cells[1].evaluation)
    made = {test: [prediction("joy", "joy", id="other")] for test in plan.tests}
    save_evaluation(cells[1].evaluation, made)
    with pytest.raises(UserError, match="other samples of a"):
        Results(plan, cells)


def test_the_csv_has_one_row_for_every_number(filled: Results, tmp_path: Path) -> None:
    _, csv = write_tables(filled, cells_of(filled.plan), tmp_path)
    table = pd.read_csv(csv)
    accuracy = table[table.figure == "accuracy"]
    assert len(accuracy) == 3 * 9  # three methods, six cells and three averages
    assert set(table.columns) >= {"value", "low", "high", "n", "seeds", "seed_deviation", "p_value"}


def test_the_csv_reads_back_to_the_last_digit_whatever_methods_are_called(tmp_path: Path, few_draws: None) -> None:
    odd = 'a "b", c;é'
    methods = {"vanilla": {"grpo": None}, "grpo": {}, odd: {}}
    plan = load_plan(write_plan(tmp_path, methods=methods), None, quick=False)
    cells = cells_of(plan)
    for cell in cells:
        finish(cell, plan, 7 if cell.method == odd else 3)
    results = Results(plan, cells)
    write_tables(results, cells, tmp_path / "out")
    parts = {part.part: part for part in read_records([tmp_path / "out"]).reproduced}
    for name, row in accuracy_table(results).items():
        for column, entry in row.items():
            read = parts["accuracy"].cells[name][column]
            written = (entry.estimate, entry.seeds, entry.seed_deviation, entry.bold)
            assert (read.estimate, read.seeds, read.seed_deviation, read.bold) == written
    assert not list(tmp_path.rglob("*.tmp"))


def test_the_table_of_the_plan_marks_what_is_done(filled: Results) -> None:
    table = reproduce.plan_table(filled.plan, cells_of(filled.plan))
    assert "0 to run" in table.title


def test_a_missing_judge_stops_a_plan_before_anything_is_trained(tmp_path: Path) -> None:
    plan = load_plan(write_plan(tmp_path, judge=str(tmp_path / "nowhere")), None, quick=False)
    with pytest.raises(UserError, match="no checkpoint at"):
        reproduce.run_plan(plan, tmp_path / "plan.yaml", quick=False)
    assert not (tmp_path / "out").exists()


# --- what training did, on made-up records ----------------------------------------------------------------------------


def record(cell: Cell, values: list[float]) -> None:
    """Records of a run in which every second step reuses the completions of the one before."""
    cell.training.mkdir(parents=True)
    for step, value in enumerate(values, start=1):
        reused = {"step": step, "time/update": 1.0}
        row = reused if step % 2 == 0 else reused | {"canary/yes_swapped": value, "time/generate": 3.0}
        append_jsonl(cell.training / METRICS, [row])


def test_the_course_of_a_canary_is_its_mean_over_the_first_and_last_rounds_of_each_seed(
    filled: Results, tmp_path: Path
) -> None:
    cells = cells_of(filled.plan)
    ours = [cell for cell in cells if (cell.method, cell.domain) == ("emo_r3", "a")]
    for cell, top in zip(ours, (1.0, 0.5), strict=True):
        record(cell, [0.0] * 12 + [top] * 12)  # 6 rounds of 0, then 6 rounds of `top`; the first and last 5 count
    runs = training_table.training_runs(cells)
    assert list(runs) == [("emo_r3", "a")]
    course = training_table.courses(runs["emo_r3", "a"])["canary/yes_swapped"]
    assert course.start == (0.0, 0.0)
    assert course.end == (1.0, 0.5)
    assert training_table.seconds(runs["emo_r3", "a"])["generate"] == pytest.approx(1.5)  # 3 s in every second step
    text = markdown_of(filled, tmp_path)
    assert "| emo_r3 | a | 2 | - | - | - | - | 0.0 → 75.0% ±35.4 |" in text


def test_what_was_evaluated_during_training_is_told_from_its_start_to_its_end_over_seeds(tmp_path: Path) -> None:
    path = write_plan(tmp_path)
    content = yaml.safe_load(path.read_text())
    content["base"]["evaluation"] = {"every": 5}
    path.write_text(yaml.safe_dump(content))
    watched = load_plan(path, tmp_path / "out", quick=False)
    ours = [cell for cell in cells_of(watched) if (cell.method, cell.domain) == ("emo_r3", "a")]
    for cell, last in zip(ours, (0.5, 0.75), strict=True):
        cell.training.mkdir(parents=True)
        append_jsonl(cell.training / EVALUATIONS, [{"step": 0, "n": 4, "accuracy": 0.25, "format": 1.0}])
        append_jsonl(cell.training / EVALUATIONS, [{"step": 5, "n": 4, "accuracy": last, "format": 1.0}])
    text = training_table.to_markdown(cells_of(watched))
    assert "| method | trained on | seeds | accuracy | format |" in text
    # 0.5 and 0.75: mean 0.625, deviation 0.25 / sqrt(2) = 0.177
    assert "| emo_r3 | a | 2 | 25.0 → 62.5% ±17.7 | 100.0 → 100.0% ±0.0 |" in text


def test_without_records_of_training_there_is_no_table_of_it(filled: Results, tmp_path: Path) -> None:
    assert "In training" not in markdown_of(filled, tmp_path)


# --- end to end -------------------------------------------------------------------------------------------------------


def tiny_plan(folder: Path, scenes: str, random_checkpoint: str) -> Path:
    grpo = {"max_steps": 1, "num_generations": 2, "per_device_train_batch_size": 4, "max_completion_length": 4}
    return write_plan(
        folder,
        seeds=[0],
        domains=[scenes],
        tests=[scenes],
        evaluation={"limit": 2, "max_new_tokens": 4},
        base={"model": {"path": random_checkpoint}, "grpo": grpo | {"save_steps": 1}},
        methods={"vanilla": {"grpo": None}, "grpo": {}, "emo_r3": {"grpo": {"learning_rate": -1}}},
    )


LEARNING = {
    "max_steps": 3,
    "num_generations": 4,
    "per_device_train_batch_size": 8,
    "max_completion_length": 64,
    "learning_rate": 1e-3,
    "save_steps": 1,
}


def call(plan: Path) -> Forked:
    return Forked("emor3", "reproduce", plan)


@pytest.mark.slow
def test_a_cell_that_was_trained_is_not_trained_again_when_its_evaluation_was_killed(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    scenes: str,
    random_checkpoint: str,
    few_draws: None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    plan = load_plan(tiny_plan(tmp_path, scenes, random_checkpoint), None, quick=False)
    cell = next(cell for cell in cells_of(plan) if cell.method == "grpo")
    ended, put = [], os.replace

    def replace(draft: Any, path: Any) -> None:
        if Path(path).name == RESULTS and len(ended) < 2:
            ended.append(path)
            raise KeyboardInterrupt
        put(draft, path)

    monkeypatch.setattr(os, "replace", replace)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            reproduce.run_cell(plan, cell.folder)
        assert not cell.evaluation.exists()
    assert "time per step: " in capsys.readouterr().out
    reproduce.run_cell(plan, cell.folder)
    assert (cell.evaluation / RESULTS).is_file()
    told = capsys.readouterr().out
    assert "time per step: " not in told
    assert "nothing is left to do" not in told  # as training says when it is asked again
    shutil.rmtree(cell.evaluation)
    write_json(cell.training / CONFIG, cell.recipe.model_copy(update={"seed": 7}).model_dump())
    with pytest.raises(UserError, match=r"cannot resume .* with seed 7 -> 0"):  # which is for training to refuse
        reproduce.run_cell(plan, cell.folder)


@pytest.mark.slow
def test_a_cell_killed_in_its_training_goes_on_from_its_checkpoint_to_the_table_of_one_never_killed(
    tmp_path: Path, scenes: str
) -> None:
    tables = {}
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
        plan = write_plan(
            tmp_path / name,
            seeds=[0],
            domains=[scenes],
            tests=[scenes],
            evaluation={"limit": 4, "max_new_tokens": 64},
            base={"model": {"path": "embedded"}, "grpo": LEARNING},
            methods={"grpo": {}},
            quick={"methods": ["grpo"]},
        )
        loaded = load_plan(plan, None, quick=False)
        cell = cells_of(loaded)[0]
        if name == "whole":
            reproduce.run_cell(loaded, cell.folder)
        else:
            process = call(plan)
            wait_until(partial(directory.complete_checkpoints, cell.training), process)
            os.kill(process.pid, signal.SIGKILL)  # its cell ends with it
            process.communicate()
            assert not (cell.training / directory.FINAL).exists()
            kept = directory.complete_checkpoints(cell.training)[0]
        again = call(plan)
        _, err = again.communicate()
        assert again.returncode == 0, err
        assert [row["step"] for row in records.read_jsonl(cell.training / METRICS)] == [1, 2, 3]
        tables[name] = pd.read_csv(tmp_path / name / "out" / "table.csv")
    assert kept.name == "checkpoint-1"
    assert "3 of 3 steps" in (cell.folder / reproduce.LOG).read_text()
    pd.testing.assert_frame_equal(tables["killed"], tables["whole"])


@pytest.mark.slow
def test_a_killed_reproduction_goes_on_with_what_is_missing_and_a_failed_cell_stops_no_other(
    tmp_path: Path, scenes: str, random_checkpoint: str
) -> None:
    plan = tiny_plan(tmp_path, scenes, random_checkpoint)
    process = call(plan)
    first = tmp_path / "out" / "vanilla" / "evaluation" / RESULTS
    wait_until(first.exists, process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    before = first.stat().st_mtime_ns
    again = call(plan)
    out, err = again.communicate()
    assert again.returncode == 1
    assert first.stat().st_mtime_ns == before  # not repeated
    assert "failed" in err
    assert "emo_r3" in err
    assert "| grpo | 1 |" in out
    assert not list((tmp_path / "out" / "grpo").rglob("checkpoints"))
