"""Every public set, laid out as it is distributed, becomes samples; what misleads in a layout does not mislead us."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import layouts
from emor3.data.folders import load_samples
from emor3.data.importers.catalogue import SETS
from emor3.data.importers.importing import import_data, import_lines
from emor3.errors import UserError
from emor3.method import labels as taxonomy
from emor3.method.types import Sample
from emor3.storage.images import open_image


@pytest.fixture
def bring(tmp_path: Path) -> Callable[..., dict[str, Sample]]:
    """Function that lays out a set, imports it and returns its samples by the last part of the image's path."""

    def bring_set(name: str, build: Any = None, **options: Any) -> Any:
        source = tmp_path / "source"
        source.mkdir()
        (build or layouts.BUILDERS[name])(source)
        import_data(name, str(source), tmp_path / "out", **options)
        return {s.id.removeprefix("images/"): s for s in load_samples(str(tmp_path / "out"))}

    return bring_set


def dropped(tmp_path: Path) -> Any:
    return json.loads((tmp_path / "out/import.json").read_text())["dropped"]


@pytest.mark.parametrize("name", layouts.BUILDERS)
def test_every_set_becomes_samples_whose_images_open_and_whose_labels_are_of_its_set(
    name: str, bring: Callable[..., dict[str, Sample]]
) -> None:
    samples = bring(name)
    labels = next(iter(SETS[name].policies.values()))
    for sample in samples.values():
        open_image(sample.image)
        assert labels is None or sample.labels.labels == labels.labels
    assert {"train", "test"} <= {sample.split for sample in samples.values()} or len(samples) < 10


def test_every_set_of_the_catalogue_has_a_layout_test() -> None:
    elsewhere = {"table", "hub", "clips", "mer", "dfew"}  # in test_importers_tables and test_importers_clips
    assert SETS.keys() == layouts.BUILDERS.keys() | elsewhere


# --- EmoSet


@pytest.mark.parametrize("with_ids", [False, True])
def test_emoset_rows_are_read_with_three_parts_as_shipped_and_with_four_as_described(
    bring: Callable[..., dict[str, Sample]], with_ids: bool
) -> None:
    samples = bring("emoset", lambda root: layouts.emoset(root, with_ids))
    assert Counter(sample.split for sample in samples.values()) == {"train": 8, "val": 8, "test": 8}
    assert samples["image/fear/fear_val.jpg"].label == "fear"


def test_emoset_attributes_that_an_annotation_leaves_out_are_unknown(bring: Callable[..., dict[str, Sample]]) -> None:
    samples = bring("emoset")
    awe, fear = samples["image/awe/awe_train.jpg"], samples["image/fear/fear_train.jpg"]
    assert awe.attributes == {
        "scene": "beach",
        "facial_expression": "smile",
        "object": ("Dog", "Ball"),
        "brightness": 0.6,
    }
    assert fear.attributes == {"brightness": 0.1, "colorfulness": 0.2}


# --- Emotion6


def test_emotion6_labels_by_keyword_folder_and_keeps_the_votes_over_the_six(
    bring: Callable[..., dict[str, Sample]],
) -> None:
    samples = bring("emotion6")
    angry = samples["images/anger/1.jpg"]
    assert len(samples) == 6  # the six files named 1.jpg are six samples
    assert angry.labels == taxonomy.EKMAN6
    assert angry.label == "anger"
    assert angry.distribution["sadness"] == pytest.approx(0.75)  # 0.6 of the 0.8 that neutral leaves
    assert samples["images/surprise/1.jpg"].distribution is None  # all voted neutral
    assert (angry.valence, angry.arousal) == (0.25, 0.5)  # (3 - 1) / 8 and (5 - 1) / 8


def test_emotion6_labels_by_votes_name_the_ties_they_drop(
    bring: Callable[..., dict[str, Sample]], tmp_path: Path
) -> None:
    samples = bring("emotion6", policy="votes7")
    assert samples["images/anger/1.jpg"].label == "sadness"
    assert samples["images/fear/1.jpg"].label == "neutral"
    assert samples["images/anger/1.jpg"].distribution["neutral"] == pytest.approx(0.2)
    assert [(d["what"].split(": ")[1], d["reason"]) for d in dropped(tmp_path)] == [
        ("sadness/1.jpg", "tie of disgust and sadness")
    ]


def test_emotion6_votes_may_leave_neutral_out_of_the_count(
    bring: Callable[..., dict[str, Sample]], tmp_path: Path
) -> None:
    samples = bring("emotion6", policy="votes6")
    assert samples["images/fear/1.jpg"].label == "fear"
    assert [d["reason"] for d in dropped(tmp_path)] == ["tie of disgust and sadness", "no votes"]


@pytest.mark.parametrize("header", ["image\tval\tar\tx\ty\tz", "[image_filename]\t[valence]\t[arousal]\t[prob.anger]"])
def test_emotion6_is_read_by_position_whatever_its_header_says(
    bring: Callable[..., dict[str, Sample]], tmp_path: Path, header: str
) -> None:
    assert len(bring("emotion6", lambda root: layouts.emotion6(root, header))) == 6
    assert dropped(tmp_path) == []


# --- WebEmo


def test_webemo_indices_are_those_of_the_sorted_names_two_of_them_misspelt(
    bring: Callable[..., dict[str, Sample]],
) -> None:
    samples = bring("webemo")
    for index, written in enumerate(layouts.WEBEMO_SPELLING):
        right = {"cheerfullness": "cheerfulness", "irritabilty": "irritability"}.get(written, written)
        assert samples[f"images/test25/{index}/picture_{index}.jpg"].label == right
    assert Counter(sample.split for sample in samples.values()) == {"train": 25, "test": 25}


@pytest.mark.parametrize(
    ("policy", "confusion", "zest", "surprise", "count"),
    [
        ("webemo7", "confusion", "joy", "surprise", 7),
        ("webemo6", "sadness", "joy", "surprise", 6),
        ("webemo2", "negative", "positive", "positive", 2),
    ],
)
def test_webemo_folds_to_seven_six_and_two(
    bring: Callable[..., dict[str, Sample]], policy: str, confusion: str, zest: str, surprise: str, count: int
) -> None:
    samples = bring("webemo", policy=policy)
    by_index = {name.split("/")[2]: sample.label for name, sample in samples.items()}
    assert (by_index["2"], by_index["24"], by_index["22"]) == (confusion, zest, surprise)
    assert len(set(by_index.values())) == count


def test_webemo_without_its_pictures_says_that_the_lists_are_addresses_only(tmp_path: Path) -> None:
    layouts.text(tmp_path / "src/test25.txt", "http://example.org/1.jpg 3")
    with pytest.raises(UserError, match=r"only the lists of addresses: download the images first to images/test25"):
        import_data("webemo", str(tmp_path / "src"), tmp_path / "out")


# --- folders


def test_unbiasedemo_labels_are_the_first_component_of_the_path(bring: Callable[..., dict[str, Sample]]) -> None:
    samples = bring("unbiasedemo", test_share=0)
    assert samples["anger/joy/dog/1.jpg"].label == "anger"


def test_caer_s_happy_and_sad_are_joy_and_sadness(bring: Callable[..., dict[str, Sample]]) -> None:
    samples = bring("caer-s")
    assert samples["train/Happy/0001.png"].label == "joy"
    assert samples["test/Sad/0001.png"].label == "sadness"


def test_a_class_folder_outside_the_label_set_is_named(bring: Callable[..., dict[str, Sample]]) -> None:
    def with_boredom(root: Path) -> None:
        layouts.fi(root)
        layouts.image(root / "train/Boredom/1.jpg")

    with pytest.raises(UserError, match=r"found folder train/Boredom/, which is none of amusement, awe"):
        bring("fi", with_boredom)


def test_own_class_folders_keep_their_names_and_their_splits(bring: Callable[..., dict[str, Sample]]) -> None:
    samples = bring("folders")
    assert {sample.label for sample in samples.values()} == {"at peace", "uneasy"}
    assert samples["test/uneasy/test.png"].split == "test"


def test_own_class_folders_without_splits_get_one_that_is_balanced_and_reproducible(
    bring: Callable[..., dict[str, Sample]], tmp_path: Path
) -> None:
    def forty(root: Path) -> None:
        for label in ("calm", "tense"):
            for number in range(20):
                layouts.image(root / label / f"{number}.png")

    samples = bring("folders", forty, test_share=0.25, seed=3)
    held_out = {sample.id for sample in samples.values() if sample.split == "test"}
    assert Counter(samples[name.removeprefix("images/")].label for name in held_out) == {"calm": 5, "tense": 5}
    import_data("folders", str(tmp_path / "source"), tmp_path / "again", test_share=0.25, seed=3, copy=True)
    assert {sample.id for sample in load_samples(str(tmp_path / "again"), split="test")} == held_out


# --- lists


def test_artphoto_reads_sad_and_content_and_skips_what_is_no_image(bring: Callable[..., dict[str, Sample]]) -> None:
    samples = bring("artphoto")
    assert len(samples) == 8
    assert samples["testImages_artphoto/sad_0001.jpg"].label == "sadness"
    assert samples["testImages_artphoto/content_0001.jpg"].label == "contentment"


def test_abstract_names_stand_in_single_quotes_and_ties_are_dropped_by_name(
    bring: Callable[..., dict[str, Sample]], tmp_path: Path
) -> None:
    samples = bring("abstract")
    assert {name.split("/")[1]: sample.label for name, sample in samples.items()} == {
        "abstract_0001.jpg": "amusement",
        "abstract_0003.jpg": "sadness",
    }
    assert samples["testImages_abstract/abstract_0003.jpg"].distribution["contentment"] == pytest.approx(1 / 9)
    assert dropped(tmp_path) == [
        {
            "what": "ABSTRACT_groundTruth.csv line 3: abstract_0002.jpg",
            "reason": "tie of contentment and sadness",
        }
    ]


def test_abstract_ties_may_go_to_the_first_label_instead(bring: Callable[..., dict[str, Sample]]) -> None:
    samples = bring("abstract", policy="first-of-ties")
    assert samples["testImages_abstract/abstract_0002.jpg"].label == "contentment"


def test_ldl_votes_become_a_distribution_and_no_votes_are_no_label(
    bring: Callable[..., dict[str, Sample]], tmp_path: Path
) -> None:
    samples = bring("flickr-ldl")
    assert samples["images/1.jpg"].label == "awe"
    assert samples["images/1.jpg"].distribution["awe"] == pytest.approx(6 / 11)  # 1 + 6 + 3 + 1 votes
    assert [d["reason"] for d in dropped(tmp_path)] == ["tie of amusement and awe", "no votes"]


@pytest.mark.parametrize(
    ("policy", "name"), [("aligned", "aligned/train_00005_aligned"), ("original", "original/train_00005")]
)
def test_raf_db_counts_from_one_and_aligned_files_have_a_suffix(
    bring: Callable[..., dict[str, Sample]], policy: str, name: str
) -> None:
    samples = bring("raf-db", policy=policy)
    assert samples[f"Image/{name}.jpg"].label == "sadness"  # 5
    assert Counter(sample.split for sample in samples.values()) == {"train": 7, "test": 7}


def test_oasis_ratings_are_cut_into_three_or_five_labels_and_themes_are_groups(
    bring: Callable[..., dict[str, Sample]], tmp_path: Path
) -> None:
    samples = bring("oasis")
    by_theme = {name.split("/")[1].removesuffix(".jpg"): sample for name, sample in samples.items()}
    assert {theme: sample.label for theme, sample in by_theme.items()} == {
        "Acorns 1": "positive",
        "Acorns 2": "positive",
        "Alcohol 2": "neutral",
        "Angry face 1": "negative",
        "Car crash 1": "negative",
    }
    assert by_theme["Acorns 1"].valence == pytest.approx(0.6144, abs=1e-4)
    assert by_theme["Acorns 1"].group == by_theme["Acorns 2"].group == "Acorns"
    import_data("oasis", str(tmp_path / "source"), tmp_path / "five", policy="va5")
    five = Counter(sample.label for sample in load_samples(str(tmp_path / "five")))
    assert five == {"positive_low_arousal": 2, "neutral": 1, "negative_high_arousal": 2}


# --- own folders in all their layouts

LAYOUTS = {
    "other names of splits": ["Training/calm", "Training/tense", "Testing/calm", "dev/tense"],
    "plural names of splits": ["Trains/calm", "tests/tense", "test_set/calm"],
    "splits named as sets below labels": ["calm/train_set", "tense/Testset"],
    "a wrapper": ["archive/v2/train/calm", "archive/v2/test/tense"],
    "a folder twice": ["train/train/calm", "train/train/tense", "test/test/calm"],
    "splits below labels": ["calm/train", "calm/test", "tense/train"],
    "hidden and system folders": [
        *("train/calm", "test/tense", ".ipynb_checkpoints/calm", "train/@eaDir", "train/calm/.thumbnails"),
        *("lost+found/calm", "$RECYCLE.BIN/calm", "__MACOSX/train/calm"),
    ],
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_folders_are_never_labels_where_they_are_splits_wrappers_or_the_systems(
    layout: Any, bring: Callable[..., dict[str, Sample]]
) -> None:
    samples = bring("folders", lambda root: [layouts.image(root / place / "1.jpg") for place in LAYOUTS[layout]])
    assert {sample.label for sample in samples.values()} == {"calm", "tense"}
    for name, sample in samples.items():
        parts = name.lower().split("/")
        assert sample.label in parts
        train = {"train", "training", "trains", "train_set"} & {*parts}
        assert sample.split == ("train" if train else "val" if "dev" in parts else "test")


@pytest.mark.parametrize(
    ("places", "drawn"),
    [
        (["train/calm", "train/tense", "extra/calm"], r"train/ beside extra/.*extra/calm/ \(1\), train/calm/ \(1\)"),
        (["calm/train", "calm/test", "tense"], r"splits below some labels"),
        (["train/test/calm", "train/val/tense"], r"a split inside a split, test.*train/test/calm/"),
    ],
)
def test_an_unclear_layout_is_refused_and_drawn(
    places: list[Any], drawn: str, bring: Callable[..., dict[str, Sample]]
) -> None:
    with pytest.raises(UserError, match=drawn):
        bring("folders", lambda root: [layouts.image(root / place / "1.jpg") for place in places])


def test_a_folder_of_all_pictures_of_a_split_is_no_label(tmp_path: Path) -> None:
    for name in ("train/calm/1.jpg", "train/tense/1.jpg", "test/images/1.jpg"):
        layouts.image(tmp_path / "source" / name)
    imported = import_data("folders", str(tmp_path / "source"), tmp_path / "out")
    assert imported.rows == {"train": {"calm": 1, "tense": 1}}
    assert [entry["what"] for entry in imported.dropped] == ["test/images/1.jpg"]


def test_pictures_that_are_not_read_and_classes_that_vanish_are_named(tmp_path: Path) -> None:
    for name in ("calm/1.jpg", "tense/1.jpeg"):
        layouts.image(tmp_path / "source" / name)
    (tmp_path / "source/calm/1.jpg").rename(tmp_path / "source/calm/1.jfif")
    layouts.text(tmp_path / "source/awe/1.avif", "x")
    (tmp_path / "source/fear").mkdir()
    imported = import_data("folders", str(tmp_path / "source"), tmp_path / "out", test_share=0)
    assert imported.rows == {"train": {"calm": 1, "tense": 1}}
    assert [entry["what"] for entry in imported.dropped] == ["awe/1.avif", "fear/"]
    assert "no row is left of: awe, fear" in list(import_lines(imported, tmp_path / "out"))


# --- faces


def test_fer2013_pixels_become_pictures_and_usage_the_split(bring: Callable[..., dict[str, Sample]]) -> None:
    samples = list(bring("fer2013").values())
    assert [(s.label, s.split) for s in samples] == [
        ("anger", "train"),
        ("joy", "train"),
        ("neutral", "val"),
        ("sadness", "test"),
        ("surprise", "test"),
    ]
    picture = open_image(samples[1].image)
    assert (picture.size, picture.getpixel((0, 0))) == ((48, 48), (120, 120, 120))  # emotion 3 is drawn in grey 3 * 40


def test_ferplus_leaves_out_what_is_no_emotion_of_its_set(
    bring: Callable[..., dict[str, Sample]], tmp_path: Path
) -> None:
    samples = list(bring("ferplus").values())
    assert [sample.label for sample in samples] == ["anger", "joy"]  # FER2013 calls the first one angry too
    assert samples[0].distribution["neutral"] == pytest.approx(0.4)  # 4 of 10 votes
    assert [d["reason"] for d in dropped(tmp_path)] == [
        "most votes are for not a face",
        "most votes are for contempt",
        "most votes are for unknown",
    ]


def test_ferplus_may_keep_contempt(bring: Callable[..., dict[str, Sample]]) -> None:
    assert [sample.label for sample in bring("ferplus", policy="ferplus8").values()] == ["anger", "joy", "contempt"]


def test_ferplus_tables_that_do_not_belong_together_are_refused(bring: Callable[..., dict[str, Sample]]) -> None:
    def shifted(root: Path) -> None:
        layouts.ferplus(root)
        lines = (root / "fer2013new.csv").read_text().splitlines(keepends=True)
        (root / "fer2013new.csv").write_text("".join([lines[0], *lines[2:]]))

    with pytest.raises(UserError, match=r"two tables that differ from fer2013.csv line 3 on"):
        bring("ferplus", shifted)


# --- the same for all


@pytest.mark.parametrize("name", [name for name in SETS if name not in ("hub", "table", "folders", "clips")])
def test_a_wrong_folder_is_told_what_was_expected_what_was_found_and_where_the_set_is_obtained(
    name: str, tmp_path: Path
) -> None:
    layouts.text(tmp_path / "src/notes.txt", "not a data set")
    layouts.image(tmp_path / "src/holiday/1.jpg")
    with pytest.raises(UserError) as caught:
        import_data(name, str(tmp_path / "src"), tmp_path / "out")
    message = str(caught.value)
    assert SETS[name].title in message
    assert SETS[name].expected in message
    assert SETS[name].obtain in message
    assert "holiday" in message
    assert list(tmp_path.iterdir()) == [tmp_path / "src"]  # nothing half-made is left behind


def test_a_missing_folder_is_told_the_same(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"does not exist: EmoSet-118K is expected as info.json.*vcc.tech/EmoSet"):
        import_data("emoset", str(tmp_path / "nowhere"), tmp_path / "out")


def test_images_are_linked_unless_copies_are_asked_for_and_rows_are_the_same(tmp_path: Path) -> None:
    layouts.fi(tmp_path / "source")
    import_data("fi", str(tmp_path / "source"), tmp_path / "linked")
    import_data("fi", str(tmp_path / "source"), tmp_path / "copied", copy=True)
    assert (tmp_path / "linked/images").is_symlink()
    assert not (tmp_path / "copied/images").is_symlink()
    assert (tmp_path / "linked/metadata.jsonl").read_bytes() == (tmp_path / "copied/metadata.jsonl").read_bytes()
    layouts.image(tmp_path / "source/train/Awe/1.jpg", "red")
    assert open_image(str(tmp_path / "copied/images/train/Awe/1.jpg")).getpixel((0, 0)) != (254, 0, 0)


def test_a_listed_image_that_is_missing_is_dropped_by_name(
    bring: Callable[..., dict[str, Sample]], tmp_path: Path
) -> None:
    def incomplete(root: Path) -> None:
        layouts.raf_db(root)
        (root / "Image/aligned/train_00003_aligned.jpg").unlink()

    assert len(bring("raf-db", incomplete)) == 13
    assert dropped(tmp_path) == [
        {"what": "Image/aligned/train_00003_aligned.jpg", "reason": "there is no such image file"}
    ]


def test_a_list_cannot_reach_outside_its_folder(bring: Callable[..., dict[str, Sample]], tmp_path: Path) -> None:
    layouts.image(tmp_path / "secret.jpg")

    def escaping(root: Path) -> None:
        layouts.ldl(root)
        with (root / "ground_truth.txt").open("a") as file:
            file.write("../../secret.jpg 9 0 0 0 0 0 0 0\n")

    bring("twitter-ldl", escaping)
    assert dropped(tmp_path)[-1]["reason"] == "its image lies outside the folder of the set"


def test_nothing_but_known_fields_enters_the_manifest(bring: Callable[..., dict[str, Sample]], tmp_path: Path) -> None:
    bring("emotion6")
    fields = set[str]()
    for line in (tmp_path / "out/metadata.jsonl").read_text().splitlines():
        fields |= json.loads(line).keys()
    assert fields == {"file_name", "label", "split", "distribution", "valence", "arousal"}


def test_a_source_that_names_fewer_images_than_were_published_is_told_so(tmp_path: Path) -> None:
    layouts.artphoto(tmp_path / "source")
    imported = import_data("artphoto", str(tmp_path / "source"), tmp_path / "out")
    lines = list(import_lines(imported, tmp_path / "out"))
    assert "the set was published with 806 images, this source names 8" in lines


def test_emotion6_is_held_out_in_the_sizes_of_the_paper(bring: Callable[..., dict[str, Sample]]) -> None:
    def whole(root: Path) -> None:
        layouts.text(root / "ground_truth.txt", "header", *_emotion6_lines())
        for keyword in layouts.EKMAN:
            (root / "images" / keyword).mkdir(parents=True)
            for number in range(330):
                (root / f"images/{keyword}/{number}.jpg").touch()

    splits = Counter(sample.split for sample in bring("emotion6", whole).values())
    assert splits == {"train": 1386, "test": 594}  # 330 x 6, 0.3 of them held out


def _emotion6_lines() -> list[str]:
    cells = "\t".join(["5", "5", *["0.1"] * 6, "0.4"])
    return [f"{keyword}/{number}.jpg\t{cells}" for keyword in layouts.EKMAN for number in range(330)]


def test_an_unknown_set_or_policy_is_answered_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"unknown data set 'emotion-6': did you mean 'emotion6'\? There are emoset"):
        import_data("emotion-6", str(tmp_path), tmp_path / "out")
    with pytest.raises(UserError, match=r"no label policy 'argmax': there are keyword, votes7, votes6"):
        import_data("emotion6", str(tmp_path), tmp_path / "out", policy="argmax")


def test_an_import_never_writes_over_a_folder_or_into_its_source(tmp_path: Path) -> None:
    layouts.fi(tmp_path / "source")
    layouts.text(tmp_path / "taken/notes.txt", "mine")
    with pytest.raises(UserError, match=r"taken exists and is not empty"):
        import_data("fi", str(tmp_path / "source"), tmp_path / "taken")
    with pytest.raises(UserError, match=r"lies inside"):
        import_data("fi", str(tmp_path / "source"), tmp_path / "source/out")


GARBAGE = {
    "nothing": b"",
    "zeros": b"\0" * 64,
    "not utf-8": b"\xff\xfe\x00\x80 1 2 3\n" * 3,
    "an endless cell": b'"' + b"a" * 200_000,
    "nested brackets": b"[" * 100_000,
    "a JSON scalar": b"42",
    "ragged cells": b"a,b\n1\n1,2,3,4,5,6,7,8,9,10,11,12\n\n,,,\n",
    "lone surrogate": b'[["\\ud800", "\\ud800", "\\ud800"]]',
}


@pytest.mark.parametrize("garbage", GARBAGE)
@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("emoset", "train.json"),
        ("emoset", "annotation/awe/awe_train.json"),
        ("emotion6", "ground_truth.txt"),
        ("abstract", "ABSTRACT_groundTruth.csv"),
        ("flickr-ldl", "ground_truth.txt"),
        ("fer2013", "fer2013.csv"),
        ("ferplus", "fer2013new.csv"),
        ("raf-db", "EmoLabel/list_patition_label.txt"),
    ],
)
def test_a_spoilt_list_ends_in_one_message_or_in_rows_that_load(
    tmp_path: Path, name: str, file: str, garbage: Any
) -> None:
    (tmp_path / "source").mkdir()
    layouts.BUILDERS[name](tmp_path / "source")
    (tmp_path / "source" / file).write_bytes(GARBAGE[garbage])
    message = None
    try:
        import_data(name, str(tmp_path / "source"), tmp_path / "out")
    except UserError as error:
        message = str(error)
    if message is None:
        assert load_samples(str(tmp_path / "out"))
    else:
        assert SETS[name].obtain in message
        assert not (tmp_path / "out").exists()
