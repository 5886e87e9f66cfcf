"""Rows with one image, several or none go through every command that takes data, beside each other."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from emor3.cli.main import app
from emor3.data.check import check, report_table
from emor3.data.folders import load_samples
from emor3.data.overview import stats, write_page
from emor3.data.subsets import pick_data
from emor3.errors import UserError
from emor3.evaluation.evaluate import evaluate, load_candidate, predict_samples
from emor3.evaluation.settings import EvaluationSettings
from emor3.evaluation.share import left_out, write_shared
from emor3.method.types import Aspect
from emor3.models.processors import load_processor
from emor3.report.page import render
from emor3.report.records import read_records
from emor3.runs.predictions import PREDICTIONS, read_evaluation
from emor3.runs.recipe import Recipe, load_recipe
from emor3.runs.records import read_jsonl
from emor3.training.dataset import check_rows
from emor3.training.run import train
from rows import write_rows
from steps import writes

FINAL_WEIGHTS = "final/model.safetensors"


@pytest.fixture(scope="module")
def recipe(mixed: str, random_checkpoint: str, tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """Two steps after a cold start, each on two completions of all four rows; every row is a forward of its own."""
    folder = tmp_path_factory.mktemp("rows")
    content = {
        "output_dir": str(folder / "run"),
        "model": {"path": random_checkpoint},
        "data": {"train": mixed},
        "cold_start": {"steps": 1, "samples": 4, "batch_size": 4},
        "judge": {"calibration": 4},
        "grpo": {
            "max_steps": 2,
            "num_generations": 2,
            "per_device_train_batch_size": 1,
            "gradient_accumulation_steps": 8,
            "beta": 0.1,
            "max_completion_length": 6,
            "learning_rate": 1e-3,
            "save_steps": 1,
            "gradient_checkpointing": True,
        },
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return load_recipe(path)


@pytest.fixture(scope="module")
def run(recipe: Recipe) -> Path:
    return train(recipe)


@pytest.fixture(scope="module")
def evaluated(run: Path, mixed: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluated") / "evaluation"
    evaluate(load_candidate(str(run)), [mixed], EvaluationSettings(max_new_tokens=6), folder)
    return folder


@pytest.mark.slow
def test_all_kinds_of_rows_are_trained_on_in_one_batch_and_recorded_as_what_they_show(run: Path, mixed: str) -> None:
    rows = list(read_jsonl(run / "rollouts.jsonl"))
    assert [len({row["sample"] for row in rows if row["step"] == step}) for step in (1, 2)] == [4, 4]
    samples = {sample.id: sample for sample in load_samples(mixed, split="train")}
    for row in rows:
        assert (tuple(row["images"]), row["text"]) == samples[row["sample"]].content


@pytest.mark.slow
def test_such_a_run_resumes_to_the_same_completions_and_weights(run: Path, recipe: Recipe) -> None:
    before, weights = [row["completion"] for row in read_jsonl(run / "rollouts.jsonl")], load_file(run / FINAL_WEIGHTS)
    (run / "checkpoints/checkpoint-2/complete").unlink()
    shutil.rmtree(run / "final")  # else the run is finished
    train(recipe, resume=True)
    assert [row["completion"] for row in read_jsonl(run / "rollouts.jsonl")] == before
    assert all(torch.equal(value, weights[name]) for name, value in load_file(run / FINAL_WEIGHTS).items())


def test_an_evaluation_of_such_rows_is_read_again_as_it_was(evaluated: Path, mixed: str) -> None:
    (predictions,) = read_evaluation(evaluated).predictions.values()
    assert [prediction.sample.content for prediction in predictions] == [
        sample.content for sample in load_samples(mixed, split="test")
    ]


def test_an_evaluation_with_one_image_a_row_as_older_versions_wrote_it_is_still_read(
    evaluated: Path, tmp_path: Path
) -> None:
    for file in evaluated.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    rows = [json.loads(line) for line in (tmp_path / PREDICTIONS).read_text().splitlines()]
    for row in rows:
        row["image"] = "old.png"
        del row["images"], row["text"]
    (tmp_path / PREDICTIONS).write_text("".join(json.dumps(row) + "\n" for row in rows))
    (predictions,) = read_evaluation(tmp_path).predictions.values()
    assert {prediction.sample.content for prediction in predictions} == {(("old.png",), None)}


def test_the_report_shows_all_images_and_texts_and_escapes_them(run: Path, evaluated: Path) -> None:
    page, faults = render(read_records([run, evaluated]))
    assert faults == []
    cards = json.loads(page.split('<script type="application/json" id="cards">')[1].split("</script>")[0])
    items = {item["id"]: item for item in cards["sets"][0]["items"]}
    assert [len(items[f"test-{number}"]["pictures"]) for number in range(4)] == [1, 2, 0, 1]
    assert items["test-2"]["text"] == "The <b>fog</b> <image> lifts. (test)"
    assert "<b>fog" not in page


def test_only_rows_with_one_image_are_shared_and_the_others_are_named(evaluated: Path, tmp_path: Path) -> None:
    saved = read_evaluation(evaluated)
    write_shared(saved, tmp_path / "out")
    lines = (tmp_path / "out/data.tsv").read_text().splitlines()
    assert len(lines) == 3  # the head and two of the four rows
    assert "hint" in lines[0]
    assert [line.partition(": ")[2] for line in left_out(saved)] == [
        "2 rows with several images or none are left out of the TSV files"
    ]


def test_a_check_counts_prompts_with_all_their_images_and_texts(
    mixed: str, recipe: Recipe, random_checkpoint: str
) -> None:
    report = check(mixed, recipe.data, load_processor(random_checkpoint))
    assert not report.breaks_training()
    assert report.tokens == {18: 8}  # each split: 1 + 2 + 0 + 1 images of 16 tokens and two marks
    assert report.most_images == 2
    assert sum(report.lengths.values()) == 8
    assert report_table(report).title.endswith("8 rows")


def test_a_text_in_two_splits_is_found(tmp_path: Path, recipe: Recipe, random_checkpoint: str) -> None:
    rows = [{"id": f"{place}", "text": "Fog.", "label": "joy", "split": split} for place, split in enumerate("ab")]
    write_rows(tmp_path, rows)
    (tmp_path / "labels.yaml").write_text("labels: [joy, fear]\n")
    report = check(str(tmp_path), recipe.data, load_processor(random_checkpoint))
    assert len(report.duplicates.cases) == 1


def test_a_subset_takes_all_images_of_its_rows(mixed: str, tmp_path: Path) -> None:
    pick_data(mixed, tmp_path / "subset", ["train-1", "train-2"], copy=True)
    two, none = load_samples(str(tmp_path / "subset"), labels="joy,fear")
    assert (len(two.images), none.images) == (2, ())
    assert sorted(path.name for path in (tmp_path / "subset").glob("*.png")) == ["train-blue.png", "train-red.png"]


def test_the_page_of_a_data_set_shows_all_images_and_escapes_texts(mixed: str, tmp_path: Path) -> None:
    write_page(stats(mixed), tmp_path / "page.html", 12, 0)
    page = (tmp_path / "page.html").read_text()
    assert page.count("<img ") == 8  # each split: 1 + 2 + 0 + 1
    assert "The &lt;b&gt;fog" in page


def test_a_judged_prediction_asks_about_all_images_of_its_row(
    mixed: str, random_checkpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = "<step1>A dog.</step1><step2>Joy.</step2><step3>Positive, high.</step3>\\boxed{joy}"
    candidate = load_candidate(random_checkpoint)
    writes(monkeypatch, candidate.processor.tokenizer, lambda count: [told] * count)
    samples = load_samples(mixed, split="test")
    made = predict_samples(candidate, samples, EvaluationSettings())
    asked = [prediction.reflection.consistency.question for prediction in made]
    assert [question.images for question in asked] == [sample.images for sample in samples]
    assert {question.aspect for question in asked} == {Aspect.CONSISTENCY}
    assert [prediction.reflection.consistency.reply is None for prediction in made] == [False] * 4


def test_what_cannot_be_trained_on_is_refused_before_anything_is_written(mixed: str, recipe: Recipe) -> None:
    samples = load_samples(mixed, split="train")
    dynamic = recipe.model_copy(update={"dynamic_sampling": 3})
    with pytest.raises(UserError, match=r"'train-2' has no image and others have: dynamic_sampling"):
        check_rows(samples, dynamic)
    check_rows([sample for sample in samples if sample.images], dynamic)
    check_rows([sample for sample in samples if not sample.images], dynamic)


@pytest.mark.slow
def test_texts_alone_are_trained_on(tmp_path: Path, random_checkpoint: str) -> None:
    rows = [{"id": str(place), "text": f"Fog {place}.", "label": label} for place, label in enumerate(("joy", "fear"))]
    write_rows(tmp_path, rows)
    recipe = tmp_path / "recipe.yaml"
    grpo = {"max_steps": 1, "num_generations": 2, "per_device_train_batch_size": 4, "max_completion_length": 4}
    content = {
        "model": {"path": random_checkpoint},
        "data": {"train": str(tmp_path)},
        "grpo": {**grpo, "save_steps": 1},
    }
    recipe.write_text(yaml.safe_dump({**content, "output_dir": str(tmp_path / "run")}))
    assert app(["train", str(recipe)], standalone_mode=False) in (None, 0)
    assert {row["text"] for row in read_jsonl(tmp_path / "run/rollouts.jsonl")} == {"Fog 0.", "Fog 1."}
