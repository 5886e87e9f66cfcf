"""VLMEvalKit's own custom class reads our table and its inference writes what we read back, with the same figures."""

from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from vlmeval.dataset import build_dataset
from vlmeval.inference import infer_data_job

from emor3.data.folders import load_samples
from emor3.evaluation.summary import summarise
from emor3.hosts.exports.catalogue import export_data
from emor3.hosts.harnesses.answers import import_settings, predict, write_evaluation
from emor3.hosts.harnesses.readers import read_run
from emor3.runs.predictions import read_evaluation
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
