"""The report reads what runs and evaluations left, says what it had to leave out, and shows the rest."""

import json
import math
import re
from base64 import b64decode
from collections.abc import Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from emor3.cli.main import app
from emor3.errors import UserError
from emor3.evaluation.compare import compare_groups
from emor3.method.rewards import RewardSettings, score
from emor3.method.types import Prediction, Reply, Rollout
from emor3.report.cards import BUDGET, ITEMS, LONGEST_SIDE, TEXT, Pictures, card, gallery, thumbnail
from emor3.report.page import compare_all, json_in_html, render, time_split, watch, write_report
from emor3.report.plots import curve_sections, group_runs
from emor3.report.records import by_seeds, read_records
from emor3.runs.directory import BEST, BEST_OF, CONFIG, ENVIRONMENT, EVALUATIONS, METRICS, ROLLOUTS
from emor3.runs.predictions import EVALUATION, PREDICTIONS, RESULTS, VERSION, read_evaluation
from emor3.runs.records import append_jsonl, rollout_row
from emor3.storage.outputs import write_json
from made_up import prediction, save_evaluation


def save_run(folder: Path, seed: int = 0, steps: int = 8, accuracy: float = 0.5, **settings: Any) -> Path:
    """A run directory whose accuracy climbs by 0.01 a step, with four rollouts on four images in every step."""
    folder.mkdir(parents=True)
    config = {"seed": seed, "output_dir": str(folder), "grpo": {"max_steps": steps}, **settings}
    write_json(folder / CONFIG, config)
    write_json(folder / ENVIRONMENT, {})
    for step in range(1, steps + 1):
        row = {"step": step, "reward": accuracy + step / 100, "rewards/accuracy/mean": accuracy + step / 100}
        append_jsonl(folder / METRICS, [row | {"entropy": 0.1, "kl": None, "time/generate": 2.0, "time/update": 1.0}])
        answers = ("joy", "joy", "fear", None)
        append_jsonl(folder / ROLLOUTS, [rollout(step, place, answer) for place, answer in enumerate(answers)])
    return folder


def rollout(step: int, place: int, answer: str | None) -> dict[str, Any]:
    made = prediction("joy", answer, id=f"{step}-{place}")
    reward = score(made.thought, made.sample, made.reflection, RewardSettings())
    others = (Reply("No", {"Yes": 0.3, "No": 0.7}), Reply("", error="no answer"))
    asked = replace(made.reflection, consistency=replace(made.reflection.consistency, distractors=others))
    return rollout_row(step, 0, Rollout(made.sample, made.completion, made.thought, asked, reward))


def page_of(*paths: Any) -> tuple[Any, ...]:
    """The page and what was left out of it, but for the pictures, which made-up samples lack."""
    page, faults = render(read_records(paths))
    return page, [line for line in faults if "pictures cannot be read" not in line]


def evaluated(folder: Path, answers: Sequence[str | None] = ("joy", "fear", None), **settings: Any) -> Path:
    made = [prediction("joy", answer, id=f"s{place}") for place, answer in enumerate(answers)]
    return save_evaluation(folder, {"d": made}, **settings)


# --- the table of a reproduction --------------------------------------------------------------------------------------

TABLE_HEAD = (
    "figure,method,column,value,low,high,n,seeds,seed_deviation,p_value,bold,"
    "difference,difference_low,difference_high,smallest_effect"
)


def test_the_table_of_a_reproduction_stands_first_with_its_spread_and_bold_numbers(tmp_path: Path) -> None:
    rows = [
        "accuracy,grpo,a → b,0.5,0.4,0.6,10,2,0.1414,,True",
        "accuracy,<i>emo</i>,a → b,0.25,0.2,0.3,10,1,,0.5,False",
    ]
    (tmp_path / "table.csv").write_text("\n".join([TABLE_HEAD, *rows]), encoding="utf-8")
    page, faults = page_of(tmp_path)
    assert faults == []
    assert "<td><b>50.0</b> ±14.1 <small>[40.0, 60.0]</small></td>" in page
    assert "<td>25.0 <small>[20.0, 30.0]</small></td>" in page
    assert "<bdi>&lt;i&gt;emo&lt;/i&gt;</bdi>" in page


@pytest.mark.parametrize(
    "row", ["accuracy,grpo,a → b,half,0.4,0.6,10,2,,,True", "accuracy,grpo", '"' + "a" * 200_000 + '",grpo']
)
def test_a_broken_table_of_a_reproduction_is_one_line(tmp_path: Path, row: Any) -> None:
    (tmp_path / "table.csv").write_text(f"{TABLE_HEAD}\n{row}\n", encoding="utf-8")
    evaluated(tmp_path / "evaluation")
    _, faults = page_of(tmp_path)
    assert [line for line in faults if "table.csv cannot be read" in line]


# --- reading -----------------------------------------------------------------------------------------------------


def test_records_are_found_below_a_folder_and_named_from_where_they_part(tmp_path: Path) -> None:
    save_run(tmp_path / "grpo" / "seed0" / "training")
    evaluated(tmp_path / "grpo" / "seed0" / "evaluation")
    evaluated(tmp_path / "vanilla")
    evaluated(tmp_path / "grpo" / "seed1" / "evaluation.tmp")  # a draft of `emor3 reproduce`
    save_run(tmp_path / "grpo" / "seed0" / "training" / "checkpoints" / "checkpoint-4")
    records = read_records([tmp_path, tmp_path / "vanilla"])
    assert [run.name for run in records.runs] == ["grpo/seed0"]
    assert [evaluation.folder for evaluation in records.evaluations] == ["grpo/seed0", "vanilla"]
    assert records.faults == []


def test_a_file_stands_for_its_folder(tmp_path: Path) -> None:
    run = save_run(tmp_path / "run")
    assert [found.name for found in read_records([run / METRICS]).runs] == ["run"]


def test_a_half_written_last_line_costs_that_line_only(tmp_path: Path) -> None:
    run = save_run(tmp_path / "run", steps=3)
    with (run / METRICS).open("a") as file:
        file.write('{"step": 4, "rew')
    records = read_records([run])
    assert [row["step"] for row in records.runs[0].metrics] == [1, 2, 3]
    assert len(records.faults) == 1
    assert "last line of metrics.jsonl is cut short" in records.faults[0]


def test_broken_lines_in_the_middle_are_counted_and_left_out(tmp_path: Path) -> None:
    run = save_run(tmp_path / "run", steps=2)
    with (run / METRICS).open("ab") as file:
        file.write(b'\xff\xfe\n[1]\n{"step": 3, "reward": NaN, "entropy": 0.2}\n')
    records = read_records([run])
    assert records.runs[0].metrics[-1] == {"step": 3, "entropy": 0.2}
    assert records.faults == ["run: 2 lines of metrics.jsonl are no JSON objects (line 3): left out"]


def test_a_run_without_its_recipe_or_steps_gives_a_line_each(tmp_path: Path) -> None:
    (save_run(tmp_path / "a") / CONFIG).write_text("{")
    (save_run(tmp_path / "b") / METRICS).unlink()
    records = read_records([tmp_path])
    assert len(records.runs) == 2
    assert [fault.split(":")[0] for fault in records.faults] == ["a", "b"]


def test_a_supervised_run_has_no_steps_and_nothing_is_missing(tmp_path: Path) -> None:
    (save_run(tmp_path / "sft", grpo=None) / METRICS).unlink()
    assert read_records([tmp_path]).faults == []


def test_evaluations_that_cannot_be_read_give_one_line_each_and_the_rest_is_reported(tmp_path: Path) -> None:
    evaluated(tmp_path / "good")
    evaluated(tmp_path / "old", version=VERSION - 1)
    (evaluated(tmp_path / "older") / EVALUATION).unlink()
    lines = (evaluated(tmp_path / "cut") / PREDICTIONS).read_text().splitlines(keepends=True)
    (tmp_path / "cut" / PREDICTIONS).write_text("".join(lines[:2]))
    (evaluated(tmp_path / "missing") / PREDICTIONS).unlink()
    (evaluated(tmp_path / "broken") / PREDICTIONS).write_text('{"data": "d", "id": "s0"}\n{]\n')
    for name, field, value in (
        ("label", "label", "no such label"),
        ("image", "images", [7]),
        ("sampled", "sampled", [[]]),
    ):
        row = json.loads(lines[0]) | {field: value}
        (evaluated(tmp_path / name) / PREDICTIONS).write_text(json.dumps(row) + "\n" + "".join(lines[1:]))
    page, faults = page_of(tmp_path)
    for name in ("broken", "cut", "image", "label", "missing", "old", "older", "sampled"):
        assert sum(bool(re.search(rf"\b{name}[:/]", line)) for line in faults) == 1
    assert len(faults) == 8
    assert str(tmp_path) not in "".join(faults)
    assert "folder <b>good</b>" in page


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"version": 1}', f'{{"version": {VERSION}, "data": [{{"data": "d"}}]}}']
)
def test_results_of_another_version_or_form_leave_the_predictions_in_the_gallery(tmp_path: Path, content: str) -> None:
    (evaluated(tmp_path / "e") / RESULTS).write_text(content)
    page, faults = page_of(tmp_path)
    assert len(faults) == 1
    assert "emor3 evaluate --from" in faults[0]
    assert '"id": "s0"' in page


def test_nothing_to_report_is_an_error_that_says_where_it_looked(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no runs or evaluations"):
        write_report([tmp_path], tmp_path / "report.html")
    with pytest.raises(UserError, match="no such folder"):
        write_report([tmp_path / "nowhere"], tmp_path / "report.html")


def test_a_placebo_and_the_forms_of_a_reward_are_told_with_the_run(tmp_path: Path) -> None:
    save_run(tmp_path / "plain", reward={"reflective": 0.1, "placebo": False, "relative": False})
    save_run(tmp_path / "older")  # records before there were forms
    page, _ = page_of(tmp_path)
    assert "not a model to use" not in page
    assert "forms of the reward" not in page
    save_run(tmp_path / "placebo", reward={"placebo": True, "trust": True, "anneal": True})
    page, _ = page_of(tmp_path)
    assert page.count("an experiment and not a model to use") == 1
    assert "forms of the reward: <b>trust, anneal</b>" in page


# --- names and pairs --------------------------------------------------------------------------------------------


def test_rows_are_named_by_model_and_decoding_and_the_start_model_comes_first(tmp_path: Path) -> None:
    run = save_run(tmp_path / "runs/emo", model={"path": "start/model"})
    final = str(run / "final")
    evaluated(tmp_path / "evaluation-1", model=final, judge="start/model")
    evaluated(tmp_path / "evaluation-2", model=final, judge="start/model", temperature=0.7)
    evaluated(tmp_path / "evaluation-3", model="start/model", judge="start/model")
    evaluated(tmp_path / "evaluation-4", model=str(run / "checkpoints/checkpoint-4"), judge="start/model")
    records = read_records([tmp_path])
    assert [(one.name, one.is_start) for one in records.evaluations] == [
        ("start/model, greedy", True),
        ("runs/emo, greedy", False),
        ("runs/emo, sampled at temperature 0.7", False),
        ("emo, checkpoint-4, greedy", False),
    ]
    (greedy, sampled) = compare_all(records.evaluations, [])
    assert {(test.before, test.after) for test in greedy.tests} == {
        ("start/model, greedy", "runs/emo, greedy"),
        ("start/model, greedy", "emo, checkpoint-4, greedy"),
    }
    assert sampled.tests == []
    assert "evaluation-3" in page_of(tmp_path)[0]


ANSWERS = {"form": ("joy", "joy", "joy", "joy", "fear", None), "paper": ("joy", "fear", "joy", None, "fear", None)}


def trained(folder: Path, name: str, seed: int, answers: Sequence[str | None]) -> None:
    """A run of a method and seed, and the evaluation of its policy, as `emor3 reproduce` lays them out."""
    cell = folder / name / f"seed{seed}"
    run = save_run(cell / "training", seed, steps=1, data={"train": name})
    evaluated(cell / "evaluation", answers, model=str(run / "final"), judge="base", start="base")


def test_a_setting_that_is_gone_and_did_nothing_does_not_part_older_seeds_from_newer_ones(tmp_path: Path) -> None:
    for seed in (0, 1):
        trained(tmp_path, "form", seed, ANSWERS["form"])
    head = tmp_path / "form/seed0/evaluation/evaluation.json"
    written = json.loads(head.read_text())
    for weighed, groups in ((False, 1), (True, 2)):
        written["settings"]["reflective"] = weighed
        head.write_text(json.dumps(written))
        assert len(by_seeds(dict(enumerate(read_records([tmp_path]).evaluations)))) == groups


def test_runs_that_differ_in_their_seed_only_are_tested_together_over_seeds_and_items(tmp_path: Path) -> None:
    for name, answers in ANSWERS.items():
        for seed in (0, 1):
            trained(tmp_path, name, seed, answers[seed:] + answers[:seed])
    evaluated(tmp_path / "base", ("fear",) * 5 + ("joy",), model="base", judge="base")
    records = read_records([tmp_path])
    (table,) = compare_all(records.evaluations, faults := [])
    assert faults == []
    folders = [[tmp_path / name / f"seed{seed}" / "evaluation" for seed in (0, 1)] for name in ANSWERS]
    groups = [[read_evaluation(folder) for folder in group] for group in [[tmp_path / "base"], *folders]]
    expected, _ = compare_groups(groups)
    assert [(t.figure, t.values, t.difference, t.p_value, t.adjusted) for t in table.tests] == [
        (t.figure, t.values, t.difference, t.p_value, t.adjusted) for t in expected
    ]
    together = [f"{name}/seed0, greedy and 1 more seed" for name in ANSWERS]
    assert list(dict.fromkeys((test.before, test.after) for test in table.tests)) == [
        ("base, greedy", name) for name in together
    ]
    assert list(table.captions) == together
    assert all("over seeds and items together" in caption for caption in table.captions.values())
    # The start model, two rows a method of which the first bears the change, the majority class.
    assert [(row["span"], row["seeds"]) for row in table.rows] == [(1, 1), (2, 2), (0, 2), (2, 2), (0, 2), (1, 1)]
    page, _ = page_of(tmp_path)
    assert page.count('rowspan="2"') == page.count("2 seeds together") == 2


def test_one_run_against_several_is_left_out_in_a_line_and_the_others_are_tested(tmp_path: Path) -> None:
    trained(tmp_path, "alone", 0, ANSWERS["form"])
    trained(tmp_path, "single", 0, ANSWERS["paper"])
    for seed in (0, 1):
        trained(tmp_path, "paper", seed, ANSWERS["paper"])
    page, faults = page_of(tmp_path)
    (table,) = compare_all(read_records([tmp_path]).evaluations, [])
    assert {(test.before, test.after) for test in table.tests} == {("alone/seed0, greedy", "single/seed0, greedy")}
    assert faults == ["alone/seed0: one run against 2: give at least two of each, or one of each"]
    assert "rowspan" in page


def test_the_same_seed_trained_or_evaluated_twice_is_no_further_seed(tmp_path: Path) -> None:
    for place in ("a", "b"):
        trained(tmp_path / place, "paper", 0, ANSWERS["paper"])
    final = str(tmp_path / "a/paper/seed0/training/final")
    evaluated(tmp_path / "again", ANSWERS["form"], model=final, judge="base", start="base")
    found = read_records([tmp_path]).evaluations
    assert [len(group) for group in by_seeds(dict(enumerate(found)))] == [1, 1, 1]


@pytest.mark.parametrize(
    "other", [{"temperature": 0.5}, {"judge": "another"}, {"model": "checkpoints/checkpoint-1"}], ids=str
)
def test_evaluations_made_otherwise_are_no_seeds_of_one_method(tmp_path: Path, other: dict[str, Any]) -> None:
    runs = [save_run(tmp_path / f"run{seed}", seed, steps=1) for seed in (0, 1)]
    evaluated(tmp_path / "e0", model=str(runs[0] / "final"), judge="base")
    model = str(runs[1] / other.pop("model", "final"))
    evaluated(tmp_path / "e1", **{"model": model, "judge": "base"} | other)
    assert [len(group) for group in by_seeds(dict(enumerate(read_records([tmp_path]).evaluations)))] == [1, 1]


@pytest.mark.parametrize("known", [{"start": "base"}, {}], ids=["recorded", "told from the judge"])
def test_the_start_model_is_known_without_its_run(tmp_path: Path, known: Any) -> None:
    evaluated(tmp_path / "a", model="trained", judge="base", **known)
    evaluated(tmp_path / "b", model="base", judge="base")
    assert [one.name for one in read_records([tmp_path]).evaluations] == ["base, greedy", "trained, greedy"]


def test_the_gallery_sets_like_beside_like(tmp_path: Path) -> None:
    evaluated(tmp_path / "a", model="one")
    evaluated(tmp_path / "b", model="one", temperature=1.0)
    evaluated(tmp_path / "c", model="two")
    evaluations = read_records([tmp_path]).evaluations
    sets = {shown["data"]: shown["evaluations"] for shown in gallery(evaluations, Pictures())}
    named = {data: [evaluations[place].name for place in places] for data, places in sets.items()}
    assert named == {
        "d, greedy": ["one, greedy", "two, greedy"],
        "d, sampled at temperature 1": ["one, sampled at temperature 1"],
    }


def test_the_page_says_how_many_of_how_many_rollouts_and_pictures_it_shows(tmp_path: Path) -> None:
    (run,) = read_records([save_run(tmp_path / "run", steps=20)]).runs
    assert run.recorded_steps == 20
    assert {row["of"] for row in run.rollouts} == {4}
    noise = [Image.effect_noise((LONGEST_SIDE, LONGEST_SIDE), 200) for _ in "RGB"]
    Image.merge("RGB", noise).save(tmp_path / "0.png")  # of which nothing can be compressed
    for place in range(1, ITEMS):
        (tmp_path / f"{place}.png").symlink_to(tmp_path / "0.png")
    fit = BUDGET // len(thumbnail(str(tmp_path / "0.png"))) + 1  # the last one goes over the edge
    made = [replace_images(prediction("joy", "joy", id=str(n)), tmp_path / f"{n}.png") for n in range(ITEMS)]
    save_evaluation(tmp_path / "e", {"d": made})
    assert 0 < fit < ITEMS
    assert f"{ITEMS - fit} of {ITEMS} pictures do not fit on the page" in page_of(tmp_path / "e")[1]


def replace_images(made: Prediction, path: Path) -> Prediction:
    return replace(made, sample=replace(made.sample, images=(str(path),)))


# --- curves --------------------------------------------------------------------------------------------------------


def test_runs_that_differ_in_their_seed_only_are_one_line_with_a_band(tmp_path: Path) -> None:
    for seed, accuracy in ((0, 0.2), (1, 0.4), (2, 0.6)):
        save_run(tmp_path / f"seed{seed}", seed, accuracy=accuracy)
    save_run(tmp_path / "other", accuracy=0.9, thinking="free")
    other, seeds = group_runs(read_records([tmp_path]).runs)
    assert (other.name, seeds.name) == ("other", "seed0 and 2 more seeds")
    point = seeds.curve("reward")[0]
    assert (point.step, point.mean, *point.runs) == pytest.approx((1, 0.41, 0.21, 0.61))  # accuracy + step / 100
    # deviation 0.2 over three seeds, t(2) = 4.303: 4.303 * 0.2 / sqrt(3) = 0.497 to each side
    assert (point.low, point.high) == pytest.approx((0.41 - 0.497, 0.41 + 0.497), abs=1e-3)
    alone = other.curve("reward")[0]
    assert (alone.mean, *alone.runs) == pytest.approx((0.91, 0.91, 0.91))
    assert math.isnan(alone.low)


def test_a_band_wider_than_the_runs_is_cut_at_the_frame(tmp_path: Path) -> None:
    # rewards of 0.2 and 0.6: with two seeds the interval is 0.4 +- 12.7 * 0.2, and the axis still ends at 1
    for seed, accuracy in ((0, 0.2), (1, 0.6)):
        save_run(tmp_path / f"seed{seed}", seed, accuracy=accuracy)
    (group,) = group_runs(read_records([tmp_path]).runs)
    assert group.curve("reward")[0].high > 2
    panel = next(panel for panel in curve_sections([group])["Reward"] if panel.title == "total reward")
    ticks = [float(tick) for tick in re.findall(r">([0-9]+\.[0-9]+)</text>", panel.svg)]
    assert max(ticks) == 1


def test_a_long_run_is_averaged_in_forty_stretches(tmp_path: Path) -> None:
    (group,) = group_runs(read_records([save_run(tmp_path / "run", steps=100)]).runs)
    points = group.curve("reward")
    assert len(points) == 34  # 100 steps in stretches of ceil(100 / 40) = 3
    assert points[0][:2] == pytest.approx((2, 0.52))  # steps 1 to 3: mean of 0.51, 0.52, 0.53


def test_every_canary_and_every_reward_part_is_plotted(tmp_path: Path) -> None:
    run = save_run(tmp_path / "run", steps=2)
    append_jsonl(run / METRICS, [{"step": 3, "canary/yes_swapped": 0.1, "rewards/brevity/mean": 1.0}])
    sections = curve_sections(group_runs(read_records([run]).runs))
    titles = {name: [panel.title for panel in panels] for name, panels in sections.items()}
    assert titles["Canary"] == ["yes swapped"]
    assert titles["Reward"] == ["total reward", "accuracy", "brevity"]
    assert sections["Reward"][0].ends == {"run": pytest.approx((0.51, 0.52))}


def evaluate_run(run: Path, accuracies: Sequence[float], best: int = 0, every: int = 4) -> None:
    """Add evaluations on held-out samples at every so many steps to the folder of a run, the best one by its place."""
    rows = [{"step": every * n, "n": 8, "accuracy": value, "format": 1.0} for n, value in enumerate(accuracies)]
    append_jsonl(run / EVALUATIONS, rows)
    (run / BEST).mkdir()
    write_json(run / BEST / CONFIG, {})
    kept = {"step": rows[best]["step"], "metric": "accuracy", "value": accuracies[best], "n": 8}
    write_json(run / BEST / BEST_OF, kept)


def test_evaluations_during_training_are_learning_curves_with_a_band_over_seeds_at_each_step(tmp_path: Path) -> None:
    for seed, start in ((0, 0.2), (1, 0.4), (2, 0.6)):
        evaluate_run(save_run(tmp_path / f"seed{seed}", seed), (start, start + 0.1, 0.5))
    evaluate_run(save_run(tmp_path / "other", thinking="free"), (0.9,))
    records = read_records([tmp_path])
    assert len(records.runs) == 4  # a best policy is no run
    other, seeds = group_runs(records.runs)
    first, second, last = seeds.learning_curve("accuracy")
    assert [point.step for point in (first, second, last)] == [0, 4, 8]
    assert (first.mean, *first.runs) == pytest.approx((0.4, 0.2, 0.6))
    # deviation 0.2 over three seeds, t(2) = 4.303: 4.303 * 0.2 / sqrt(3) = 0.497 to each side
    assert (first.low, first.high) == pytest.approx((0.4 - 0.497, 0.4 + 0.497), abs=1e-3)
    assert (last.mean, last.low, last.high) == pytest.approx((0.5, 0.5, 0.5))
    sections = curve_sections([other, seeds])
    assert next(iter(sections)) == "Held-out"
    assert [panel.title for panel in sections["Held-out"]] == ["accuracy", "format"]  # no perception: photographs
    assert sections["Held-out"][0].ends == {
        "other": pytest.approx((0.9, 0.9)),
        "seed0 and 2 more seeds": pytest.approx((0.4, 0.5)),
    }


def test_the_best_policy_is_named_and_an_evaluation_of_it_bears_its_name(tmp_path: Path) -> None:
    run = save_run(tmp_path / "run")
    evaluate_run(run, (0.25, 0.75, 0.5), best=1)
    evaluated(tmp_path / "e", model=str(run / BEST))
    page, faults = page_of(tmp_path)
    assert faults == []
    assert "8 steps, best held-out accuracy: 0.750 at step 4 (n = 8)" in page
    assert [one.name for one in read_records([tmp_path]).evaluations] == ["run, best, greedy"]


def test_a_run_without_evaluations_has_no_such_section_and_half_a_line_of_them_is_left_out(tmp_path: Path) -> None:
    run = save_run(tmp_path / "run")
    assert "Held-out" not in page_of(run)[0]
    evaluate_run(run, (0.25,))
    with (run / EVALUATIONS).open("a") as file:
        file.write('{"step": 4')
    (run / BEST / BEST_OF).write_text("{}")
    page, faults = page_of(run)
    assert "<h3>Held-out</h3>" in page
    cut, broken = faults
    assert "the last line of evaluations.jsonl is cut short" in cut
    assert broken == "run/best/best.json: 'step': Field required"


def test_the_time_of_a_phase_that_not_every_step_has_is_its_mean_over_all_steps(tmp_path: Path) -> None:
    run = save_run(tmp_path / "run", steps=3)  # 2 s and 1 s
    append_jsonl(run / METRICS, [{"step": 4, "time/generate": 2.0, "time/update": 1.0, "time/evaluate": 6.0}])
    (split,) = time_split(group_runs(read_records([run]).runs))
    assert split["phases"] == {"evaluate": 1.5, "generate": 2.0, "update": 1.0}  # 6 s once in 4 steps
    assert split["total"] == 4.5


def test_a_drawing_takes_its_colours_from_the_page(tmp_path: Path) -> None:
    sections = curve_sections(group_runs(read_records([save_run(tmp_path / "run")]).runs))
    svg = sections["Reward"][0].svg
    assert "currentColor" in svg
    assert "var(--c0)" in svg
    assert " id=" not in svg.replace('<clipPath id="', "").replace(
        '<path id="m', ""
    )  # what the drawing itself refers to


# --- examples --------------------------------------------------------------------------------------------------------


def test_a_card_counts_for_its_outcomes() -> None:
    def outcomes(*made: Any, **said: Any) -> Any:
        from emor3.runs.predictions import prediction_row

        return card(prediction_row("d", prediction(*made, **said)))["outcomes"]

    assert outcomes("joy", "joy") == ["correct"]
    assert outcomes("joy", "fear", judge="No") == ["wrong", "inconsistent"]
    assert outcomes("joy", None, reads="fear") == ["unparsed", "incoherent"]


def test_the_gallery_shows_rare_outcomes_first_and_says_how_many_images_there_are(tmp_path: Path) -> None:
    answers = [None if place == 150 else "joy" for place in range(200)]
    evaluations = read_records([evaluated(tmp_path / "e", answers)]).evaluations
    (shown,) = gallery(evaluations, Pictures())
    assert (len(shown["items"]), shown["total"]) == (ITEMS, 200)
    assert "s150" in [item["id"] for item in shown["items"]]


def test_the_gallery_keeps_to_its_budget_whatever_the_models_wrote(tmp_path: Path) -> None:
    made = [prediction("joy", "joy", id=f"s{place}") for place in range(ITEMS)]
    loud = [p.__class__(**{**vars(p), "completion": p.completion.replace("dog", "dog " * 5000)}) for p in made]
    evaluations = read_records([save_evaluation(tmp_path / "e", {"d": loud})]).evaluations
    (shown,) = gallery(evaluations * 40, Pictures())
    assert 0 < len(shown["items"]) < ITEMS
    assert len(json.dumps(shown)) < BUDGET
    assert len(shown["items"][0]["cards"][0]["steps"][0]) < TEXT + 50


def test_pictures_are_scaled_down_and_those_that_are_missing_are_counted(tmp_path: Path) -> None:
    Image.effect_noise((2000, 1000), 50).save(tmp_path / "large.png")
    (tmp_path / "text.png").write_text("no picture")
    pictures = Pictures()
    keys = [pictures.add(str(tmp_path / name)) for name in ("large.png", "large.png", "text.png", "absent.png")]
    assert keys == ["p0", "p0", None, None]
    assert [path.rpartition("/")[2] for path in pictures.missing] == ["text.png", "absent.png"]
    header, _, content = pictures.uris["p0"].partition(",")
    assert header == "data:image/jpeg;base64"
    assert Image.open(BytesIO(b64decode(content))).size == (224, 112)


def test_the_best_and_worst_rollouts_of_some_steps_are_shown(tmp_path: Path) -> None:
    (run,) = read_records([save_run(tmp_path / "run", steps=20)]).runs
    assert sorted({row["step"] for row in run.rollouts}) == [1, 5, 9, 12, 16, 20]
    first = [(row["rank"], row["thought"]["answer"]) for row in run.rollouts if row["step"] == 1]
    assert first == [("best", "joy"), ("best", "joy"), ("worst", "fear"), ("worst", None)]


def test_rollouts_in_another_form_are_left_out_in_one_line(tmp_path: Path) -> None:
    run = save_run(tmp_path / "run", steps=1)
    append_jsonl(run / ROLLOUTS, [{"step": 2, "reward": 1.0}])
    assert page_of(run)[1] == ["run: 1 rollouts are not as emor3 writes them: left out"]


# --- the page --------------------------------------------------------------------------------------------------------


def test_models_on_other_test_items_are_shown_and_not_compared(tmp_path: Path) -> None:
    evaluated(tmp_path / "a")
    evaluated(tmp_path / "b")
    save_evaluation(tmp_path / "c", {"d": [prediction("joy", "joy", id="another")]})
    page, faults = page_of(tmp_path)
    assert faults == ["c: other samples of d than a, nothing is compared there"]
    assert (
        page.count('<th scope="row"><bdi>model, greedy (c)</bdi></th>') == 1
    )  # among the figures, not among the tests
    assert page.count('<th scope="row"><bdi>model, greedy (b)</bdi></th>') > 1


def test_models_that_think_otherwise_share_a_table_as_far_as_they_can(tmp_path: Path) -> None:
    evaluated(tmp_path / "steps")
    evaluated(tmp_path / "direct", thinking="direct")
    page, faults = page_of(tmp_path)
    assert faults == []
    assert (
        page.count('<th scope="row"><bdi>model, greedy (steps)</bdi></th>') == 3 + 1
    )  # accuracy, macro-F1 and format; and the figures


def test_json_cannot_end_its_script() -> None:
    content = {"text": "</script><!--<script>"}
    assert "<" not in json_in_html(content)
    assert json.loads(json_in_html(content)) == content


def test_watching_writes_the_page_again_when_a_record_has_changed(tmp_path: Path) -> None:
    run, looks = save_run(tmp_path / "run", steps=2), []

    def another_step(seconds: Any) -> None:
        looks.append(seconds)
        if len(looks) == 3:
            append_jsonl(run / METRICS, [{"step": 3, "reward": 0.5}])

    page = tmp_path / "report.html"
    pages = watch([tmp_path], page, 7, sleep=another_step)
    next(pages)
    assert ">2 steps<" in page.read_text()
    assert 'data-refresh="7"' in page.read_text()
    next(pages)
    assert looks == [7, 7, 7]
    assert ">3 steps<" in page.read_text()


def test_watching_may_begin_before_the_first_record(tmp_path: Path) -> None:
    assert next(watch([tmp_path], tmp_path / "report.html", 1)) == []


def test_the_command_tells_what_it_left_out_and_ends_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evaluated(tmp_path / "runs" / "good")
    page = tmp_path / "pages" / "report.html"
    assert app(["report", str(tmp_path / "runs"), "-o", str(page)], standalone_mode=False) == 1  # pictures are missing
    said = capsys.readouterr()
    left_out, next_command = said.err.splitlines()
    assert re.fullmatch(r"left out: 3 pictures cannot be read \(the first is s\d.png\)", left_out)
    assert next_command.startswith("next: ")
    assert page.is_file()
    assert app(["report", str(save_run(tmp_path / "run")), "-o", str(page)], standalone_mode=False) == 1
