"""CSV, TSV, JSONL, Parquet and hub data sets become samples; what a row lacks drops that row by name, and no other."""

import base64
import io
import json

import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Sequence, Value
from datasets import Image as ImageFeature
from PIL import Image

import layouts
from emor3.data.folders import load_samples
from emor3.data.importers.importing import import_data, import_lines
from emor3.data.importers.tables import unwrap
from emor3.errors import UserError
from emor3.storage.images import open_image


def bring(tmp_path, name, source, **options):
    imported = import_data(name, str(source), tmp_path / "out", **options)
    return load_samples(str(tmp_path / "out")), imported


def reasons(imported):
    return [entry["reason"] for entry in imported.dropped]


def png(colour):
    file = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(file, "PNG")
    return file.getvalue()


def hub_rows(count=4, **more):
    """Rows of an R1-style data set: the problem is a prompt, the coarse column contradicts the answer."""
    answers = ["joy", "sadness"]
    return [
        {
            "images": [{"bytes": png((index, 0, 0)), "path": f"secret_title_{index}.png"}],
            "problem": "<image>What does one feel?",
            "answer": answers[index % 2],
            "course_grained": "negative",
            "intensity": 3,
            **more,
        }
        for index in range(count)
    ]


HUB = Features(
    {
        "images": Sequence(ImageFeature()),
        "problem": Value("string"),
        "answer": Value("string"),
        "course_grained": Value("string"),
        "intensity": Value("int64"),
    }
)


# --- CSV, TSV and JSONL


@pytest.mark.parametrize(("suffix", "separator"), [(".csv", ","), (".tsv", "\t")])
def test_a_table_is_read_with_its_usual_column_names(tmp_path, suffix, separator):
    for name in ("a", "b"):
        layouts.image(tmp_path / f"src/pictures/{name}.jpg")
    rows = [
        ("image_path", "Emotion", "split", "valence", "theme"),
        ("pictures/a.jpg", "calm", "training", "0.7", "beach"),
        ("pictures/b.jpg", "tense", "Validation", "", "storm"),
    ]
    table = tmp_path / f"src/labels{suffix}"
    layouts.text(table, *(separator.join(row) for row in rows))
    samples, _ = bring(tmp_path, "table", table)
    assert [(s.label, s.split, s.valence) for s in samples] == [("calm", "train", 0.7), ("tense", "val", None)]
    assert "beach" not in (tmp_path / "out/metadata.jsonl").read_text()


def test_jsonl_keeps_votes_groups_ids_and_attributes(tmp_path):
    layouts.image(tmp_path / "src/a.jpg")
    layouts.image(tmp_path / "src/b.jpg")
    first = {"image": "a.jpg", "label": "calm", "id": 7, "group": "g", "distribution": {"calm": 3, "tense": 1}}
    second = {"image": "b.jpg", "label": "tense", "attributes": {"scene": "street"}}
    layouts.text(tmp_path / "src/rows.jsonl", json.dumps(first), "", json.dumps(second))
    samples, _ = bring(tmp_path, "table", tmp_path / "src/rows.jsonl", test_share=0)
    assert (samples[0].id, samples[0].group, samples[0].distribution) == ("7", "g", {"calm": 0.75, "tense": 0.25})
    assert samples[1].attributes == {"scene": "street"}


def test_columns_can_be_named(tmp_path):
    layouts.image(tmp_path / "src/a.jpg")
    layouts.image(tmp_path / "src/b.jpg")
    layouts.text(tmp_path / "src/t.csv", "photo,mood,label", "a.jpg,calm,x", "b.jpg,tense,x")
    columns = {"image": "photo", "label": "mood"}
    samples, _ = bring(tmp_path, "table", tmp_path / "src/t.csv", columns=columns, test_share=0)
    assert [sample.label for sample in samples] == ["calm", "tense"]


def test_a_column_that_is_not_there_is_answered_with_those_that_are(tmp_path):
    layouts.text(tmp_path / "src/t.csv", "photo,mood", "a.jpg,calm")
    table = tmp_path / "src/t.csv"
    with pytest.raises(UserError, match=r"found the columns photo, mood, none for the image: give --column image=NAME"):
        bring(tmp_path, "table", table)
    with pytest.raises(UserError, match=r"--column image=picture: the table has the columns photo, mood"):
        bring(tmp_path, "table", table, columns={"image": "picture"})
    with pytest.raises(UserError, match=r"--column colour=…: there are the fields image, label"):
        bring(tmp_path, "table", table, columns={"colour": "photo"})


def test_bad_rows_of_a_table_are_dropped_with_their_reason(tmp_path):
    layouts.image(tmp_path / "src/a.jpg")
    layouts.text(
        tmp_path / "src/t.csv",
        "image,label,valence",
        "a.jpg,calm,",
        "a.jpg,calm,",
        ",calm,",
        "a.jpg,,",
        "a.jpg,calm,high",
        "../a.jpg,calm,",
        "nowhere.jpg,calm,",
    )
    imported = import_data("table", str(tmp_path / "src/t.csv"), tmp_path / "out")
    assert reasons(imported) == [
        "it has no image",
        "its label is None, not a word",
        "its valence is 'high', not a number",
        "its image lies outside the folder of the set",
        "there is no such image file",
        "'images/a.jpg' is listed a second time",
    ]


def test_groups_stay_whole_when_a_test_split_is_held_out(tmp_path):
    rows = ["image,label,group"]
    for number in range(20):
        layouts.image(tmp_path / f"src/{number}.jpg")
        rows.append(f"{number}.jpg,{'calm' if number < 10 else 'tense'},g{number // 2}")
    layouts.text(tmp_path / "src/t.csv", *rows)
    samples, _ = bring(tmp_path, "table", tmp_path / "src/t.csv", test_share=0.4)
    splits = {}
    for sample in samples:
        splits.setdefault(sample.group, set()).add(sample.split)
    assert all(len(found) == 1 for found in splits.values())
    assert sum(found == {"test"} for found in splits.values()) == 4  # 0.4 of 5 groups of each label


def test_a_file_that_is_no_table_is_told_which_ones_are(tmp_path):
    layouts.text(tmp_path / "src/t.xlsx", "x")
    with pytest.raises(UserError, match=r"found t.xlsx, which is no .csv, .tsv, .jsonl or .parquet file"):
        bring(tmp_path, "table", tmp_path / "src/t.xlsx")


# --- what spreadsheets, models and raters write


@pytest.mark.parametrize("separator", [";", "\t", "|", ","])
def test_a_csv_is_read_by_the_separator_of_its_header_with_decimal_commas(tmp_path, separator):
    lines = ["\ufeffimage;label;valence", "photo 1.jpg;Joy ;0,25", 'photo 2.jpg;"sad, blue";']
    lines = [line.replace("0,25", '"0,25"').replace(";", separator) for line in lines]
    layouts.text(tmp_path / "src/rows.csv", *lines)
    for number in (1, 2):
        layouts.image(tmp_path / f"src/photo {number}.jpg")
    samples, _ = bring(tmp_path, "table", tmp_path / "src/rows.csv", test_share=0)
    assert [(sample.label, sample.valence) for sample in samples] == [("Joy", 0.25), ("sad, blue", None)]


@pytest.mark.parametrize(
    "written",
    [
        "<answer>calm</answer>",
        "<answer> calm </answer>",
        "<think>It is <answer>tense</answer>?</think>\n<answer>calm</answer>",
        "<think>waves</think> calm",
        "**calm**",
        "**`calm`**",
        r"\boxed{calm}",
        r"<answer>\boxed{ calm }</answer>",
    ],
)
def test_answers_of_models_are_unwrapped(written):
    assert unwrap(written) == "calm"


@pytest.mark.parametrize("written", ["<think>calm", "<answer></answer>", "  "])
def test_an_answer_without_a_label_is_refused(written):
    with pytest.raises(ValueError, match="its label"):
        unwrap(written)


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_numbers_are_labels_by_their_names_alone_in_every_format(tmp_path, suffix):
    rows = [{"image": f"{number}.jpg", "label": label} for number, label in enumerate((0, 1, -1, 7))]
    for row in rows:
        layouts.image(tmp_path / "src" / row["image"])
    {
        "csv": lambda path: layouts.text(path, "image,label", *(f"{row['image']},{row['label']}" for row in rows)),
        "jsonl": lambda path: layouts.text(path, *map(json.dumps, rows)),
        "parquet": lambda path: Dataset.from_list(rows).to_parquet(path),
    }[suffix](tmp_path / f"src/rows.{suffix}")
    with pytest.raises(UserError, match=r"its label is the number 0, which has no name: give --label-names"):
        bring(tmp_path, "table", tmp_path / f"src/rows.{suffix}")
    names = {0: "calm", 1: "tense"}
    _, imported = bring(tmp_path, "table", tmp_path / f"src/rows.{suffix}", label_names=names, test_share=0)
    assert imported.rows == {"train": {"calm": 1, "tense": 1}}
    assert [reason.split(",")[0] for reason in reasons(imported)] == [
        "its label is -1",
        "its label is the number 7",
    ]


def test_an_index_of_no_class_is_no_label_where_the_file_names_its_classes(tmp_path):
    (tmp_path / "src").mkdir()
    features = Features({"image": ImageFeature(), "label": ClassLabel(names=["calm", "tense"])})
    rows = [
        {"image": {"bytes": png(colour), "path": None}, "label": label} for colour, label in (("red", 0), ("blue", -1))
    ]
    Dataset.from_list(rows, features=features).to_parquet(tmp_path / "src/rows.parquet")
    imported = import_data("table", str(tmp_path / "src/rows.parquet"), tmp_path / "src/out", test_share=0)
    assert imported.rows == {"train": {"calm": 1}}  # beside the table, since nothing is linked
    assert reasons(imported) == ["its label is -1, which stands for no label"]


def test_a_folder_beside_the_table_that_it_would_link_to_is_refused(tmp_path):
    layouts.image(tmp_path / "a.jpg")
    layouts.text(tmp_path / "t.csv", "image,label", "a.jpg,calm")
    with pytest.raises(UserError, match=r"out lies inside .*choose a folder outside it, or give --copy"):
        import_data("table", str(tmp_path / "t.csv"), tmp_path / "out")
    assert import_data("table", str(tmp_path / "t.csv"), tmp_path / "out", copy=True, test_share=0).rows


def test_rows_with_other_cells_than_the_header_are_dropped_by_line_and_a_double_header_is_refused(tmp_path):
    layouts.image(tmp_path / "src/a.jpg")
    layouts.text(tmp_path / "src/t.csv", "image,label,group", "a.jpg,calm,g", "a.jpg,sad, blue,g", "a.jpg")
    imported = import_data("table", str(tmp_path / "src/t.csv"), tmp_path / "out", test_share=0)
    assert [(entry["what"], entry["reason"]) for entry in imported.dropped] == [
        ("t.csv line 3", "it has 4 cells, the header has 3"),
        ("t.csv line 4", "it has 1 cells, the header has 3"),
    ]
    layouts.text(tmp_path / "src/twice.csv", "image,label,Label", "a.jpg,calm,tense")
    with pytest.raises(UserError, match=r"a header that names the column 'label' twice"):
        import_data("table", str(tmp_path / "src/twice.csv"), tmp_path / "twice")


def test_one_vote_a_row_becomes_one_row_an_image_with_its_votes(tmp_path):
    votes = {"a": ["calm", "tense", "tense"], "b": ["calm", "Calm", "calm"], "c": ["calm", "tense"]}
    for name in votes:
        layouts.image(tmp_path / f"src/{name}.jpg")
    layouts.text(
        tmp_path / "src/t.csv",
        "rater,image,label",
        *(f"{rater},{name}.jpg,{label}" for name, labels in votes.items() for rater, label in enumerate(labels)),
    )
    samples, imported = bring(tmp_path, "table", tmp_path / "src/t.csv", test_share=0)
    assert {sample.id: sample.label for sample in samples} == {"images/a.jpg": "tense", "images/b.jpg": "calm"}
    assert samples[0].distribution == pytest.approx({"calm": 1 / 3, "tense": 2 / 3})
    assert reasons(imported) == ["tie of calm and tense (2 rows)"]
    assert any("8 rows of 3 images, one vote each, became 2 rows" in line for line in import_lines(imported, tmp_path))


@pytest.mark.parametrize("columns", [{}, {"votes": "joy,fear"}])
def test_votes_in_columns_become_a_distribution_and_the_label_with_most(tmp_path, columns):
    for name in "abc":
        layouts.image(tmp_path / f"src/{name}.jpg")
    layouts.text(tmp_path / "src/t.csv", "image;joy;fear", "a.jpg;3;1", "b.jpg;0,25;0,75", "c.jpg;1;1")
    samples, imported = bring(tmp_path, "table", tmp_path / "src/t.csv", columns=columns, test_share=0)
    assert [(s.label, s.distribution) for s in samples] == [
        ("joy", {"joy": 0.75, "fear": 0.25}),
        ("fear", {"joy": 0.25, "fear": 0.75}),
    ]
    assert reasons(imported) == ["tie of joy and fear"]


def test_votes_beside_a_label_column_are_named_with_the_way_to_read_them(tmp_path):
    layouts.image(tmp_path / "src/a.jpg")
    layouts.image(tmp_path / "src/b.jpg")
    layouts.text(tmp_path / "src/t.csv", "image,label,joy,fear", "a.jpg,joy,3,1", "b.jpg,fear,1,3")
    samples, imported = bring(tmp_path, "table", tmp_path / "src/t.csv", test_share=0)
    assert [(s.label, s.distribution) for s in samples] == [("joy", None), ("fear", None)]
    assert [entry["what"] for entry in imported.dropped] == ["columns joy,fear"]
    assert reasons(imported) == ["the label column decides; --column votes=joy,fear reads them as votes"]
    layouts.text(tmp_path / "src/words.csv", "image,label,joy,fear", "a.jpg,joy,a smile,", "b.jpg,fear,,a spider")
    assert bring(tmp_path / "words", "table", tmp_path / "src/words.csv", test_share=0)[1].dropped == []  # no numbers


def test_pictures_in_base64_and_the_tsv_of_share_are_read(tmp_path):
    noisy = io.BytesIO()
    Image.effect_noise((300, 300), 90).save(noisy, "PNG")
    text = base64.b64encode(noisy.getvalue()).decode()
    small = base64.b64encode(png("red")).decode()
    layouts.text(
        tmp_path / "src/data.tsv",
        "index\timage\tquestion\tA\tB\tanswer\tsplit",
        f"0\t{text}\tWhich?\tcalm\ttense\tB\tmy/folder",
        f"1\t{small}\tWhich?\tcalm\ttense\tA\tmy/folder",
    )
    samples, _ = bring(tmp_path, "table", tmp_path / "src/data.tsv", test_share=0)
    assert [(s.label, s.split) for s in samples] == [("tense", "train"), ("calm", "train")]
    assert open_image(samples[0].image).size == (300, 300)
    layouts.text(tmp_path / "src/t.jsonl", json.dumps({"image": f"data:image/png;base64,{small}", "label": "calm"}))
    assert import_data("table", str(tmp_path / "src/t.jsonl"), tmp_path / "uri", test_share=0).rows


def test_a_free_text_in_place_of_a_label_is_refused(tmp_path):
    for number in range(10):
        layouts.image(tmp_path / f"src/{number}.jpg")
    layouts.text(tmp_path / "src/t.csv", "image,label", *(f"{n}.jpg,picture number {n}" for n in range(10)))
    with pytest.raises(UserError, match=r"10 labels for 10 rows.*free text"):
        bring(tmp_path, "table", tmp_path / "src/t.csv")


def test_held_out_rows_are_drawn_by_the_label_whatever_its_spelling(tmp_path):
    lines = ["image,label"]
    for number in range(10):
        layouts.image(tmp_path / f"src/{number}.jpg")
        lines.append(f"{number}.jpg,{('calm', 'Calm', 'CALM', 'calm!', '**calm**')[number % 5]}")
        layouts.image(tmp_path / f"src/t{number}.jpg")
        lines.append(f"t{number}.jpg,tense")
    layouts.text(tmp_path / "src/t.csv", *lines)
    _, imported = bring(tmp_path, "table", tmp_path / "src/t.csv", test_share=0.4)
    assert sorted(imported.rows["test"].values()) == [4, 4]


# --- Parquet and hub data sets


def test_a_hub_folder_keeps_its_splits_and_unpacks_its_pictures(tmp_path):
    folder = tmp_path / "src"
    (folder / "data").mkdir(parents=True)
    for split, count in (("train", 4), ("test", 2)):
        rows = Dataset.from_list(hub_rows(count), features=HUB)
        rows.to_parquet(folder / f"data/{split}-00000-of-00001.parquet")
    samples, _ = bring(tmp_path, "hub", folder)
    assert [(s.split, s.label) for s in samples] == [("train", "joy"), ("train", "sadness")] * 2 + [
        ("test", "joy"),
        ("test", "sadness"),
    ]
    assert open_image(samples[2].image).getpixel((0, 0)) == (2, 0, 0)


def test_prompts_titles_and_the_contradicting_coarse_column_stay_out(tmp_path):
    (tmp_path / "src").mkdir()
    Dataset.from_list(hub_rows(), features=HUB).to_parquet(tmp_path / "src/rows.parquet")
    samples, _ = bring(tmp_path, "table", tmp_path / "src/rows.parquet", test_share=0)
    written = (tmp_path / "out/metadata.jsonl").read_text()
    assert not any(word in written for word in ("secret_title", "feel?", "negative", "intensity"))
    assert {sample.label for sample in samples} == {"joy", "sadness"}


def test_boxed_answers_are_unboxed_and_class_indices_named(tmp_path):
    (tmp_path / "src").mkdir()
    boxed = [{"image": {"bytes": png("red"), "path": None}, "answer": r"\boxed{joy}"}]
    Dataset.from_list(boxed).to_parquet(tmp_path / "src/boxed.parquet")
    imported = import_data("table", str(tmp_path / "src/boxed.parquet"), tmp_path / "boxed", test_share=0)
    assert imported.rows == {"train": {"joy": 1}}
    features = Features({"image": ImageFeature(), "label": ClassLabel(names=["calm", "tense"])})
    indexed = [{"image": {"bytes": png("red"), "path": None}, "label": 1}]
    Dataset.from_list(indexed, features=features).to_parquet(tmp_path / "src/indexed.parquet")
    imported = import_data("table", str(tmp_path / "src/indexed.parquet"), tmp_path / "indexed", test_share=0)
    assert imported.rows == {"train": {"tense": 1}}


def test_rows_with_several_images_none_or_a_broken_one_are_dropped_by_name(tmp_path):
    rows = hub_rows(4)
    rows[1]["images"] = rows[1]["images"] * 2
    rows[2]["images"] = []
    rows[3]["images"] = [{"bytes": b"no picture", "path": None}]
    (tmp_path / "src").mkdir()
    Dataset.from_list(rows, features=HUB).to_parquet(tmp_path / "src/rows.parquet")
    imported = import_data("table", str(tmp_path / "src/rows.parquet"), tmp_path / "out", test_share=0)
    assert imported.rows == {"train": {"joy": 1}}
    assert reasons(imported)[:2] == [
        "it has 2 images, and only rows with one are supported",
        "it has 0 images, and only rows with one are supported",
    ]
    assert "cannot be read" in reasons(imported)[2]


def test_a_hub_folder_saved_in_another_form_is_refused_in_one_message(tmp_path):
    DatasetDict({"train": Dataset.from_list([{"answer": "joy"}])}).save_to_disk(tmp_path / "saved")
    (tmp_path / "empty").mkdir()
    for source in ("saved", "empty"):
        with pytest.raises(UserError, match=r"is not a data set of the hub as it is distributed: expected a folder"):
            import_data("hub", str(tmp_path / source), tmp_path / "out")
