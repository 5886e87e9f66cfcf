"""The demo without its server: what is asked of the models, what the page says of it, and the files of a Space."""

import asyncio
import json
import os
import runpy
import socket
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from PIL import Image

from clips import moving, write_clip
from emor3.demo.examples import draw_examples
from emor3.demo.looking import MOST_TYPED, DemoSettings, Look, another, label_choices, look_at, typed_labels
from emor3.demo.rendering import fault_html, looks_html, looks_rows, ranked
from emor3.demo.serving import Guarded, listening, uploads
from emor3.demo.space import export_space, requirements
from emor3.errors import UserError
from emor3.evaluation.candidate import Candidate
from emor3.evaluation.predict import Decision, Outcome
from emor3.method.labels import BUILT_IN, MIKELS8, label_set_from
from emor3.models.checkpoints import load
from emor3.models.engines.local import LocalEngine
from emor3.runs.recipe import build_recipe
from made_up import SeesDogs, prediction
from steps import writes

SETTINGS = DemoSettings()
HOSTILE = "<script>window.pwned=1</script><img src=x onerror=window.pwned=1>{{ 7 * 7 }}${7*7}\u202e"


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return draw_examples(tmp_path_factory.mktemp("examples"))


def a_look(model: str = "m", answer: str | None = "joy", decision: Decision | None = None, **made: Any) -> Look:
    """What a made-up model says, sampled completions included if there is a decision."""
    outcome = Outcome(prediction("joy", answer, **made))
    sampled = None if decision is None else replace(outcome, decision=decision)
    return Look(model, "j", outcome, outcome.prediction.reflection.consistency, sampled)


def test_the_drawings_at_hand_are_always_the_same(examples: list[Path], tmp_path: Path) -> None:
    again = draw_examples(tmp_path)
    assert [path.name for path in again] == [path.name for path in examples]
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in examples]
    assert len({path.read_bytes() for path in again}) == len(again) == 8


def test_the_other_picture_is_a_drawing_that_is_not_the_same(examples: list[Path]) -> None:
    assert another(str(examples[0]), examples) == str(examples[1])
    assert another(str(examples[1]), examples) == str(examples[0])


def test_labels_that_are_typed_count_whatever_the_list_says(
    monkeypatch: pytest.MonkeyPatch, examples: list[Path]
) -> None:
    from emor3.demo import page

    asked = []
    monkeypatch.setattr(page, "look_at", lambda picture, other, models, labels, *_: asked.append(labels.name) or [])
    look = page.looking([], SETTINGS, {"mikels8": MIKELS8}, examples)
    for chosen, typed in (("mikels8", "calm, uneasy"), ("mikels8", " "), ("typed", "calm, uneasy")):
        assert list(look(str(examples[0]), chosen, typed, 2)) == []
    assert asked == ["typed", "mikels8", "typed"]
    ((told, _, _),) = look(str(examples[0]), "mikels8", "calm", 2)
    assert "needs two labels or more" in told


def test_a_clip_counts_in_place_of_the_image_and_is_seen_as_its_frames(
    monkeypatch: pytest.MonkeyPatch, examples: list[Path], tmp_path: Path
) -> None:
    from emor3.demo import page

    def look_at_clip(picture: Any, other: str, *_: Any) -> list[list[Look]]:
        assert [Image.open(path).size for path in picture.images] == [(64, 48)] * 4
        assert other == str(examples[0])
        return [[a_look()]]

    monkeypatch.setattr(page, "look_at", look_at_clip)
    look = page.looking([], SETTINGS, {"mikels8": MIKELS8}, examples)
    clip = write_clip(tmp_path / "clip.mp4", moving(1))
    for picture in (None, str(examples[0])):
        ((html, _, _),) = look(picture, "mikels8", "", 2, str(clip))
        assert [f'alt="the frame {number}"' in html for number in range(1, 6)] == [True] * 4 + [False]
        assert "Does step 1 describe the video?" in html
    clip.write_text("<html>")
    ((told, _, _),) = look(None, "mikels8", "", 2, str(clip))
    assert "The clip cannot be read as a video" in told
    assert str(tmp_path) not in told


def test_typed_labels_are_a_label_set_with_blanks_left_out() -> None:
    assert typed_labels(" calm, ,uneasy ,").labels == ("calm", "uneasy")


@pytest.mark.parametrize(
    ("typed", "fault"),
    [
        ("", "two labels or more"),
        (" , ", "two labels or more"),
        ("calm", "two labels or more"),
        ("recipe.yaml", "two labels or more"),  # a file of the server is never read
        ("calm, Calm", "are the same label"),
        ("calm, <|image_pad|>", "for a token of their own"),
        ("a," * MOST_TYPED, "type fewer"),
    ],
)
def test_labels_that_are_none_are_refused_in_a_sentence(typed: str, fault: str) -> None:
    with pytest.raises(UserError, match=fault):
        typed_labels(typed)


class Trained:
    """A candidate as far as its label set goes."""

    def __init__(self, data: str | None) -> None:
        values = {"output_dir": "r", "model": {"path": "m"}, "data": {"train": data}}
        self.recipe = None if data is None else build_recipe(values, (), "r")


def test_label_sets_begin_with_the_one_the_model_was_trained_on(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    rows = [{"file_name": f"{label}.png", "label": label} for label in ("calm", "uneasy")]
    for row in rows:
        Image.new("RGB", (64, 64)).save(tmp_path / row["file_name"])
    (tmp_path / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    choices = label_choices(Trained(str(tmp_path)))
    assert next(iter(choices.values())).labels == ("calm", "uneasy")
    assert set(choices.values()) >= set(BUILT_IN)
    assert list(label_choices(Trained(None))) == [labels.name for labels in BUILT_IN]
    assert capsys.readouterr().err == ""
    assert list(label_choices(Trained("gone"))) == [labels.name for labels in BUILT_IN]
    assert capsys.readouterr().err.startswith("the page begins with mikels8: cannot tell the label set")


def test_each_model_answers_at_once_and_by_the_majority_of_samples_afterwards(
    monkeypatch: pytest.MonkeyPatch, examples: list[Path], random_checkpoint: str
) -> None:
    model, processor = load(random_checkpoint)
    dog = "<step1>dog</step1><step2>a</step2><step3>b</step3>\\boxed{awe}"
    cat = "<step1>cat</step1><step2>a</step2><step3>b</step3>\\boxed{fear}"
    drawn = iter([cat, dog, cat, dog, dog])  # the answer of each model, then three samples of the first
    writes(monkeypatch, processor.tokenizer, lambda count: list(islice(drawn, count)))
    candidates = [Candidate(name, LocalEngine(model, processor), "j", SeesDogs(0.9, awe=1.0), None) for name in "ab"]
    told: list[tuple[str, int]] = []
    looks = look_at(str(examples[0]), str(examples[1]), candidates, MIKELS8, SETTINGS, 3, lambda *so: told.append(so))
    first, both, voted = ([*next(looks)] for _ in range(3))
    assert [(seen.model, seen.answer.prediction.predicted, seen.sampled) for seen in both] == [
        ("a", "fear", None),
        ("b", "awe", None),
    ]
    assert first == both[:1]
    assert told == [("a", 3)]  # draws of one prompt share a batch
    sampled = voted[0].sampled
    assert sampled is not None
    assert sampled.decision == Decision(
        {**dict.fromkeys(MIKELS8.labels, 0.0), "awe": 2 / 3, "fear": 1 / 3}, "awe", abstains=False
    )
    assert sampled.prediction.thought.trigger == "dog"
    assert sampled.prediction.reflection.consistency is not None  # the judge is asked about the one that is shown
    # Each model's own description is put to the judge again, with the other picture.
    asked = [seen.elsewhere.question for seen in both]
    assert [question.images for question in asked] == [(str(examples[1]),)] * 2
    assert ["cat" in asked[0].text, "dog" in asked[1].text] == [True, True]


def test_a_picture_that_cannot_be_read_is_a_sentence_without_the_server_s_path(
    tmp_path: Path, examples: list[Path], random_checkpoint: str
) -> None:
    (tmp_path / "bad.png").write_bytes(b"no picture")
    model, processor = load(random_checkpoint)
    candidates = [Candidate("m", LocalEngine(model, processor), "j", SeesDogs(0.9), None)]
    with pytest.raises(UserError, match="the image cannot be read") as refused:
        next(look_at(str(tmp_path / "bad.png"), "", candidates, MIKELS8, SETTINGS, 1, lambda *_: None))
    assert str(tmp_path) not in str(refused.value)


def test_texts_of_models_judges_and_people_are_escaped_and_controls_shown(examples: list[Path]) -> None:
    labels = label_set_from([HOSTILE.replace("<|", ""), "joy"], "hostile")
    label = labels.labels[0]
    decision = Decision({label: 1.0, "joy": 0.0}, label, abstains=False)
    seen = a_look(HOSTILE, label, decision, judge=HOSTILE, labels=labels)
    broken = a_look(HOSTILE, None, Decision({}, None, abstains=True), judge=HOSTILE)
    page = looks_html([seen, broken], str(examples[0]), str(examples[1]), SETTINGS) + fault_html(f"no {HOSTILE}")
    assert "<script" not in page
    assert "<img src=x" not in page
    assert "\u202e" not in page
    assert page.count("&lt;script&gt;window.pwned=1&lt;/script&gt;&lt;img src=x") >= 6
    assert "\\u202e" in page


@pytest.mark.parametrize(
    ("decision", "said"),
    [
        (None, "sampling …"),
        (Decision({"joy": 0.8, "fear": 0.2}, "joy", abstains=False), "<b>joy</b> with a share of 0.80"),
        (Decision({"joy": 0.4, "fear": 0.3}, "joy", abstains=True), "joy leads with a share of 0.40, below 0.50"),
        (Decision({}, None, abstains=True), "no sampled completion names a label of the set"),
    ],
)
def test_the_page_says_what_sampled_completions_come_to(
    decision: Decision | None, said: str, examples: list[Path]
) -> None:
    page = looks_html([a_look(decision=decision)], str(examples[0]), str(examples[1]), SETTINGS)
    assert said in page
    assert ("<b>Abstains:</b>" in page) == (decision is not None and decision.abstains)


def test_labels_without_a_share_are_left_out_and_the_likeliest_come_first() -> None:
    decision = Decision({"fear": 0.25, "joy": 0.75, "awe": 0.0}, "joy", abstains=False)
    assert ranked(decision) == [("joy", 0.75), ("fear", 0.25)]


def test_the_rows_are_those_of_predict_without_paths_of_the_server() -> None:
    (row,) = looks_rows([a_look(decision=Decision({"joy": 1.0}, "joy", abstains=False))])
    assert (row["model"], row["judge"], row["answer"]["label"]) == ("m", "j", "joy")
    assert row["sampled"]["distribution"] == {"joy": 1.0}
    assert row["elsewhere"]["verdict"] == "supported"
    assert "image" not in row["answer"]


def test_uploads_lie_in_a_folder_that_is_gone_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", "theirs")
    with uploads() as folder:
        (folder / "upload.png").touch()
        assert os.environ["GRADIO_TEMP_DIR"] == str(folder)
    assert not folder.exists()
    assert os.environ["GRADIO_TEMP_DIR"] == "theirs"


@pytest.mark.enable_socket
@pytest.mark.allow_hosts(["127.0.0.1"])
def test_a_port_that_is_taken_is_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"cannot serve at 127.0.0.1, port {port}"), listening("127.0.0.1", port):
            pass


@pytest.mark.parametrize(
    ("path", "origin", "local", "refused"),
    [
        ("/gradio_api/file=https://example.com", None, False, True),
        ("/gradio_api/proxy=HTTP://example.com", None, False, True),
        ("/gradio_api/file=/tmp/a.png", None, True, False),
        ("/gradio_api/upload", "http://127.0.0.1:7860", True, False),
        ("/gradio_api/upload", "https://example.com", True, True),
        ("/gradio_api/upload", "null", True, True),
        ("/gradio_api/upload", "https://example.com", False, False),  # it may stand behind a proxy
    ],
)
def test_a_request_of_another_site_or_to_fetch_something_is_refused(
    path: str, origin: str | None, local: bool, refused: bool
) -> None:
    through, sent = [], []

    async def page(*_: Any) -> None:
        through.append(path)

    async def send(message: dict[str, Any]) -> None:
        sent.append(message.get("status"))

    headers = [(b"host", b"127.0.0.1:7860")] + ([] if origin is None else [(b"origin", origin.encode())])
    asyncio.run(Guarded(page, local)({"type": "http", "path": path, "headers": headers}, None, send))
    assert (through, sent) == ([], [403, None]) if refused else ([path], [])


@pytest.mark.parametrize("arguments", [(), ("--export-space", "space")])
def test_without_gradio_one_line_names_what_to_install(
    main_with: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    arguments: tuple[str, ...],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert main_with("demo", *arguments) == 2
    assert capsys.readouterr().err.splitlines()[-1] == "error: emor3 demo needs Gradio: pip install 'emor3[demo]'"
    assert not (tmp_path / "space").exists()


def test_the_files_of_a_space_are_written_with_the_package_and_over_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "space"
    export_space(DemoSettings(compare="org/model", abstain_below=0.4), folder)
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "app.py", "emor3", "requirements.txt"]
    header = yaml.safe_load((folder / "README.md").read_text(encoding="utf-8").split("---")[1])
    assert (header["sdk"], header["app_file"], header["models"]) == ("gradio", "app.py", ["org/model"])
    assert header["sdk_version"][0] == "6"
    assert (folder / "emor3/tiny/checkpoint/model.safetensors").is_file()
    assert not list(folder.rglob("__pycache__"))
    written = runpy.run_path(str(folder / "app.py"))["SETTINGS"]
    assert DemoSettings(**written) == DemoSettings(compare="org/model", abstain_below=0.4)
    with pytest.raises(UserError, match="exists and is not empty"):
        export_space(SETTINGS, folder)


def test_a_space_brings_gradio_itself_and_needs_all_else_that_the_package_needs() -> None:
    names = {Requirement(line).name for line in requirements()}
    assert {"torch", "transformers", "pillow"} <= names
    assert not {"gradio", "pytest"} & names


def test_a_model_of_this_machine_cannot_go_to_a_space(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="push it to the hub"):
        export_space(DemoSettings(judge=str(tmp_path)), tmp_path / "space")
    assert not (tmp_path / "space").exists()
