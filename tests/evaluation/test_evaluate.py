"""`emor3 evaluate`: prompt, parser and scorer of training, repeatable, a fixed judge, nothing overwritten."""

import json
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from emor3.cli import main as cli
from emor3.data.folders import load_samples
from emor3.errors import UserError
from emor3.evaluation import evaluate
from emor3.evaluation.evaluate import choose_samples, load_candidate, reflect_on_swapped
from emor3.evaluation.settings import EvaluationSettings
from emor3.method.reflection import ScriptedJudge
from emor3.method.thinking import build_prompt, parse
from emor3.method.types import Aspect, Sample
from emor3.models.checkpoints import load, save
from emor3.runs.predictions import read_evaluation
from emor3.storage.outputs import fresh_folder, write_json
from emor3.tiny.folders import write_domain
from emor3.tiny.world import DOMAINS
from emor3.training import run as train
from emor3.training import scorer
from rows import write_rows


def run(*arguments):
    return CliRunner().invoke(cli.app, ["evaluate", "--model", "embedded", "--max-new-tokens", "80", *arguments])


def rows_of(folder):
    return [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """Drawn scenes with another label set."""
    folder = tmp_path_factory.mktemp("data") / "six"
    write_domain(folder, DOMAINS["scenes6"], seed=0, sizes={"test": 8})
    return str(folder)


@pytest.fixture(scope="module")
def evaluated(scenes, other, tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluated") / "out"
    result = run("--data", scenes, "--data", other, "--output", str(folder))
    assert result.exit_code == 0, result.output
    return folder, result.output


def test_prompt_parser_and_reflection_are_the_functions_of_training():
    assert evaluate.sample_prompt is train.sample_prompt
    assert evaluate.parse is scorer.parse
    assert evaluate.reflect is scorer.reflect


def test_every_data_set_is_evaluated_on_its_own_labels_and_every_sample_leaves_its_prediction(evaluated, scenes, other):
    folder, output = evaluated
    rows = rows_of(folder)
    assert [row["id"] for row in rows if row["data"] == scenes] == [s.id for s in load_samples(scenes, split="test")]
    assert {row["data"] for row in rows} == {scenes, other}
    results = json.loads((folder / "results.json").read_text())
    assert [part["label_set"]["name"] for part in results["data"]] == ["mikels8", "ekman6"]
    for part in results["data"]:
        right = [row["predicted"] == row["label"] for row in rows if row["data"] == part["data"]]
        assert part["figures"]["accuracy"]["value"] == sum(right) / 8
        assert part["data"] in "".join(output.split())  # folded, not cut
    assert "majority class" in output
    assert "judge of consistency and coherence: " in output


def test_a_completion_is_asked_for_by_the_prompt_of_training_and_read_by_its_parser(evaluated, scenes):
    row = rows_of(evaluated[0])[0]
    sample = load_samples(scenes, split="test")[0]
    assert row["completion"] == evaluate.complete(load_candidate("embedded"), [sample], EvaluationSettings())[0]
    assert row["trigger"] == parse(row["completion"]).trigger
    assert ", ".join(sample.labels.labels) in build_prompt(sample.labels)


def test_an_evaluation_repeats_exactly(evaluated, scenes, other, tmp_path):
    assert run("--data", scenes, "--data", other, "--output", str(tmp_path / "again")).exit_code == 0
    assert rows_of(tmp_path / "again") == rows_of(evaluated[0])


def test_another_label_set_than_the_data_s_is_asked_for_and_must_hold_its_labels(other, tmp_path):
    asked = run("--data", other, "--labels", "ekman7", "--limit", "2", "--output", str(tmp_path / "seven"))
    assert asked.exit_code == 0, asked.output
    assert json.loads((tmp_path / "seven/results.json").read_text())["data"][0]["label_set"]["name"] == "ekman7"
    refused = run("--data", other, "--labels", "sentiment3", "--output", str(tmp_path / "three"))
    assert "is not in the set sentiment3" in str(refused.exception)


def test_an_output_folder_with_content_is_refused_before_a_model_is_loaded(scenes, tmp_path, monkeypatch):
    (tmp_path / "kept.txt").touch()
    monkeypatch.setattr(evaluate, "load_candidate", lambda *_: pytest.fail("a model was loaded"))
    refused = run("--data", scenes, "--output", str(tmp_path))
    assert isinstance(refused.exception, UserError)
    assert "exists and is not empty" in str(refused.exception)


def test_without_an_output_the_next_free_folder_is_taken(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs/evaluation-1").mkdir(parents=True)
    assert fresh_folder(None, "evaluation") == Path("runs/evaluation-2")


def test_the_judge_of_a_run_is_the_model_it_started_from_and_stays_the_same(random_checkpoint, tmp_path):
    start, run_folder = tmp_path / "start", tmp_path / "run"
    for folder in (start, run_folder / "final"):
        save(*load(random_checkpoint), folder)
    recipe = {"output_dir": str(run_folder), "model": {"path": str(start)}, "data": {"train": "x"}, "thinking": "free"}
    write_json(run_folder / "config.json", recipe)
    write_json(run_folder / "environment.json", {})
    for path in (run_folder, run_folder / "final"):
        candidate = load_candidate(str(path))
        assert (Path(candidate.path), candidate.judge_path) == (run_folder / "final", str(start))
        assert (candidate.thinking, candidate.template) == ("free", "free")
    assert load_candidate(random_checkpoint).judge_path == random_checkpoint
    assert load_candidate(str(run_folder), random_checkpoint).judge_path == random_checkpoint


def test_a_limit_takes_the_same_samples_every_time_in_the_order_of_the_data(scenes):
    everything = [sample.id for sample in choose_samples(scenes, EvaluationSettings())]
    few = [sample.id for sample in choose_samples(scenes, EvaluationSettings(limit=3))]
    assert few == [sample.id for sample in choose_samples(scenes, EvaluationSettings(limit=3))]
    assert [sample_id for sample_id in everything if sample_id in few] == few
    assert len(few) == 3


def test_the_control_of_consistency_asks_about_another_image_s_text():
    labels = DOMAINS["scenes8"].labels
    samples = [Sample(f"{i}", (f"{i}.png",), "awe", labels) for i in range(3)]
    thoughts = [parse(f"<step1>{text}</step1>") for text in ("A dog.", "A dog.", "A cat.")]
    judge = ScriptedJudge(lambda question: "No")
    found = reflect_on_swapped(judge, samples, thoughts)
    asked = [(finding.question.images, "A cat." in finding.question.text) for finding in found]
    assert asked == [(("0.png",), True), (("1.png",), True), (("2.png",), False)]  # the third gets a dog's text
    assert all(finding.question.aspect is Aspect.CONSISTENCY for finding in found)
    assert reflect_on_swapped(judge, samples[:1], thoughts[:1]) == [None]


def test_an_unreadable_image_is_named_and_left_out_and_the_others_are_evaluated(tmp_path):
    rows = [{"file_name": f"{place}.png", "label": ("joy", "fear")[place % 2], "split": "test"} for place in range(4)]
    for place, row in enumerate(rows):
        Image.effect_noise((64, 64), 20 + place).save(tmp_path / row["file_name"])
    (tmp_path / "3.png").write_bytes((tmp_path / "3.png").read_bytes()[:300])
    data, output = write_rows(tmp_path, rows), tmp_path / "out"
    done = run("--data", data, "--output", str(output))
    assert done.exit_code == 1, done.output
    assert done.output.count("left out: ") == 1
    assert f"left out: {data}, 3.png: image {tmp_path / '3.png'} cannot be read" in done.output
    saved = read_evaluation(output)
    assert [prediction.sample.id for prediction in saved.predictions[data]] == ["0.png", "1.png", "2.png"]
    (part,) = json.loads((output / "results.json").read_text())["data"]
    assert (part["n"], part["figures"]["accuracy"]["n"], list(part["unreadable"])) == (3, 3, ["3.png"])
    assert CliRunner().invoke(cli.app, ["evaluate", "--from", str(output)]).exit_code == 0
    for place in range(3):
        (tmp_path / f"{place}.png").write_bytes(b"")
    nothing = run("--data", data, "--output", str(tmp_path / "none"))
    assert "none of the 4 samples has images that can be read" in str(nothing.exception)


def test_neither_a_model_nor_data_is_guessed():
    nothing = CliRunner().invoke(cli.app, ["evaluate", "--model", "embedded"])
    assert "give --model and --data" in str(nothing.exception)
