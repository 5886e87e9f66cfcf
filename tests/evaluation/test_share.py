"""What is handed to others: a benchmark and predictions as TSV, and a model card that hubs can read."""

import base64
from dataclasses import replace

import pandas as pd
import pytest
import yaml
from PIL import Image

from emor3.errors import UserError
from emor3.evaluation.share import write_shared
from emor3.method.labels import EKMAN6, label_set_from
from emor3.runs.predictions import read_evaluation
from emor3.storage.cells import from_cell
from made_up import prediction, save_evaluation


@pytest.fixture
def shared(tmp_path):
    picture = tmp_path / "a.png"
    Image.new("RGB", (4, 4), "teal").save(picture)
    items = [prediction("joy", "joy", id="a"), prediction("fear", None, id="b")]
    items = [replace(p, sample=replace(p.sample, images=(str(picture),))) for p in items]
    folder = save_evaluation(tmp_path / "e", {"d": items}, model="runs/mine/final")
    return picture, write_shared(read_evaluation(folder), tmp_path / "out")


def test_the_benchmark_is_multiple_choice_with_images_in_base64(shared):
    picture, (data, _, _) = shared
    table = pd.read_csv(data, sep="\t")
    assert list(table.columns) == ["index", "question", *"ABCDEF", "answer", "split", "image"]
    assert [table[letter][0] for letter in "ABCDEF"] == list(EKMAN6.labels)
    assert list(table["answer"]) == ["D", "C"]  # joy is the fourth label, fear the third
    assert base64.b64decode(table["image"][0]) == picture.read_bytes()


def test_an_unparsed_prediction_is_empty_and_no_option(shared):
    _, (_, predictions, _) = shared
    table = pd.read_csv(predictions, sep="\t", keep_default_na=False)
    assert list(table["prediction"]) == ["D", ""]
    assert "image" not in table


def test_hostile_texts_are_harmless_in_the_files_of_other_tools_and_import_as_they_were(tmp_path):
    Image.new("RGB", (4, 4), "teal").save(tmp_path / "a.png")
    hostile = ("=HYPERLINK(A1)", "-joy\u202e", "@fear")
    labels = label_set_from(list(hostile), "hostile")
    items = [prediction(label, label, labels=labels, id=label) for label in hostile]
    items = [replace(p, sample=replace(p.sample, images=(str(tmp_path / "a.png"),), text="+1\u202e")) for p in items]
    folder = save_evaluation(tmp_path / "e", {"=d\nx": items}, model="runs/mine/final")
    data, predictions, card = write_shared(read_evaluation(folder), tmp_path / "out")
    for path in (data, predictions):
        table = pd.read_csv(path, sep="\t", keep_default_na=False)
        assert list(table.loc[0, ["A", "B", "C"]]) == ["'=HYPERLINK(A1)", r"'-joy\u202e", "'@fear"]
        assert [from_cell(cell) for cell in table.loc[0, ["A", "B", "C"]]] == list(hostile)
        assert from_cell(table["hint"][0]) == "+1\u202e"
    assert "| =d x | accuracy |" in card.read_text()


def test_the_model_card_holds_metadata_and_a_table_with_intervals(shared):
    _, (_, _, card) = shared
    _, metadata, body = card.read_text().split("---\n", 2)
    index = yaml.safe_load(metadata)["model-index"][0]
    accuracy = next(m for result in index["results"] for m in result["metrics"] if m["type"] == "accuracy")
    assert (index["name"], accuracy["value"]) == ("final", 50.0)
    assert "| d | accuracy | 50.0 [9.5, 90.5] | 2 |" in body  # Wilson for 1 of 2
    assert "`judge`" in body


def test_a_set_of_more_labels_than_letters_is_refused(tmp_path):
    labels = label_set_from([f"label {place}" for place in range(27)], "many")
    folder = save_evaluation(tmp_path / "e", {"d": [prediction("label 0", "label 1", labels=labels)]})
    with pytest.raises(UserError, match="A to Z"):
        write_shared(read_evaluation(folder), tmp_path / "out")


def test_a_picture_that_is_gone_is_named(tmp_path):
    folder = save_evaluation(tmp_path / "e", {"d": [prediction("joy", "joy", id="gone")]})
    with pytest.raises(UserError, match="gone"):
        write_shared(read_evaluation(folder), tmp_path / "out")
