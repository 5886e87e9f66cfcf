"""Saved evaluations are compared on the same items under the same judge, or the reason is given."""

from pathlib import Path
from typing import Any

import pytest

from emor3.cli.main import app
from emor3.errors import UserError
from emor3.evaluation.compare import compare_check, compare_evaluations, compare_groups
from emor3.runs.predictions import SavedEvaluation, read_evaluation
from emor3.stats.classification import is_correct
from emor3.stats.power import detectable, images_needed, seeds_needed, smallest_effect
from emor3.stats.uncertainty import holm, mcnemar
from made_up import prediction, save_evaluation


def folder_of(
    path: Path,
    right: list[Any],
    judge: str = "judge",
    ids: list[str] | None = None,
    thinking: str = "steps",
    model: str | None = None,
    **head: Any,
) -> SavedEvaluation:
    """An evaluation with joy as the truth everywhere and the outcomes given."""
    ids = ids or [f"s{place}" for place in range(len(right))]
    made = [prediction("joy", "joy" if hit else "fear", id=name) for hit, name in zip(right, ids, strict=True)]
    head |= {"model": model or str(path / "policy"), "judge": judge, "thinking": thinking}
    return read_evaluation(save_evaluation(path, {"d": made}, **head))


def runs_of(folder: Any, name: Any, rights: Any, **head: Any) -> list[Any]:
    """Runs of one method, one for each list of outcomes."""
    return [folder_of(folder / f"{name}{seed}", right, **head) for seed, right in enumerate(rights)]


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


# --- several runs of each method --------------------------------------------------------------------------------------

SEEDS_BEFORE = [[1, 0, 0, 1], [1, 0, 0, 0], [1, 1, 0, 1]]
ERROR = (19 / 432) ** 0.5
SEEDS_AFTER = [[1, 1, 0, 1], [1, 1, 0, 0], [1, 1, 1, 1]]


def test_runs_of_two_methods_are_tested_over_seeds_and_items(tmp_path: Path) -> None:
    rows, left_out = compare_groups([runs_of(tmp_path, "a", SEEDS_BEFORE), runs_of(tmp_path, "b", SEEDS_AFTER)])
    accuracy = next(row for row in rows if row.figure == "accuracy")
    assert left_out == []
    assert accuracy.values == pytest.approx((0.5, 0.75))  # 6 of 12, 9 of 12
    # Figures 0.5, 0.25, 0.75 and 0.75, 0.5, 1 add 2 * 0.0625 / 3; items change by 0, 2 / 3, 1 / 3, 0, of variance
    # 11 / 108, of which 10 / 108 are residuals: 2 tables of 5 / 6 over 2 * 3 degrees, over 3 runs:
    # 1 / 24 + 1 / 108 / 4.
    assert accuracy.seeds.standard_error == pytest.approx(ERROR)
    assert accuracy.p_value == accuracy.seeds.p_value == pytest.approx(0.293, abs=1e-3)  # the doctest of compare_seeds
    assert accuracy.before == f"{tmp_path / 'a0'} and 2 more seeds"
    macro_f1 = next(row for row in rows if row.figure == "macro_f1")
    assert macro_f1.p_value == macro_f1.seeds.p_value


def test_the_start_model_has_no_seeds_and_is_taken_as_it_is(tmp_path: Path) -> None:
    start = folder_of(tmp_path / "start", SEEDS_BEFORE[0], model="base")
    rows, _ = compare_groups([[start], runs_of(tmp_path, "b", SEEDS_AFTER, start="base")])
    assert rows[0].seeds.seeds == (1, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "one"}, "the same model as"),
        ({"ids": ["t0", "t1", "t2", "t3"]}, "other samples of d than"),
        ({"thinking": "free"}, "another way of thinking than"),
    ],
)
def test_what_cannot_be_runs_of_one_method_is_refused_in_one_line(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    first = folder_of(tmp_path / "a0", SEEDS_BEFORE[0], model="one")
    second = folder_of(tmp_path / "a1", SEEDS_BEFORE[1], **change)
    with pytest.raises(UserError, match=message):
        compare_groups([[first, second], runs_of(tmp_path, "b", SEEDS_AFTER)])


def test_one_run_against_several_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a0: one run against 3: give at least two of each"):
        compare_groups([runs_of(tmp_path, "a", SEEDS_BEFORE[:1]), runs_of(tmp_path, "b", SEEDS_AFTER)])


def test_another_judge_of_one_run_leaves_out_what_judges_said(tmp_path: Path) -> None:
    after = [*runs_of(tmp_path, "b", SEEDS_AFTER[:2]), folder_of(tmp_path / "c", SEEDS_AFTER[2], judge="another")]
    rows, left_out = compare_groups([runs_of(tmp_path, "a", SEEDS_BEFORE), after])
    assert {row.figure for row in rows} == {"accuracy", "macro_f1", "format", "step3_polarity", "step3_arousal"}
    assert "judged by another" in left_out[0]


def command_output(capsys: pytest.CaptureFixture[str], *arguments: Any) -> tuple[Any, ...]:
    status = app(["compare", *map(str, arguments)], standalone_mode=False)
    return status, " ".join(capsys.readouterr().out.split())


def groups_on(folder: Any) -> list[Any]:
    """Arguments of two methods of three runs each."""
    names = {"a": SEEDS_BEFORE, "b": SEEDS_AFTER}
    return [",".join(str(run.folder) for run in runs_of(folder, name, rights)) for name, rights in names.items()]


def test_the_command_takes_runs_of_one_method_with_commas_and_says_what_it_could_have_seen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out = command_output(capsys, *groups_on(tmp_path))
    assert status == 0
    assert "over seeds and items together" in out
    # Nine tests: accuracy, macro-F1 and seven checks. Two parts of seeds, 1 / 48 with 2 degrees, one of items with 3:
    freedom = ERROR**4 / (2 * (1 / 48) ** 2 / 2 + (1 / 432) ** 2 / 3)
    assert f"accuracy {100 * detectable(ERROR, freedom, 0.05 / 9):.1f}" in out


def test_two_models_are_told_what_their_test_could_have_seen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, right in (("a", BEFORE), ("b", AFTER)):
        folder_of(tmp_path / name, right)
    _, out = command_output(capsys, tmp_path / "a", tmp_path / "b")
    # 12 of 20 gained: variance 0.6 * 0.4 * 20 / 19 / 20. Eight tests: all but macro-F1
    assert "speak for these two models only" in out
    assert f"accuracy {100 * detectable((0.24 / 19) ** 0.5, 19, 0.05 / 8):.1f}" in out


def test_power_says_how_many_images_and_seeds_a_change_needs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    groups = groups_on(tmp_path)
    rows, _ = compare_groups([[read_evaluation(Path(path)) for path in group.split(",")] for group in groups])
    spread = rows[0].seeds.spread
    status, out = command_output(capsys, *groups, "--power", "--difference", 40)
    assert status == 0
    assert "to see a change of accuracy by 40.0 points" in out
    assert f"On 4 images {seeds_needed(spread, 0.4, 4)} seeds of each method will do" in out
    assert f" 10 {images_needed(spread, 0.4, 10)} {100 * smallest_effect(spread, 4, 10):.1f} " in out


def test_power_without_the_spread_of_seeds_is_refused_in_one_line(tmp_path: Path) -> None:
    for name in ("a", "b"):
        folder_of(tmp_path / name, BEFORE)
    with pytest.raises(UserError, match="at least two runs of each method"):
        app(["compare", str(tmp_path / "a"), str(tmp_path / "b"), "--power"], standalone_mode=False)
    with pytest.raises(UserError, match="--difference does nothing without --power"):
        app(["compare", str(tmp_path / "a"), str(tmp_path / "b"), "--difference", "3"], standalone_mode=False)


def test_holm_multiplies_each_p_value_by_the_tests_left_and_never_falls() -> None:
    # in order 0.01 * 3 = 0.03, 0.03 * 2 = 0.06, 0.04 * 1 = 0.04, which may not fall below 0.06
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06})
    assert holm({"a": 0.7, "b": 0.6}) == {"a": 1.0, "b": 1.0}  # 0.6 * 2 is no probability
    assert holm({}) == {}


def test_a_paired_test_needs_the_same_samples_in_the_same_order() -> None:
    one, other = prediction("joy", "joy", id="one"), prediction("joy", "joy", id="other")
    with pytest.raises(UserError, match="same samples"):
        compare_check([one, other], [other, one], is_correct)


def test_a_check_is_compared_on_the_samples_that_it_applies_to_in_both() -> None:
    answers = {"before": ("joy", None, "fear", "fear"), "after": ("joy", "joy", None, "joy")}
    before, after = ([prediction("joy", a, id=f"s{k}") for k, a in enumerate(given)] for given in answers.values())
    found = compare_check(before, after, lambda p: None if p.predicted is None else is_correct(p))
    assert found is not None
    assert (found.difference.n, found.difference.value) == (2, 0.5)  # the first as before, the last gained
    assert compare_check(before, after, lambda p: None) is None
