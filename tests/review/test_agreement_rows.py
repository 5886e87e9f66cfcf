"""The judge against people, and people with each other, in the table of `compare` and on the report's page."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from emor3.method.types import Finding, Prediction, Reflection, Verdict
from emor3.report.page import watch, write_report
from emor3.review.agreement import AgreementRow, agreement_rows, coefficient
from emor3.review.marks import append_mark, marks_file, read_marks
from emor3.runs.predictions import SavedEvaluation, read_evaluation
from made_up import prediction, save_evaluation
from marked import mark

JUDGED = [("Yes", "joy"), ("Yes", "joy"), ("No", "fear"), ("No", "fear"), ("Yes", "joy and fear")]
"""What the judge says of five completions: whether step 1 describes, and the emotion; the last one names none."""
PEOPLE: dict[str, list[tuple[bool, str | None]]] = {
    "anna": [(True, "joy"), (True, "joy"), (False, "fear"), (True, "joy"), (True, None)],
    "ben": [(True, "joy"), (False, "fear"), (False, "fear"), (True, "joy")],
}
"""What people say of them; Ben has not marked the last one."""


def five() -> list[Prediction]:
    return [prediction("joy", "joy", id=f"s{n}", judge=judge, reads=reads) for n, (judge, reads) in enumerate(JUDGED)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An evaluation of five completions that Anna and Ben marked."""
    where = save_evaluation(tmp_path / "a", {"d": five()}, model="base")
    for name, said in PEOPLE.items():
        for one, (describes, emotion) in zip(five(), said, strict=False):
            append_mark(marks_file(where, name), mark(one, name, emotion, describes=describes))
    return where


def rows_of(evaluation: SavedEvaluation) -> dict[str, AgreementRow]:
    return {row.question: row for row in agreement_rows("base", evaluation, read_marks(evaluation))}


def test_the_judge_is_held_against_each_person_and_people_against_each_other(folder: Path) -> None:
    row = rows_of(read_evaluation(folder))["step 1 describes"]
    assert row.reviewers == ["anna", "ben"]
    # Judge y y n n y. Anna y y n y y: same in 4 of 5, by chance 3/5 * 4/5 + 2/5 * 1/5 = 14/25: (20 - 14) / (25 - 14).
    # Ben y n n y against y y n n: same in 2 of 4, by chance 1/2: 0. Together 6 of 9, and the mean of 6/11 and 0.
    assert row.judge.share.value == pytest.approx(6 / 9)
    assert row.judge.kappa.value == pytest.approx(3 / 11)
    assert (row.judge.items, row.judge.share.n) == (5, 9)
    # Units of two: 18 ratings, 11 yes and 7 no; 6 of 18 in differing units. Chance 2 * 11 * 7 / (18 * 17).
    assert row.judge.alpha.value == pytest.approx(1 - (6 / 18) / (2 * 11 * 7 / (18 * 17)))
    # Anna y y n y, Ben y n n y: same in 3 of 4, by chance 3/4 * 1/2 + 1/4 * 1/2 = 1/2.
    assert (row.people.share.value, row.people.items) == (0.75, 4)
    assert row.people.kappa.value == pytest.approx(0.5)


def test_no_label_is_an_answer_like_the_labels(folder: Path) -> None:
    row = rows_of(read_evaluation(folder))["emotion of steps 1, 2"]
    # Judge joy joy fear fear none. Anna joy joy fear joy none: same in 4 of 5; by chance
    # 2/5 * 3/5 + 2/5 * 1/5 + 1/5 * 1/5 = 9/25, kappa 11/16. Ben joy fear fear joy: same in 2 of 4, by chance 1/2: 0.
    assert row.judge.kappa.value == pytest.approx(11 / 32)


def test_step_3_is_right_for_the_judge_if_its_signs_are_those_of_the_emotion_that_it_reads(folder: Path) -> None:
    row = rows_of(read_evaluation(folder))["step 3 follows"]
    # Step 3 says positive, high arousal: so of joy, not of fear; the judge reads neither in the last. People say it
    # follows throughout: same in 2 of 4 with Anna and with Ben.
    assert (row.judge.share.value, row.judge.items) == (0.5, 4)
    assert row.people.kappa is None


def test_a_judge_that_failed_or_cannot_be_read_has_no_answer(tmp_path: Path) -> None:
    failed = replace(five()[0], reflection=Reflection(Finding(Verdict.ERROR, reason="x"), Finding(Verdict.ERROR)))
    unread = prediction("joy", "joy", id="s1", judge="Maybe", reads="42")
    where = save_evaluation(tmp_path / "a", {"d": [failed, unread]})
    for one in (failed, unread):
        append_mark(marks_file(where, "anna"), mark(one, "anna"))
    rows = rows_of(read_evaluation(where))
    assert [row.judge for row in rows.values()] == [None, None, None]
    assert [row.people for row in rows.values()] == [None, None, None]


def test_an_evaluation_without_marks_has_no_rows(tmp_path: Path) -> None:
    assert rows_of(read_evaluation(save_evaluation(tmp_path / "a", {"d": five()}))) == {}


def test_compare_and_evaluate_from_print_the_agreement(
    main_with: Callable[..., int], folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], few_draws: None
) -> None:
    other = save_evaluation(tmp_path / "b", {"d": five()}, model="trained")
    assert main_with("compare", folder, other) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "marked by anna, ben" in printed
    assert printed.count("step 1 describes") == 2  # with people, and people with each other
    assert "66.7" in printed  # 6 of 9
    assert "0.27 [" in printed  # 3 / 11
    assert main_with("evaluate", "--from", folder) == 0
    assert "judge with people" in capsys.readouterr().out
    assert main_with("evaluate", "--from", other) == 0
    assert "judge with people" not in capsys.readouterr().out


def test_the_report_shows_the_agreement_and_names_marks_that_it_left_out(
    folder: Path, tmp_path: Path, few_draws: None
) -> None:
    append_mark(marks_file(folder, "zoe"), mark(prediction("joy", "joy", id="gone"), "zoe"))
    faults = write_report([folder], tmp_path / "report.html")
    assert list(faults) == [
        "a/marks-zoe.jsonl: marks on other completions than those of the evaluation: 1",
        "5 pictures cannot be read (the first is s2.png)",
    ]
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert '<section aria-labelledby="people">' in page
    assert "<td>0.27 <small>[" in page
    assert "marked by anna, ben" in page


def test_a_watched_report_sees_a_new_mark(folder: Path, tmp_path: Path, few_draws: None) -> None:
    def make_a_mark(_: float) -> None:
        append_mark(marks_file(folder, "zoe"), mark(five()[0], "zoe"))

    pages = watch([folder], tmp_path / "report.html", 1, sleep=make_a_mark)
    next(pages)
    next(pages)  # written anew for the one mark
    assert "marked by anna, ben, zoe" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_coefficient_is_printed_with_its_interval_or_said_to_be_none(folder: Path) -> None:
    row = rows_of(read_evaluation(folder))["step 1 describes"]
    assert coefficient(row.people.kappa).startswith("0.50 [")
    assert coefficient(None) == "none"
