"""`emor3 predict`: every image in its place, a bad one fails alone, and the reflection is shown with probabilities."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from clips import clip_folders, moving, write_clip
from emor3.cli import main as cli
from emor3.data.folders import load_samples
from emor3.data.importers.importing import import_data
from emor3.errors import UserError
from emor3.evaluation import predict
from emor3.evaluation.evaluate import Candidate, complete, load_candidate
from emor3.evaluation.predict import Decision, against_own_answer, choose_labels, decide, prediction_text
from emor3.evaluation.settings import EvaluationSettings
from emor3.method.labels import MIKELS8, SENTIMENT3, LabelSet
from emor3.method.reflection import ScriptedJudge, reflect
from emor3.method.thinking import parse
from emor3.method.types import Aspect, Prediction, Sample, Verdict
from emor3.models.checkpoints import load
from emor3.models.engines.local import LocalEngine
from emor3.runs.recipe import Recipe
from made_up import SeesDogs
from steps import writes

WHOLE = "<step1>A {}.</step1><step2>Joy.</step2><step3>Positive, high arousal.</step3>\\boxed{{{}}}"


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two readable images around a truncated one and a missing one, with names that try to break the output."""
    folder = tmp_path_factory.mktemp("images")
    names = ("a \x1b[31mred\n[bold]name.png", "truncated.jpg", "missing.png", "b.png")
    paths = [str(folder / name) for name in names]
    Image.effect_noise((64, 64), 60).save(paths[1])
    whole = (folder / "truncated.jpg").read_bytes()
    (folder / "truncated.jpg").write_bytes(whole[: len(whole) // 2])
    for path in (paths[0], paths[3]):
        Image.new("RGB", (64, 64), "teal").save(path)
    return paths


def run(*arguments: Any) -> Result:
    return CliRunner().invoke(cli.app, ["predict", "--model", "embedded", "--max-new-tokens", "80", *arguments])


def made(
    completion: str, label: str = "", labels: LabelSet = MIKELS8, reads: str = "awe", image: str = "x.png"
) -> Prediction:
    sample, thought = Sample(image, (image,), label, labels), parse(completion)
    judge = ScriptedJudge(lambda question: "Yes" if question.aspect is Aspect.CONSISTENCY else reads)
    return Prediction(sample, completion, thought, thought.answer, reflect(judge, [(sample, thought)], set(Aspect))[0])


def test_a_bad_image_fails_alone_and_the_order_is_kept_in_json(images: list[str]) -> None:
    result = run("--json", "--batch-size", "2", *images)
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert result.exit_code == 1
    assert [row["image"] for row in rows] == images
    assert [sorted(row) == ["error", "image"] for row in rows] == [False, True, True, False]
    assert "truncated" in rows[1]["error"]
    assert "does not exist" in rows[2]["error"]
    for row in (rows[0], rows[3]):
        assert row["label"] in MIKELS8.labels
        assert row["trigger"]
        assert row["consistency"]["verdict"] in ("supported", "refuted")
        assert sum(row["coherence"]["probabilities"].values()) == pytest.approx(1)


def test_without_a_model_a_photograph_is_told_what_to_take_and_what_it_costs(
    main_with: Callable[..., int], images: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main_with("predict", images[3], images[0]) == 2
    (told,) = (line for line in capsys.readouterr().err.splitlines() if not line.endswith(": loading"))
    assert told.startswith("error: name a model with --model: for photographs on a laptop HuggingFaceTB/SmolVLM-256M")
    assert "(Apache-2.0, 518 MB to fetch once)" in told
    assert "embedded needs no download, shows the form of an answer, and has only ever seen drawings" in told
    assert main_with("predict", images[2]) == 2  # which is not there, whatever the model
    assert "does not exist" in capsys.readouterr().err


def test_a_drawing_of_the_package_gets_the_embedded_model_of_its_world(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, images: list[str]
) -> None:
    monkeypatch.setenv("EMOR3_CACHE", str(tmp_path))
    easy, hard = (str(tmp_path / f"{name}-v2-seed0/images/a.png") for name in ("scenes8_leaky", "hard6"))
    assert [predict.model_for(None, [easy]), predict.model_for(None, [hard])] == ["embedded", "embedded-hard"]
    assert predict.caution("embedded", [easy, hard]) is None
    assert str(predict.caution("embedded-hard", [easy, images[3]])).startswith("note: embedded-hard has only ever seen")
    assert (predict.model_for("my/model", [images[3]]), predict.caution("my/model", [images[3]])) == ("my/model", None)
    with pytest.raises(UserError, match="name a model"):
        predict.model_for(None, [easy, images[3]])


def test_the_text_shows_each_image_with_verdicts_and_a_hostile_name_stays_one_harmless_line(images: list[str]) -> None:
    result = run("--labels", "positive,neutral,negative", images[0], images[3])
    assert result.exit_code == 0
    assert "\x1b" not in result.output
    assert [line for line in result.output.splitlines() if "red [bold]name.png" in line]
    assert result.output.count("consistency  supported (Yes ") + result.output.count("consistency  refuted (") == 2
    assert result.output.count("  label ") == 2


def test_coherence_is_read_against_the_answer_since_there_is_no_ground_truth() -> None:
    leads_to_answer = against_own_answer(made(WHOLE.format("rainbow", "awe")))
    leads_elsewhere = against_own_answer(made(WHOLE.format("rainbow", "fear")))
    assert leads_to_answer.reflection.coherence.verdict is Verdict.SUPPORTED
    assert leads_elsewhere.reflection.coherence.verdict is Verdict.REFUTED


def test_what_could_not_be_asked_is_said_with_its_reason() -> None:
    shown = prediction_text(against_own_answer(made("no steps at all")))
    assert "label        none of the set" in shown
    assert "consistency  not asked: " in shown
    assert "trigger      -" in shown


def test_a_completion_cannot_write_to_the_terminal() -> None:
    shown = prediction_text(made(WHOLE.format("dog\x1b]0;title\x07\nforged: line", "awe")))
    assert "\x1b" not in shown
    assert len(shown.splitlines()) == 7


class Loaded:
    """A candidate as far as its label set goes."""

    def __init__(self, recipe: Recipe | None) -> None:
        self.recipe = recipe


def test_labels_are_those_asked_for_else_those_of_the_training_data_else_mikels(scenes: str) -> None:
    from emor3.runs.recipe import build_recipe

    def trained_on(path: Any) -> Loaded:
        return Loaded(build_recipe({"output_dir": "r", "model": {"path": "m"}, "data": {"train": path}}, (), "r"))

    assert choose_labels(Loaded(None), None) is MIKELS8
    assert choose_labels(Loaded(None), "sentiment3") is SENTIMENT3
    assert choose_labels(trained_on(scenes), None) == load_samples(scenes)[0].labels
    with pytest.raises(UserError, match="name one with --labels"):
        choose_labels(trained_on("gone"), None)


def test_batches_do_not_change_what_is_read_from_which_image(scenes: str) -> None:
    paths = [sample.image for sample in load_samples(scenes, split="test")][:5]
    candidate = load_candidate("embedded")
    by_size = [
        [
            outcome.prediction.completion
            for _, outcome in predict.predict(
                candidate, paths, MIKELS8, EvaluationSettings(max_new_tokens=80, batch_size=size)
            )
        ]
        for size in (2, 5)
    ]
    assert by_size[0] == by_size[1]
    assert len(set(by_size[0])) > 1


def test_the_majority_counts_among_the_answers_that_can_be_read() -> None:
    two = LabelSet("two", ("joy", "fear"))
    assert decide(["fear", None, "joy", "fear"], two, 0.5) == Decision({"joy": 1 / 3, "fear": 2 / 3}, "fear", False)
    assert decide(["fear", "joy"], two, 0.5) == Decision({"joy": 0.5, "fear": 0.5}, "joy", False)  # first in the set
    assert decide(["fear", "fear", "joy"], two, 0.7).abstains
    assert decide([None, None], two, 0.0) == Decision({}, None, True)


def test_of_several_samples_the_first_of_the_majority_is_shown_and_judged_and_none_if_none_can_be_read(
    monkeypatch: pytest.MonkeyPatch, scenes: str, random_checkpoint: str
) -> None:
    image = load_samples(scenes, split="test")[0].image
    trace = "<step1>{}</step1><step2>a</step2>\\boxed{{{}}}"
    drawn = {
        "mixed": [trace.format(*pair) for pair in (("dog", "awe"), ("cat", "fear"), ("dog", "fear"))],
        "unread": ["no idea", "\\boxed{boredom}", "nothing"],
    }
    model, processor = load(random_checkpoint)
    candidate = Candidate("m", LocalEngine(model, processor), "j", SeesDogs(0.9, awe=1.0), None)
    settings = EvaluationSettings(samples=3)
    found = {}
    for name, completions in drawn.items():
        drawing = iter(completions)
        writes(monkeypatch, processor.tokenizer, lambda count, drawing=drawing: list(islice(drawing, count)))
        ((_, found[name]),) = predict.predict(candidate, [image], MIKELS8, settings, abstain_below=0.5)
    mixed = found["mixed"]
    # The judge believes in dogs and reads awe: that decides nothing.
    assert (mixed.decision.label, mixed.prediction.thought.trigger, mixed.decision.abstains) == ("fear", "cat", False)
    reflection = mixed.prediction.reflection
    assert reflection.consistency.reply.probabilities == pytest.approx({"Yes": 0.1, "No": 0.9})
    assert reflection.coherence.verdict is Verdict.REFUTED
    assert predict.decision_text(mixed.decision) == "  sampled      fear 0.67, awe 0.33"
    row = predict.outcome_row(image, found["unread"])
    assert (row["label"], row["completion"], row["abstains"], row["distribution"]) == (None, "no idea", True, {})
    assert "no answer names a label of the set  (abstains)" in predict.decision_text(found["unread"].decision)


def test_the_option_that_had_the_judge_weigh_answers_is_taken_for_one_release_more_with_a_note(
    images: list[str], main_with: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["predict", "--model", "embedded", "--max-new-tokens", 8, "--json", images[0]]
    assert main_with(*asked, "--reflect") == main_with(*asked, "--samples", 8) == 0
    told = capsys.readouterr()
    first, second = map(json.loads, told.out.splitlines())
    assert first == second
    assert first.keys() >= {"distribution", "abstains"}
    assert told.err.count("note: --reflect will go: give --samples alone") == 1


def test_a_folder_stands_for_all_images_in_it_by_name(scenes: str, tmp_path: Path) -> None:
    paths = [sample.image for sample in load_samples(scenes, split="test")][:3]
    for name, path in zip(("b.png", "a/c.PNG", "a.png"), paths, strict=True):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(path, tmp_path / name)
    (tmp_path / "notes.txt").touch()
    result = run("--json", str(tmp_path))
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [row["image"] for row in rows] == [str(tmp_path / name) for name in ("a/c.PNG", "a.png", "b.png")]


def test_a_folder_without_images_is_one_line_before_a_model_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    refused = CliRunner().invoke(cli.app, ["predict", "--model", "gone", str(tmp_path)])
    assert "no images in this folder" in str(refused.exception)


def test_a_clip_is_labelled_by_its_frames_as_an_imported_one_is(tmp_path: Path) -> None:
    clip_folders(tmp_path / "src", each=1)
    import_data("clips", str(tmp_path / "src"), tmp_path / "data", frames=2)
    samples = [replace(sample, labels=MIKELS8) for sample in load_samples(str(tmp_path / "data"))]
    candidate, settings = load_candidate("embedded"), EvaluationSettings(max_new_tokens=8)
    page = tmp_path / "page.mov"
    page.write_text("<html>")
    given = [str(tmp_path / "src" / sample.clip) for sample in samples] + [str(page)]
    found = list(predict.predict(candidate, given, MIKELS8, settings, frames=2))
    assert [picture for picture, _ in found] == given
    texts = [outcome.prediction.completion for _, outcome in found[:2]]
    assert texts == complete(candidate, samples, settings)
    assert [outcome.prediction.sample.is_video for _, outcome in found[:2]] == [True, True]
    assert prediction_text(found[0][1].prediction).startswith(f"{given[0]}\n  label")
    assert "page.mov cannot be read as a video" in str(found[2][1])


def test_clips_in_a_folder_are_labelled_with_its_images_and_frames_are_idle_without_one(
    tmp_path: Path, scenes: str
) -> None:
    shutil.copyfile(load_samples(scenes, split="test")[0].image, tmp_path / "b.png")
    refused = run("--frames", "2", str(tmp_path))
    assert "--frames does nothing without a video clip" in str(refused.exception)
    write_clip(tmp_path / "a.mp4", moving(1))
    result = run("--json", "--max-new-tokens", "4", "--frames", "2", str(tmp_path))
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [row["image"] for row in rows] == [str(tmp_path / "a.mp4"), str(tmp_path / "b.png")]
    assert all("error" not in row for row in rows)
    told = CliRunner().invoke(cli.app, ["predict", str(tmp_path / "a.mp4")])
    assert "name a model with --model" in str(told.exception)


def test_pictures_from_memory_are_read_as_their_files_are(scenes: str) -> None:
    paths = [sample.image for sample in load_samples(scenes, split="test")][:2]
    settings = EvaluationSettings(max_new_tokens=80)
    broken = Image.open(BytesIO(Path(paths[0]).read_bytes()[:-200]))
    given = [*paths, Path(paths[0]).read_bytes(), Image.open(paths[1]), b"no picture", broken]
    found = list(predict.predict(load_candidate("embedded"), given, MIKELS8, settings))
    assert [picture for picture, _ in found] == given
    texts = [outcome.prediction.completion for _, outcome in found[:4]]
    assert texts[:2] == texts[2:]
    assert texts[0] != texts[1]
    assert all(isinstance(outcome, UserError) for _, outcome in found[4:])
