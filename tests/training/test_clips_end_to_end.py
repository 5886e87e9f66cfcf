"""A folder of short clips goes from import to training, resume, evaluation, prediction, report and an export."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from clips import clip_folders
from emor3.data.folders import load_samples
from emor3.data.importers.importing import import_data
from emor3.evaluation.candidate import load_candidate
from emor3.evaluation.evaluate import evaluate
from emor3.evaluation.predict import predict
from emor3.evaluation.settings import EvaluationSettings
from emor3.hosts.exports.catalogue import export_data
from emor3.hosts.rows import COLUMN
from emor3.method.thinking import FRAMES
from emor3.report.page import render
from emor3.report.records import read_records
from emor3.runs.predictions import read_evaluation
from emor3.runs.recipe import Recipe, load_recipe
from emor3.runs.records import read_jsonl
from emor3.training.run import train

pytestmark = pytest.mark.slow

WEIGHTS = "final/model.safetensors"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    clip_folders(folder / "src", each=3)
    import_data("clips", str(folder / "src"), folder / "data", frames=3)
    return folder / "data"


@pytest.fixture(scope="module")
def recipe(data: Path) -> Recipe:
    content = {
        "output_dir": str(data.parent / "run"),
        "model": {"path": "embedded"},
        "data": {"train": str(data)},
        "cold_start": {"steps": 1, "samples": 2, "batch_size": 2},
        "judge": {"calibration": 2},
        "grpo": {
            "max_steps": 2,
            "num_generations": 2,
            "per_device_train_batch_size": 4,
            "max_completion_length": 48,
            "learning_rate": 1e-3,
            "save_steps": 1,
        },
    }
    path = data.parent / "recipe.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return load_recipe(path)


@pytest.fixture(scope="module")
def run(recipe: Recipe) -> Path:
    return train(recipe)


def test_clips_are_trained_on_as_videos_and_a_run_resumes_to_the_same_weights(
    run: Path, recipe: Recipe, data: Path
) -> None:
    rows, weights = list(read_jsonl(run / "rollouts.jsonl")), load_file(run / WEIGHTS)
    samples = {sample.id: sample for sample in load_samples(str(data), split="train")}
    assert len(rows) == 2 * 4
    for row in rows:
        assert (row["clip"], tuple(row["images"])) == (row["sample"], samples[row["sample"]].images)
    questions = [row["reflection"]["consistency"]["question"] for row in rows]
    assert any(questions)
    assert all(question is None or question.startswith(FRAMES) for question in questions)
    (run / "checkpoints/checkpoint-2/complete").unlink()
    shutil.rmtree(run / "final")  # else the run is finished
    train(recipe, resume=True)
    assert list(read_jsonl(run / "rollouts.jsonl")) == rows
    assert all(torch.equal(value, weights[name]) for name, value in load_file(run / WEIGHTS).items())


def test_an_evaluation_is_read_again_as_clips_and_a_clip_itself_gets_the_same_answer(
    run: Path, data: Path, tmp_path: Path, few_draws: None
) -> None:
    candidate, settings = load_candidate(str(run)), EvaluationSettings(max_new_tokens=24, batch_size=1)
    evaluate(candidate, [str(data)], settings, tmp_path / "evaluation")
    (predictions,) = read_evaluation(tmp_path / "evaluation").predictions.values()
    tested = list(load_samples(str(data), split="test"))
    assert [one.sample.clip for one in predictions] == [sample.clip for sample in tested]
    assert all(one.sample.is_video for one in predictions)
    paths = [str(data.parent / "src" / str(sample.clip)) for sample in tested]
    found: list[Any] = [outcome for _, outcome in predict(candidate, paths, tested[0].labels, settings, frames=3)]
    assert [outcome.prediction.completion for outcome in found] == [one.completion for one in predictions]
    page, faults = render(read_records([run, tmp_path / "evaluation"]))
    assert faults == []
    cards = json.loads(page.split('<script type="application/json" id="cards">')[1].split("</script>")[0])
    assert [len(item["pictures"]) for item in cards["sets"][0]["items"]] == [3] * len(tested)


def test_an_export_carries_frames_clip_and_prompt(data: Path, tmp_path: Path) -> None:
    written = export_data("swift", str(data), tmp_path / "out", split="train", distractors=1)
    rows = list(read_jsonl(tmp_path / "out" / written.files["train"]))
    for row in rows:
        packed = json.loads(row[COLUMN])
        assert packed["clip"] == packed["id"]
        assert [len(row["images"]), len(packed["distractors"][0])] == [3, 3]
        assert row["messages"][0]["content"] == "<image>" * 3 + row["messages"][0]["content"].replace("<image>", "")
        assert FRAMES in row["messages"][0]["content"]
