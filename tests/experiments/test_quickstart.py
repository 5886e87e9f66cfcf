"""A quickstart in miniature, through the command line: its table and figures agree with the saved predictions."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from emor3.cli import main as cli
from emor3.data.folders import resolve_folder
from emor3.evaluation.summary import summarise
from emor3.experiments.quickstart import EASY, HARD, SHOWN, TABLE_WIDTH, Outcome, World, outcome_table
from emor3.method.types import Estimate
from emor3.printing import console
from emor3.runs.predictions import read_evaluation
from emor3.runs.recipe import load_recipe
from emor3.stats.uncertainty import Comparison
from emor3.tiny.perception import EXACT, DrawnTruth
from made_up import prediction

N = 16
SMALL = ("grpo.max_steps=2", "grpo.num_generations=2", "grpo.per_device_train_batch_size=4", "grpo.save_steps=2")
Done = tuple[Path, str, World]


@pytest.fixture(scope="module", params=[((), HARD), (("--easy",), EASY)], ids=["hard", "easy"])
def done(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Done:
    """Folder, output and world of one run, as it looks where the output is no terminal."""
    option, world = request.param
    folder = tmp_path_factory.mktemp("quickstart") / "out"
    settings = [part for setting in SMALL for part in ("--set", setting)]
    arguments = ["quickstart", *option, "--seed", "3", "--limit", str(N), "--output", str(folder), *settings]
    result = CliRunner(env={"COLUMNS": "60"}).invoke(cli.app, arguments)
    assert result.exit_code == 0, result.output
    return folder, result.output, world


def rows(folder: Path, data: Any) -> list[Any]:
    lines = (folder / "predictions.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if row["data"] == data]


def supported(row: Any, aspect: str) -> Any:
    return row[aspect]["verdict"] == "supported"


@pytest.mark.slow
def test_the_figures_are_those_that_follow_from_the_saved_predictions(done: Done) -> None:
    folder, _, world = done
    summary = json.loads((folder / "results.json").read_text())
    assert summary["seed"] == 3
    assert len(summary["outcomes"]) == sum(len(data) for _, data in world.decodings.values())
    for outcome in summary["outcomes"]:
        right = {}
        for when, whose in (("before", "base"), ("after", "trained")):
            found = rows(folder / whose / outcome["decoding"], outcome["data"])
            assert len(found) == outcome["n"] == N
            figures = {name: estimate["value"] for name, estimate in outcome[when].items()}
            right[when] = [row["predicted"] == row["label"] for row in found]
            assert figures["accuracy"] == sum(right[when]) / N
            assert figures["format"] == sum(row["problem"] is None for row in found) / N
            assert figures["unparsed"] == sum(row["predicted"] is None for row in found) / N
            for aspect in ("consistency", "coherence"):
                assert figures[aspect] == sum(supported(row, aspect) for row in found) / N
        gain = outcome["accuracy"]["difference"]["value"]
        assert gain == pytest.approx((sum(right["after"]) - sum(right["before"])) / N)


@pytest.mark.slow
def test_step_1_is_held_against_the_drawn_scenes_before_and_after(done: Done) -> None:
    folder, output, world = done
    exact = DrawnTruth(map(resolve_folder, world.domains)).exact
    for outcome in json.loads((folder / "results.json").read_text())["outcomes"]:
        shares = {}
        for when, whose in (("before", "base"), ("after", "trained")):
            saved = read_evaluation(folder / whose / outcome["decoding"]).predictions[outcome["data"]]
            shares[when] = sum(map(exact, saved)) / N
            assert outcome[when]["perception"]["value"] == shares[when]
        change = outcome["perception"]["difference"]["value"]
        assert change == pytest.approx(shares["after"] - shares["before"])
        assert re.search(rf"^  {EXACT} +{100 * shares['before']:.1f} \[.+{100 * shares['after']:.1f} \[", output, re.M)


@pytest.mark.slow
def test_both_evaluations_are_of_the_same_samples_under_the_same_judge(done: Done) -> None:
    folder, _, world = done
    heads = [json.loads((folder / whose / "greedy/results.json").read_text()) for whose in ("base", "trained")]
    assert heads[0]["judge"] == heads[1]["judge"] == load_recipe(world.recipe).model.path
    assert heads[0]["model"] != heads[1]["model"]
    assert [part["sample_ids"] for part in heads[0]["data"]] == [part["sample_ids"] for part in heads[1]["data"]]


@pytest.mark.slow
def test_the_table_is_whole_also_where_the_output_is_narrow_or_no_terminal(done: Done) -> None:
    folder, output, world = done
    table = output[output.index("Before and after") : output.index("Completions of the trained")]
    assert "…" not in table
    assert all(len(line.rstrip()) <= TABLE_WIDTH for line in table.splitlines())
    for decoding, data in world.decodings.items():
        for path in data[1]:
            assert f"{path.removeprefix('embedded:')}, {decoding}" in table
    assert len(re.findall(r"^  \S", table, re.M)) == 4 * len(SHOWN)
    first = json.loads((folder / "results.json").read_text())["outcomes"][0]["before"]["accuracy"]
    assert f"{100 * first['value']:.1f} [{100 * first['low']:.1f}, {100 * first['high']:.1f}]" in table


@pytest.mark.slow
def test_there_are_completions_to_read_a_plot_and_a_run_directory_and_no_runs_of_blank_lines(done: Done) -> None:
    folder, output, _ = done
    assert output.count("viewers say") == 3
    assert output.count("consistency  supported") + output.count("consistency  refuted") == 3
    assert f"run directory: {folder / 'training'}\n" in output
    assert (folder / "training/final/model.safetensors").is_file()
    with Image.open(folder / "rewards.png") as plot:
        assert plot.width > 500
    assert "\n\n\n" not in output


@pytest.mark.parametrize("world", [HARD, EASY], ids=["hard", "easy"])
def test_a_world_is_trained_by_its_recipe_on_the_domain_that_is_called_in_domain(world: World) -> None:
    assert load_recipe(world.recipe).data.train == world.trained_on
    assert world.trained_on not in world.others


def test_the_widest_cells_fit_into_the_table() -> None:
    whole = Estimate(1.0, 0.985, 1.0, 256)  # Wilson: 256 / (256 + 1.96²) = 0.985
    made = summarise(EASY.trained_on, [prediction("joy", "joy")], "steps")
    evaluation = replace(made, figures=dict.fromkeys(SHOWN, whole))
    tests = dict.fromkeys(("accuracy", "perception"), Comparison(replace(whole, value=-1.0), 0, 256, 1e-9))
    wide = console(width=TABLE_WIDTH)
    with wide.capture() as printed:
        wide.print(outcome_table([Outcome("sampled", False, evaluation, evaluation, tests)]))
    cells = ("scenes8, sampled", EXACT, "100.0 [98.5, 100.0]", "-100.0", "< 0.0001", "out of domain")
    assert [cell for cell in cells if cell not in printed.get()] == []
    assert "…" not in printed.get()
