"""The draw is the same for every reviewer, and a mark that was made is there again, for its completion alone."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from emor3.errors import UserError
from emor3.method.thinking import parse
from emor3.method.types import Prediction
from emor3.review.draw import Drawn, draw
from emor3.review.marks import append_mark, fingerprint, is_marks_file, marks_file, read_marks
from emor3.runs.predictions import SavedEvaluation, read_evaluation
from made_up import prediction, save_evaluation
from marked import mark


def evaluation(folder: Path, answer: str = "joy", number: int = 12, **head: Any) -> SavedEvaluation:
    made = [prediction("joy", answer, id=f"s{place}") for place in range(number)]
    return read_evaluation(save_evaluation(folder, {"d": made}, **head))


def names(drawn: list[Drawn]) -> list[tuple[str, str]]:
    """Sample and completion of each, in order."""
    return [(one.prediction.sample.id, fingerprint(one.prediction)) for one in drawn]


def test_the_draw_is_the_seeds_and_not_the_folders(tmp_path: Path) -> None:
    here = [evaluation(tmp_path / "a", "joy"), evaluation(tmp_path / "b", "fear")]
    there = [evaluation(tmp_path / "c", "fear"), evaluation(tmp_path / "d", "joy")]
    assert names(draw(here, 10, 0)) == names(draw(there, 10, 0))
    assert names(draw(here, 10, 0)) != names(draw(here, 10, 1))


def test_models_have_equally_many_on_the_same_samples_and_do_not_stand_together(tmp_path: Path) -> None:
    drawn = draw([evaluation(tmp_path / "a", "joy"), evaluation(tmp_path / "b", "fear")], 20, 0)
    folders = [one.evaluation.folder.name for one in drawn]
    assert folders.count("a") == folders.count("b") == 10
    samples = {
        folder: {one.prediction.sample.id for one in drawn if one.evaluation.folder.name == folder} for folder in "ab"
    }
    assert samples["a"] == samples["b"]
    assert 3 < sum(first != last for first, last in pairwise(folders)) < 19  # 10 if shuffled


def test_a_larger_draw_holds_a_smaller_one_in_its_order(tmp_path: Path) -> None:
    found = [evaluation(tmp_path / "a", "joy"), evaluation(tmp_path / "b", "fear")]
    small, large = names(draw(found, 7, 3)), names(draw(found, 18, 3))
    assert [one for one in large if one in small] == small
    assert len(draw(found, 1000, 3)) == 24


def test_what_has_no_steps_is_not_drawn(tmp_path: Path) -> None:
    bare = Prediction(prediction("joy", "joy", id="bare").sample, "joy", parse("joy"), None)
    some = read_evaluation(save_evaluation(tmp_path / "a", {"d": [bare, prediction("joy", "joy", id="s")]}))
    assert [one.prediction.sample.id for one in draw([some], 9, 0)] == ["s"]
    none = read_evaluation(save_evaluation(tmp_path / "b", {"d": [bare]}))
    with pytest.raises(UserError, match="nothing to mark"):
        draw([none], 9, 0)


def test_the_last_mark_of_a_reviewer_on_a_completion_counts(tmp_path: Path) -> None:
    found = evaluation(tmp_path / "a")
    one, other = found.predictions["d"][:2]
    for given in (mark(one, "anna", "fear"), mark(other, "anna", "joy"), mark(one, "anna", None)):
        append_mark(marks_file(found.folder, "anna"), given)
    append_mark(marks_file(found.folder, "ben"), mark(one, "ben", "joy"))
    marks = read_marks(found)
    assert {who: [m.emotion for m in of.values()] for who, of in marks.by_reviewer.items()} == {
        "anna": [None, "joy"],
        "ben": ["joy"],
    }
    assert marks.left_out == []


def test_a_line_that_a_kill_cut_short_is_dropped_by_the_next_mark(tmp_path: Path) -> None:
    found = evaluation(tmp_path / "a")
    file = marks_file(found.folder, "anna")
    append_mark(file, mark(found.predictions["d"][0], "anna"))
    with file.open("a") as cut:
        cut.write('{"data": "d", "id": "s')
    assert len(read_marks(found).by_reviewer["anna"]) == 1
    append_mark(file, mark(found.predictions["d"][1], "anna"))
    assert len(read_marks(found).by_reviewer["anna"]) == 2
    assert [json.loads(line)["id"] for line in file.read_text().splitlines()] == ["s0", "s1"]


def test_marks_on_another_completion_do_not_count_and_are_told(tmp_path: Path) -> None:
    before, after = evaluation(tmp_path / "a", "joy"), evaluation(tmp_path / "b", "fear")
    append_mark(marks_file(after.folder, "anna"), mark(before.predictions["d"][0], "anna"))
    append_mark(marks_file(after.folder, "anna"), mark(after.predictions["d"][1], "anna"))
    marks = read_marks(after)
    assert [sample for _, sample in marks.by_reviewer["anna"]] == ["s1"]
    (line,) = marks.left_out
    assert "marks-anna.jsonl: marks on other completions than those of the evaluation: 1" in line


def test_a_mark_that_names_no_label_is_refused_with_its_line(tmp_path: Path) -> None:
    found = evaluation(tmp_path / "a")
    append_mark(marks_file(found.folder, "anna"), mark(found.predictions["d"][0], "anna", "boredom"))
    with pytest.raises(UserError, match=r"marks-anna.jsonl line 1: 'boredom' is none of the labels"):
        read_marks(found)


@pytest.mark.parametrize("name", ["", "../anna", "a/b", "a b", ".anna", "-n", "x" * 41, "a\x00"])
def test_a_name_that_is_no_part_of_a_file_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="--reviewer"):
        marks_file(tmp_path, name)


@pytest.mark.parametrize("name", ["anna", "anna.b-2_x", "Зоя"])
def test_a_reviewers_file_is_known_by_its_name(tmp_path: Path, name: str) -> None:
    assert is_marks_file(marks_file(tmp_path, name).name)


def test_a_mark_cannot_be_lost_silently(tmp_path: Path) -> None:
    found = evaluation(tmp_path / "a")
    (tmp_path / "a" / "marks-anna.jsonl").mkdir()
    with pytest.raises(UserError, match="cannot write to"):
        append_mark(marks_file(found.folder, "anna"), mark(found.predictions["d"][0], "anna"))
