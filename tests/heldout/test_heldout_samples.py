"""Held-out samples: a split that is there, a folder of its own, or a slice that training never sees."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from emor3.data.settings import DataBlock
from emor3.errors import UserError
from emor3.evaluation.evaluate import choose_samples
from emor3.evaluation.settings import EvaluationSettings
from emor3.heldout.figures import checks_on
from emor3.heldout.samples import HeldOut, held_out, training_rows
from emor3.heldout.settings import HeldOutBlock
from emor3.tiny.folders import write_domain
from emor3.tiny.world import DOMAINS
from rows import write_rows

Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a folder of rows with so many of each split (None: without one), and changes to each row by its number."""

    def rows_of(name: str, changes: Callable[[int], dict[str, Any]] = lambda _: {}, **splits: int) -> str:
        (tmp_path / name).mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / name / "a.png")
        found = [split for split, count in splits.items() for _ in range(count)]
        rows = [
            {"id": f"{name}{n}", "file_name": "a.png", "label": ("joy", "fear")[n % 2], "split": split} | changes(n)
            for n, split in enumerate(found)
        ]
        return write_rows(tmp_path / name, rows)

    return rows_of


def chosen(
    train: Any, seed: int = 0, samples: int = 4, held: str | None = None, **data: Any
) -> tuple[HeldOut, set[str]]:
    """The held-out samples, and the ids that are trained on."""
    block, evaluation = DataBlock(train=train, **data), HeldOutBlock(samples=samples, data=held)
    trained = training_rows(block, evaluation, seed)
    return held_out(block, evaluation, seed, trained), {sample.id for sample in trained}


def ids(found: HeldOut) -> set[str]:
    return {sample.id for sample in found.samples}


def test_the_val_split_is_taken_before_the_test_split(write: Write) -> None:
    found, trained = chosen(write("a", train=3, test=5, val=6))
    assert found.split == "val"
    assert {sample.split for sample in found.samples} == {"val"}
    assert (len(found.samples), len(trained), found.lines) == (4, 3, [])


def test_a_test_split_is_taken_with_a_word_of_what_that_costs(write: Write) -> None:
    found, _ = chosen(write("a", train=3, test=5))
    assert found.split == "test"
    assert [line for line in found.lines if "no longer test it" in line]


def test_the_samples_are_those_of_emor3_evaluate_with_the_same_limit_and_the_same_for_every_seed(write: Write) -> None:
    folder = write("a", train=3, val=30)
    again = choose_samples(folder, EvaluationSettings(split="val", limit=4))
    for seed in (0, 1):
        assert [sample.id for sample in chosen(folder, seed)[0].samples] == [sample.id for sample in again]


def test_without_such_a_split_a_slice_of_the_training_rows_is_held_out_and_never_trained_on(write: Write) -> None:
    folder = write("a", train=30)
    found, trained = chosen(folder)
    assert len(ids(found)) == 4
    assert ids(found) | trained == {f"a{n}" for n in range(30)}
    assert not ids(found) & trained
    assert [line for line in found.lines if "4 of 30 training rows are held out" in line]
    assert ids(chosen(folder)[0]) == ids(found) != ids(chosen(folder, seed=1)[0])


def test_a_slice_is_taken_too_if_all_splits_are_trained_on(write: Write) -> None:
    found, trained = chosen(write("a", train=10, val=10), split=None)
    assert not ids(found) & trained
    assert len(trained) == 16


def test_a_slice_takes_a_fifth_at_most_and_leaves_no_near_copy_of_its_rows_to_train_on(write: Write) -> None:
    folder = write("a", lambda n: {"group": f"g{n // 2}"}, train=20)  # pairs
    found, trained = chosen(folder, samples=64)
    assert len(ids(found)) == 4
    groups = {sample.group for sample in found.samples}
    copies = {f"a{n}" for n in range(20) if f"g{n // 2}" in groups}
    assert trained == {f"a{n}" for n in range(20)} - copies


def test_rows_too_few_to_hold_some_out_are_refused(write: Write) -> None:
    with pytest.raises(UserError, match="too few training rows"):
        chosen(write("a", lambda _: {"group": "one picture"}, train=6))


def test_all_samples_are_taken_if_there_are_fewer_than_asked_for_and_that_is_said(write: Write) -> None:
    found, _ = chosen(write("a", train=3, val=2))
    assert len(found.samples) == 2
    assert found.lines == ["evaluation.samples 4: there are 2, all of them are taken"]


def test_a_folder_of_its_own_is_taken_whole_if_it_has_neither_split(write: Write) -> None:
    found, trained = chosen(write("a", train=3, val=2), held=write("b", train=4))
    assert ids(found) == {"b0", "b1", "b2", "b3"}
    assert found.lines == []
    assert len(trained) == 3


def test_another_folder_gives_its_val_rows_also_if_those_of_the_training_folder_are_trained_on(write: Write) -> None:
    found, _ = chosen(write("a", train=3, val=2), split="val", held=write("b", train=2, val=3, test=2))
    assert ids(found) == {"b2", "b3", "b4"}
    assert found.lines == ["evaluation.samples 4: there are 3, all of them are taken"]


def test_of_several_training_folders_each_gives_its_val_rows(write: Write) -> None:
    found, _ = chosen([write("a", train=3, val=2), write("b", train=3, val=2)])
    assert {sample.id.rpartition(":")[2] for sample in found.samples} == {"a3", "a4", "b3", "b4"}


def test_rows_that_are_trained_on_are_refused(write: Write) -> None:
    folder = write("a", train=3, val=2)
    with pytest.raises(UserError, match="2 of its 2 rows are trained on"):
        chosen(folder, held=folder, split=None)


def test_labels_of_which_none_is_trained_are_refused(write: Write) -> None:
    strange = write("b", lambda n: {"label": ("calm", "tense")[n % 2]}, train=2)
    with pytest.raises(UserError, match=r"labels \(calm, tense\) of which none is trained on \(fear, joy\)"):
        chosen(write("a", train=3), held=strange)


def test_an_image_that_cannot_be_opened_is_refused(write: Write, tmp_path: Path) -> None:
    broken = write("b", train=2)
    (tmp_path / "b" / "a.png").write_bytes(b"nothing")
    with pytest.raises(UserError, match="held-out sample 'b0'"):
        chosen(write("a", train=3), held=broken)


def test_perception_is_measured_where_the_scene_is_known_and_refused_where_it_is_not(
    write: Write, tmp_path: Path
) -> None:
    plain, _ = chosen(write("a", train=3, val=2))
    assert list(checks_on(plain.samples, plain.sources, "steps", "accuracy")) == ["accuracy", "format"]
    with pytest.raises(UserError, match=r"evaluation\.metric perception: needs three steps on drawn pictures"):
        checks_on(plain.samples, plain.sources, "steps", "perception")
    write_domain(tmp_path / "drawn", DOMAINS["scenes8"], seed=0, sizes={"train": 3, "val": 2})
    drawn, _ = chosen(str(tmp_path / "drawn"))
    assert "perception" in checks_on(drawn.samples, drawn.sources, "steps", "perception")
    with pytest.raises(UserError, match="this way of thinking"):
        checks_on(drawn.samples, drawn.sources, "direct", "perception")
