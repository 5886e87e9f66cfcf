"""Subsets are drawn by seed and id alone, balanced to within one sample, and can be drawn again from their id list."""

import hashlib
import json
import random
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from emor3.data import subsets as sampling
from emor3.data.folders import load_samples
from emor3.data.subsets import pick_data, ranked, read_ids, read_sizes, sample_data
from emor3.errors import UserError
from emor3.method import labels as taxonomy
from emor3.method.types import Sample
from emor3.storage.images import open_image


def made_up(counts: dict[str, int]) -> list[Sample]:
    """Samples of Sentiment-3, so many of each label."""
    return [
        Sample(f"{label}{index}", ("",), label, taxonomy.SENTIMENT3)
        for label, count in counts.items()
        for index in range(count)
    ]


def draw(samples: list[Sample], size: int, seed: int, balanced: bool) -> list[Sample]:
    order = ranked(samples, seed)
    return [samples[place] for place in sampling.draw(order, samples[0].labels.labels, size, seed, balanced)]


@pytest.fixture
def folder(tmp_path: Path) -> str:
    """36 images of three labels in two splits."""
    (tmp_path / "data/images").mkdir(parents=True)
    rows = []
    for index in range(36):
        name = f"images/{index}.png"
        Image.new("RGB", (4, 4), (index, 0, 0)).save(tmp_path / "data" / name)
        label = ("negative", "neutral", "positive")[index % 3]
        rows.append({"file_name": name, "label": label, "split": "test" if index < 12 else "train", "theme": "sea"})
    (tmp_path / "data/metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(tmp_path / "data")


def test_a_balanced_draw_differs_by_one_at_most_and_keeps_the_order() -> None:
    samples = made_up({"negative": 40, "neutral": 9, "positive": 300})
    drawn = draw(samples, 26, seed=1, balanced=True)  # 26 = 9 + 9 + 8
    assert sorted(Counter(sample.label for sample in drawn).values()) == [8, 9, 9]
    assert drawn == sorted(drawn, key=samples.index)


def test_a_natural_draw_keeps_shares_roughly() -> None:
    drawn = draw(made_up({"negative": 100, "positive": 900}), 200, seed=0, balanced=False)
    assert len(drawn) == 200
    assert 5 < sum(sample.label == "negative" for sample in drawn) < 40  # 20 expected, sd below 4.3


def test_the_order_of_the_rows_does_not_matter_and_a_small_draw_is_part_of_a_large_one() -> None:
    samples = made_up({"negative": 50, "neutral": 50, "positive": 50})
    shuffled = random.Random(5).sample(samples, len(samples))
    ids = {sample.id for sample in draw(samples, 30, seed=2, balanced=True)}
    assert ids == {sample.id for sample in draw(shuffled, 30, seed=2, balanced=True)}
    assert ids < {sample.id for sample in draw(samples, 60, seed=2, balanced=True)}
    assert ids != {sample.id for sample in draw(samples, 30, seed=3, balanced=True)}


def test_too_few_samples_are_answered_with_what_is_possible() -> None:
    samples = made_up({"negative": 40, "neutral": 9, "positive": 300})
    with pytest.raises(UserError, match=r"needs 10 of 'neutral', there are 9: draw at most 27, or give --natural"):
        draw(samples, 30, seed=0, balanced=True)
    with pytest.raises(UserError, match=r"there are only 349 samples to draw 350 from"):
        draw(samples, 350, seed=0, balanced=False)


def test_a_subset_holds_the_rows_of_its_source_byte_for_byte_with_ids_and_checksums(
    folder: str, tmp_path: Path
) -> None:
    drawn = sample_data(folder, tmp_path / "out", {"train": 12, "test": 3})
    lines = (tmp_path / "out/metadata.jsonl").read_bytes().splitlines()
    assert set(lines) < set((tmp_path / "data/metadata.jsonl").read_bytes().splitlines())
    samples = load_samples(str(tmp_path / "out"))
    assert Counter(sample.split for sample in samples) == {"train": 12, "test": 3}
    assert {sample.id for sample in samples} == set(read_ids(tmp_path / "out/ids.txt"))
    open_image(samples[0].image)
    record = json.loads((tmp_path / "out/sample.json").read_text())
    for name, file in (
        ("ids", "out/ids.txt"),
        ("manifest", "out/metadata.jsonl"),
        ("source_manifest", "data/metadata.jsonl"),
    ):
        assert record[f"{name}_sha256"] == hashlib.sha256((tmp_path / file).read_bytes()).hexdigest()
    assert record["ids_sha256"] == drawn.ids_sha256


def test_an_id_list_draws_the_same_subset_again(folder: str, tmp_path: Path) -> None:
    first = sample_data(folder, tmp_path / "first", {"train": 9}, seed=4)
    again = pick_data(folder, tmp_path / "again", read_ids(tmp_path / "first/ids.txt"), copy=True)
    assert (again.ids_sha256, again.manifest_sha256) == (first.ids_sha256, first.manifest_sha256)
    assert not (tmp_path / "again/images").is_symlink()
    with pytest.raises(UserError, match=r"1 of 1 ids are not in this data, the first is 'elsewhere'"):
        pick_data(folder, tmp_path / "third", ["elsewhere"])


def test_a_subset_keeps_the_label_set_of_its_source(folder: str, tmp_path: Path) -> None:
    (tmp_path / "data/labels.yaml").write_text("labels: [negative, neutral, positive, mixed]\n")
    sample_data(folder, tmp_path / "out", {"train": 3}, balanced=False)
    assert load_samples(str(tmp_path / "out"))[0].labels.labels[-1] == "mixed"


def test_a_split_that_is_not_there_is_answered_with_those_that_are(folder: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no rows in split 'val'; it has test 12, train 24"):
        sample_data(folder, tmp_path / "out", {"val": 3})


def test_sizes_are_whole_numbers_above_zero(tmp_path: Path) -> None:
    assert read_sizes({"train": "2100"}) == {"train": 2100}
    for wrong in ("0", "-3", "many"):
        with pytest.raises(UserError, match="must be a whole number above 0"):
            read_sizes({"train": wrong})


def test_an_id_list_with_an_id_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_text("a\na\n")
    with pytest.raises(UserError, match="one a line and each once"):
        read_ids(tmp_path / "ids.txt")
