"""Saved evaluations are compared on the same items under the same judge, or the reason is given."""

from pathlib import Path

import pytest

from emor3.cli.main import app
from emor3.errors import UserError
from emor3.evaluation.compare import compare_check, compare_evaluations
from emor3.runs.predictions import SavedEvaluation, read_evaluation
from emor3.stats.classification import is_correct
from emor3.stats.uncertainty import holm, mcnemar
from made_up import prediction, save_evaluation


def folder_of(
    path: Path, right: list[bool], judge: str = "judge", ids: list[str] | None = None, thinking: str = "steps"
) -> SavedEvaluation:
    """An evaluation with joy as the truth everywhere and the outcomes given."""
    ids = ids or [f"s{place}" for place in range(len(right))]
    made = [prediction("joy", "joy" if hit else "fear", id=name) for hit, name in zip(right, ids, strict=True)]
    return read_evaluation(save_evaluation(path, {"d": made}, judge=judge, thinking=thinking))


BEFORE, AFTER = [True] * 3 + [False] * 17, [True] * 15 + [False] * 5


def test_the_change_and_its_test_are_those_of_the_paired_items(tmp_path: Path) -> None:
    rows, left_out = compare_evaluations([folder_of(tmp_path / "a", BEFORE), folder_of(tmp_path / "b", AFTER)])
    by_figure = {row.figure: row for row in rows}
    accuracy = by_figure["accuracy"]
    assert left_out == []
    assert accuracy.values == (0.15, 0.75)
    assert accuracy.difference.value == pytest.approx(0.6)
    assert accuracy.p_value == pytest.approx(mcnemar(BEFORE, AFTER)) == pytest.approx(2 * 0.5**12)  # 12 gained, 0 lost
    assert by_figure["consistency"].p_value == 1
    assert by_figure["macro_f1"].p_value is None


def test_p_values_are_corrected_over_all_tests_of_the_comparison(tmp_path: Path) -> None:
    rows, _ = compare_evaluations([folder_of(tmp_path / "a", BEFORE), folder_of(tmp_path / "b", AFTER)])
    tests = [row for row in rows if row.p_value is not None]
    changed = [row for row in tests if row.p_value < 1]
    smallest = min(tests, key=lambda row: row.p_value)
    assert len(changed) == 2  # accuracy, and agreement: the judge always reads joy
    assert smallest.adjusted == pytest.approx(smallest.p_value * len(tests))  # Holm: the smallest times their number


def test_other_samples_are_not_compared_and_the_rest_still_is(tmp_path: Path) -> None:
    first = folder_of(tmp_path / "a", BEFORE)
    other = folder_of(tmp_path / "b", AFTER, ids=[f"t{place}" for place in range(20)])
    third = folder_of(tmp_path / "c", AFTER)
    rows, left_out = compare_evaluations([first, other, third])
    assert {row.after for row in rows} == {str(tmp_path / "c")}
    assert len(left_out) == 1
    assert "other samples of d" in left_out[0]


def test_opinions_of_two_judges_are_not_compared(tmp_path: Path) -> None:
    rows, left_out = compare_evaluations(
        [folder_of(tmp_path / "a", BEFORE), folder_of(tmp_path / "b", AFTER, judge="another")]
    )
    assert {row.figure for row in rows} == {"accuracy", "macro_f1", "format", "step3_polarity", "step3_arousal"}
    assert "judged by another" in left_out[0]


def test_figures_that_one_way_of_thinking_lacks_are_not_compared(tmp_path: Path) -> None:
    rows, _ = compare_evaluations(
        [folder_of(tmp_path / "a", BEFORE), folder_of(tmp_path / "b", AFTER, thinking="direct")]
    )
    assert {row.figure for row in rows} == {"accuracy", "macro_f1", "format"}


def test_the_command_prints_a_table_and_ends_with_1_where_something_was_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, ids in (("a", None), ("b", None), ("c", [f"t{place}" for place in range(20)])):
        folder_of(tmp_path / name, BEFORE, ids=ids)
    assert app(["compare", str(tmp_path / "a"), str(tmp_path / "b")], standalone_mode=False) == 0
    assert "accuracy" in capsys.readouterr().out
    assert app(["compare", str(tmp_path / "a"), str(tmp_path / "c")], standalone_mode=False) == 1
    assert "left out" in capsys.readouterr().err


def test_one_evaluation_is_nothing_to_compare(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="at least two"):
        compare_evaluations([folder_of(tmp_path / "a", BEFORE)])


def test_holm_multiplies_each_p_value_by_the_tests_left_and_never_falls() -> None:
    # in order 0.01 * 3 = 0.03, 0.03 * 2 = 0.06, 0.04 * 1 = 0.04, which may not fall below 0.06
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06})
    assert holm({"a": 0.7, "b": 0.6}) == {"a": 1.0, "b": 1.0}  # 0.6 * 2 is no probability
    assert holm({}) == {}


def test_a_paired_test_needs_the_same_samples_in_the_same_order() -> None:
    one, other = prediction("joy", "joy", id="one"), prediction("joy", "joy", id="other")
    with pytest.raises(UserError, match="same samples"):
        compare_check([one, other], [other, one], is_correct)
