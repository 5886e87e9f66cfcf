"""VLMEvalKit's own custom class reads our table and its inference writes what we read back, with the same figures."""

import json
from base64 import b64encode
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from PIL import Image
from vlmeval import run as vlmeval_run
from vlmeval.dataset import build_dataset
from vlmeval.inference import infer_data_job

from emor3.cli.main import main
from emor3.data.folders import load_samples
from emor3.evaluation.summary import summarise
from emor3.hosts.exports.catalogue import export_data
from emor3.hosts.harnesses.answers import import_settings, predict, write_evaluation
from emor3.hosts.harnesses.readers import read_run
from emor3.models.checkpoints import load, resolve_checkpoint
from emor3.models.generation import generate
from emor3.runs.predictions import read_evaluation
from emor3.tiny.folders import write_domain
from emor3.tiny.world import DOMAINS
from harness_answers import WRITTEN, write_answered_folder


class Writer:
    """A model that answers from the table of the test by the colour of the picture."""

    is_api = False

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def set_dump_image(self, dump_image: Any) -> None:
        pass

    def generate(self, message: Any, dataset: Any = None) -> str:
        self.asked.append(message)
        (picture,) = [part["value"] for part in message if part["type"] == "image"]
        with Image.open(picture) as image:
            red = image.convert("RGB").getpixel((0, 0))[0]
        return list(WRITTEN.values())[red // 40]


@pytest.mark.parametrize("form", ["tsv", "json"])
@pytest.mark.parametrize("copy", [False, True])
def test_vlmevalkit_answers_our_table_and_the_answers_come_back_with_the_same_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, copy: Any, form: str
) -> None:
    folder = write_answered_folder(tmp_path / "photos")
    export_data("vlmeval", folder, tmp_path / "out", split="test", copy=copy)
    monkeypatch.setenv("LMUData", str(tmp_path / "out"))
    monkeypatch.setenv("PRED_FORMAT", form)
    data = build_dataset("emor3_photos_test")
    assert type(data).__name__ == "CustomVQADataset"
    model = Writer()
    (tmp_path / "work").mkdir()
    infer_data_job(model, str(tmp_path / "work"), "writer", data)
    (path,) = (tmp_path / "work").glob(f"*.{form}")
    samples = load_samples(folder, split="test")
    expected = dict(summarise(folder, [predict(s, [WRITTEN[s.id]], "steps") for s in samples], "steps").figures)
    run = read_run(path)
    write_evaluation(run, folder, import_settings("test", None, "label", None), tmp_path / "evaluation")
    predictions = read_evaluation(tmp_path / "evaluation").predictions[folder]
    assert dict(summarise(folder, predictions, "steps").figures) == expected
    assert run.model == "writer"
    assert [part["type"] for part in model.asked[0]] == ["image", "text"]
    assert "joy, fear, calm" in model.asked[0][1]["value"]
    if copy:
        assert b64encode((tmp_path / "photos/0.png").read_bytes()).decode() in (
            tmp_path / "out/emor3_photos_test.tsv"
        ).read_text(encoding="utf-8")


class Replies(BaseHTTPRequestHandler):
    """The embedded model behind an OpenAI-compatible server, which opens images by their path as vLLM may."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        parts = asked["messages"][0]["content"]
        images = tuple(part["image_url"]["url"] for part in parts if part["type"] == "image_url")
        self.server.shown.extend(images)
        (text,) = (part["text"] for part in parts if part["type"] == "text")
        said = [r"\boxed{joy}"]
        if all(image.startswith("file://") for image in images):
            paths = tuple(image.removeprefix("file://") for image in images)
            said = generate(*self.server.policy, [(paths, text)], max_new_tokens=asked["max_tokens"])
        reply = json.dumps({"choices": [{"message": {"content": said[0]}}]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def served() -> Iterator[Any]:
    """Server of the embedded model; `shown` has every image that it was sent."""
    with HTTPServer(("127.0.0.1", 0), Replies) as running:
        running.policy, running.shown = load(resolve_checkpoint("embedded")), []
        Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


def test_its_command_asks_a_server_and_gives_the_figures_of_emor3_evaluate(
    served: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_domain(tmp_path / "scenes", DOMAINS["scenes8"], seed=0, sizes={"train": 1, "test": 6})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LMUData", "out")
    monkeypatch.setenv("PRED_FORMAT", "tsv")
    commands = (
        "emor3 data export scenes out --for vlmeval",
        f"run.py --data emor3_scenes_test --model served --base-url http://127.0.0.1:{served.server_port}/v1 "
        "--local-media --max-tokens 256 --mode infer --work-dir work",
        "emor3 evaluate --from work/served/served_emor3_scenes_test.tsv --data scenes --output theirs",
        "emor3 evaluate --model embedded --data scenes --output ours",
    )
    for command in commands:
        monkeypatch.setattr("sys.argv", command.split())
        (main if command.startswith("emor3") else vlmeval_run.main)()
    said = [
        [one.completion for one in read_evaluation(tmp_path / name).predictions["scenes"]]
        for name in ("theirs", "ours")
    ]
    assert said[0] == said[1]
    results = (json.loads((tmp_path / name / "results.json").read_text())["data"][0] for name in ("theirs", "ours"))
    theirs, ours = (result["figures"] for result in results)
    assert theirs == {name: ours[name] for name in theirs}  # ours has a judge's figures, too
    assert len(served.shown) == 6


def test_a_server_gets_images_as_jpeg_unless_it_is_told_where_they_are(
    served: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_data("vlmeval", write_answered_folder(tmp_path / "photos"), tmp_path / "out", split="test")
    monkeypatch.setenv("LMUData", str(tmp_path / "out"))
    command = f"run.py --data emor3_photos_test --model served --base-url http://127.0.0.1:{served.server_port}/v1"
    monkeypatch.setattr("sys.argv", [*command.split(), "--limit", "1", "--mode", "infer", "--work-dir", str(tmp_path)])
    vlmeval_run.main()
    (image,) = served.shown
    assert image.startswith("data:image/jpeg;base64,")  # as docs/harnesses.md warns
