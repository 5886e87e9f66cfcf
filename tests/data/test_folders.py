"""Manifests become samples, and each kind of bad row is refused with its place in the file."""

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from torch.utils.data import DataLoader

from emor3.data import folders as data
from emor3.data.folders import label_set_for, load_samples
from emor3.errors import UserError
from emor3.method import labels as taxonomy
from emor3.method.thinking import build_prompt
from emor3.training.dataset import prompt_dataset


def write_folder(folder: Path, rows: list[dict[str, Any]]) -> str:
    """A data folder with one small image for every row that names one."""
    for row in rows:
        image = folder / row.get("file_name", "images/unnamed.png")
        image.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), "teal").save(image)
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(folder)


def row(name: str, label: Any = "joy", **fields: Any) -> dict[str, Any]:
    return {"file_name": f"images/{name}.png", "label": label, **fields}


def test_a_manifest_becomes_samples_in_its_order(tmp_path: Path) -> None:
    folder = write_folder(
        tmp_path,
        [
            row("b", "Sadness ", split="test", group=7, valence=0.25, distribution={"joy": 1, "sadness": 3}),
            row("a", "joy", split="train"),
        ],
    )
    first, second = load_samples(folder, labels="joy,sadness")
    assert (first.id, first.label, first.split, first.group) == ("images/b.png", "sadness", "test", "7")
    assert first.image == str(tmp_path / "images/b.png")
    assert (first.valence, first.arousal) == (0.25, None)
    assert first.distribution == {"joy": 0.25, "sadness": 0.75}  # 1 and 3 of 4 votes
    assert second.label == "joy"


def test_a_row_has_one_image_several_or_a_text(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, [row("a"), row("b", "fear")])
    rows = [
        row("a", text="A walk."),
        {"file_names": ["images/b.png", "images/a.png"], "label": "fear"},
        {"id": 3, "text": "Fog.", "label": "joy"},
    ]
    (tmp_path / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    one, two, none = load_samples(folder, labels="joy,fear")
    a, b = str(tmp_path / "images/a.png"), str(tmp_path / "images/b.png")
    assert (one.id, one.images, one.text) == ("images/a.png", (a,), "A walk.")
    assert (two.id, two.images, two.text) == ("images/b.png", (b, a), None)
    assert (none.id, none.images, none.text) == ("3", (), "Fog.")


def test_a_split_is_chosen_and_an_empty_one_names_those_there_are(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, [row("a", "joy", split="train"), row("b", "fear", split="test"), row("c", "joy")])
    assert [sample.id for sample in load_samples(folder, split="train")] == ["images/a.png", "images/c.png"]
    with pytest.raises(UserError, match=r"no rows in split 'val'; it has test 1, train 2"):
        load_samples(folder, split="val")


def test_the_label_set_of_the_data_spans_all_splits(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, [row("a", "cosy", split="train"), row("b", "bleak", split="test")])
    (sample,) = load_samples(folder, split="test")
    assert sample.labels.labels == ("bleak", "cosy")


def test_labels_that_viewers_only_voted_for_belong_to_the_set_of_the_data(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, [row("a", "joy", distribution={"joy": 2, "fear": 1, "awe": 0})])
    (sample,) = load_samples(folder)
    assert sample.labels.labels == ("awe", "fear", "joy")
    assert sample.distribution == {"joy": 2 / 3, "fear": 1 / 3, "awe": 0}


def test_labels_that_equal_a_built_in_set_are_that_set(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, [row("a", "Positive"), row("b", "neutral"), row("c", "negative")])
    samples = load_samples(folder)
    assert samples[0].labels is taxonomy.SENTIMENT3
    assert samples[0].label == "positive"


def test_another_field_can_hold_the_label_and_then_the_votes_do_not_apply(tmp_path: Path) -> None:
    fields = {"distribution": {"joy": 1.0}}
    folder = write_folder(tmp_path, [row("a", mood="warm", **fields), row("b", mood="cold", **fields)])
    first, _ = load_samples(folder, label_field="mood")
    assert (first.label, first.distribution) == ("warm", None)


def test_a_label_set_comes_from_a_name_a_list_or_a_file(tmp_path: Path) -> None:
    path = tmp_path / "moods.yaml"
    path.write_text("labels: [cosy, bleak]\npolarity: {cosy: 1, bleak: -1}\n", encoding="utf-8")
    from_file = label_set_for(str(path), [])
    assert (from_file.name, from_file.labels, from_file.polarity["bleak"]) == ("moods", ("cosy", "bleak"), -1)
    assert label_set_for("ekman6", []) is taxonomy.EKMAN6
    assert label_set_for("cosy, bleak", []).labels == ("cosy", "bleak")


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (row("x", "bored"), r"line 2: label 'bored' is not in the set custom \(joy, fear\)"),
        (row("x", 3), r"line 2: 'label' must be a label in words, found 3"),
        (row("x", "joy") | {"file_name": "../x.png"}, r"line 2: 'file_name' leads out of the folder"),
        (row("x", "joy") | {"file_name": "/etc/x.png"}, r"line 2: 'file_name' leads out of the folder"),
        ({"label": "joy"}, r"line 2: neither an image \('file_name', 'file_names'\) nor a 'text'"),
        ({"label": "joy", "file_name": None}, r"line 2: 'file_name' must be a path"),
        (row("x", valence="high"), r"line 2: 'valence' must be a number, found 'high'"),
        (row("x", valence=10**400), r"line 2: 'valence' must be a number"),
        (row("x", "\u200b"), r"line 2: 'label' must be a label in words"),
        (row("x", distribution={" ": 1}), r"line 2: 'distribution' has votes for a blank label"),
        (row("x", distribution={"joy": 10**400}), r"line 2: 'distribution' must map labels"),
        (row("x", distribution={"joy": -1}), r"line 2: 'distribution' must map labels"),
        (row("x", distribution={"bored": 1}), r"line 2: 'distribution' must hold votes for labels of the set"),
        (row("ok"), r"line 2: the id 'images/ok.png' is used by an earlier row"),
        ({"label": "joy", "text": "Fog."}, r"line 2: a row without an image needs an 'id'"),
        ({"label": "joy", "file_names": []}, r"line 2: neither an image \('file_name', 'file_names'\) nor a 'text'"),
        ({"label": "joy", "file_names": "x.png"}, r"line 2: 'file_names' must be a list of paths, found 'x.png'"),
        ({"label": "joy", "file_names": ["images/x.png", 3]}, r"line 2: 'file_names' must be a path .*, found 3"),
        ({"label": "joy", "file_names": ["images/x.png", "../x.png"]}, r"line 2: 'file_names' leads out of the folder"),
        ({"label": "joy", "file_names": ["images/gone.png"]}, r"line 2: image 'images/gone.png' does not exist"),
        (row("x", file_names=["images/ok.png"]), r"line 2: give 'file_name' for one image or 'file_names' for several"),
        (row("x", text=" "), r"line 2: 'text' is blank"),
        (row("x", text=["Fog."]), r"line 2: 'text' must be a text"),
    ],
)
def test_a_bad_row_is_refused_with_its_line(tmp_path: Path, bad: Any, message: str) -> None:
    (tmp_path.parent / "x.png").touch()
    good = row("ok", "joy")
    write_folder(tmp_path, [good, row("x")])
    (tmp_path / "metadata.jsonl").write_text(f"{json.dumps(good)}\n{json.dumps(bad)}\n", encoding="utf-8")
    with pytest.raises(UserError, match=message):
        load_samples(str(tmp_path), labels=["joy", "fear"])


def test_a_missing_image_is_refused_when_data_is_loaded(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, [row("a"), row("b", "fear")])
    (tmp_path / "images/b.png").unlink()
    with pytest.raises(UserError, match=r"line 2: image 'images/b.png' does not exist"):
        load_samples(folder)


@pytest.mark.parametrize("line", [b"{", b"[1, 2]", b"\xff\xfe\x00", b"[" * 100_000])
def test_a_line_that_is_not_a_json_object_is_refused_with_its_place(tmp_path: Path, line: Any) -> None:
    write_folder(tmp_path, [row("a")])
    (tmp_path / "metadata.jsonl").write_bytes(b"\n" + line + b"\n")
    with pytest.raises(UserError, match=r"metadata.jsonl line 2: "):
        load_samples(str(tmp_path))


def test_a_folder_that_is_not_a_data_set_is_refused_with_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        load_samples(str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match=r"no metadata.jsonl in this folder"):
        load_samples(str(tmp_path))


def test_attributes_are_kept_and_those_not_given_are_unknown(tmp_path: Path) -> None:
    known = {"scene": "beach", "brightness": 0.6, "object": ["Dog", "Ball"]}
    folder = write_folder(tmp_path, [row("a", attributes=known), row("b", "fear")])
    first, second = load_samples(folder)
    assert first.attributes == {"scene": "beach", "brightness": 0.6, "object": ("Dog", "Ball")}
    assert second.attributes == {}


@pytest.mark.parametrize("attributes", [["beach"], {"scene": True}, {"object": [1, 2]}, {"scene": {"beach": 1}}])
def test_attributes_in_another_form_are_refused(tmp_path: Path, attributes: Any) -> None:
    folder = write_folder(tmp_path, [row("a"), row("b", "fear", attributes=attributes)])
    with pytest.raises(UserError, match=r"line 2: .*attribute.* must"):
        load_samples(folder)


def test_attributes_never_reach_the_prompt(tmp_path: Path) -> None:
    folder = write_folder(
        tmp_path, [row("a", attributes={"scene": "lighthouse"}, theme="lighthouse"), row("b", "fear")]
    )
    sample = load_samples(folder)[0]
    assert "lighthouse" not in build_prompt(sample.labels, "steps")


def test_a_folder_can_name_the_label_set_of_its_rows(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, [row("a", "fear", distribution={"fear": 1, "awe": 1})])
    (tmp_path / "labels.yaml").write_text("mikels8\n", encoding="utf-8")
    assert load_samples(folder)[0].labels == taxonomy.MIKELS8
    assert load_samples(folder, labels="fear,awe")[0].labels.labels == ("fear", "awe")  # asked for, so it comes first


@pytest.fixture
def long_texts(tmp_path: Path) -> str:
    """500 rows of 1,000 characters each, of two labels."""
    rows = [
        {"id": str(place), "text": f"{place} fog " * 100, "label": ("joy", "fear")[place % 2]} for place in range(500)
    ]
    return write_folder(tmp_path, rows)


@pytest.mark.slow
def test_what_is_kept_of_a_row_does_not_grow_with_what_it_holds(long_texts: str) -> None:
    samples = load_samples(long_texts)
    assert len(pickle.dumps(samples)) < 50 * len(samples)  # 32 bytes, and what is kept of the set
    dataset = prompt_dataset(samples, "steps", range(500))
    assert len(pickle.dumps(dataset)) < 70 * len(samples)  # 8 more for the order
    assert dataset[499]["prompt"][0]["content"].startswith("Text: 499 fog")


def test_other_processes_read_the_same_rows(long_texts: str) -> None:
    dataset = prompt_dataset(load_samples(long_texts), "steps", [3, 499, 3, 0])
    loaded = [row for batch in DataLoader(dataset, batch_size=2, num_workers=2, collate_fn=list) for row in batch]
    assert loaded == [dataset[place] for place in range(4)]
    assert [row["sample"].id for row in loaded] == ["3", "499", "3", "0"]


def test_a_row_that_is_no_longer_what_was_loaded_is_refused_and_rows_added_later_do_no_harm(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, [row("a"), row("b", "fear")])
    samples, lines = load_samples(folder), (tmp_path / "metadata.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "metadata.jsonl").write_text("".join([*lines, "{}\n"]))
    assert [sample.label for sample in samples] == ["joy", "fear"]
    (tmp_path / "metadata.jsonl").write_text("".join([lines[0].replace("joy", "awe"), lines[1]]))
    assert samples[1].label == "fear"
    with pytest.raises(UserError, match=r"metadata.jsonl has changed since it was loaded: start again"):
        samples[0]
    (tmp_path / "metadata.jsonl").unlink()
    with pytest.raises(UserError, match=r"metadata.jsonl cannot be read any more"):
        samples[1]


def test_an_id_is_repeated_only_where_it_is_equal_whatever_its_hash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data, "hash", lambda name: 7, raising=False)
    folder = write_folder(tmp_path, [row("a"), row("b", "fear"), row("c")])
    assert len(load_samples(folder)) == 3
    folder = write_folder(tmp_path, [row("a"), row("b", "fear"), row("c"), row("b"), row("a")])
    with pytest.raises(UserError, match=r"line 4: the id 'images/b.png' is used by an earlier row"):
        load_samples(folder)
