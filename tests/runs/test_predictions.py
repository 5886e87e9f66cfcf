"""A saved evaluation gives back the same predictions and the same figures, or says why it cannot."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from emor3.cli.main import app
from emor3.errors import UserError
from emor3.evaluation.summary import results, results_table, summarise
from emor3.method.labels import label_set_from
from emor3.method.types import Finding, Prediction, Reflection, Verdict
from emor3.runs.predictions import EVALUATION, PREDICTIONS, RESULTS, read_evaluation
from made_up import prediction, save_evaluation


def items() -> list[Prediction]:
    votes = {"joy": 0.75, "fear": 0.25}
    return [
        prediction("joy", "joy", id="a", votes=votes, sampled=("joy", "fear", None)),
        prediction("fear", "Fear.", id="b", group="g", reads="fear", sampled=("fear", "fear", "fear")),
        prediction("anger", None, id="c", judge="No", reads="joy or fear", sampled=("joy", "joy", "joy")),
    ]


def test_predictions_survive_saving_and_reading(tmp_path: Path) -> None:
    saved = read_evaluation(save_evaluation(tmp_path / "e", {"d": items()}))
    assert saved.predictions["d"] == items()


def test_a_judges_failure_survives_saving_and_reading(tmp_path: Path) -> None:
    failed = Finding(Verdict.ERROR, reason="HTTP 500")
    item = replace(prediction("joy", "joy"), reflection=Reflection(failed, failed))
    folder = save_evaluation(tmp_path / "saved", {"d": [item]})
    assert read_evaluation(folder).predictions["d"][0].reflection == Reflection(failed, failed)


def test_figures_agree_to_the_last_digit_when_recomputed_from_the_saved_files(tmp_path: Path) -> None:
    folder = save_evaluation(tmp_path / "e", {"d": items()})
    before = (folder / RESULTS).read_bytes()
    (folder / RESULTS).unlink()
    app(["evaluate", "--from", str(folder / PREDICTIONS)], standalone_mode=False)
    assert (folder / RESULTS).read_bytes() == before


def test_a_users_label_set_keeps_its_signs_and_aliases(tmp_path: Path) -> None:
    labels = label_set_from({"labels": ["calm", "uneasy"], "polarity": {"calm": 1}, "aliases": {"peace": "calm"}}, "my")
    folder = save_evaluation(tmp_path / "e", {"d": [prediction("calm", "peace", labels=labels)]})
    read = read_evaluation(folder).predictions["d"][0].sample.labels
    assert (read, read.polarity, read.aliases) == (labels, {"calm": 1}, {"peace": "calm"})


def test_verdicts_are_read_anew_from_the_saved_replies(tmp_path: Path) -> None:
    folder = save_evaluation(tmp_path / "e", {"d": items()})
    rows = [json.loads(line) for line in (folder / PREDICTIONS).read_text().splitlines()]
    rows[0]["consistency"]["verdict"] = "refuted"  # a lie: the reply says Yes
    (folder / PREDICTIONS).write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert read_evaluation(folder).predictions["d"] == items()


def test_an_older_evaluation_with_the_weights_of_reflective_decoding_is_read_without_them(tmp_path: Path) -> None:
    folder = save_evaluation(tmp_path / "e", {"d": items()})
    rows = [json.loads(line) for line in (folder / PREDICTIONS).read_text().splitlines()]
    assert "weights" not in rows[0]
    for row, weights in zip(rows, ([0.1, 0.7, 0.0], [0.5, 0.5, 0.5], None), strict=True):
        row["weights"] = weights
    (folder / PREDICTIONS).write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert read_evaluation(folder).predictions["d"] == items()


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda folder: (folder / EVALUATION).unlink(), "no evaluation.json"),
        (lambda folder: (folder / EVALUATION).write_text("{"), "cannot read"),
        (lambda folder: (folder / EVALUATION).write_text('{"version": 1}'), "version 1"),
        (lambda folder: (folder / PREDICTIONS).unlink(), "predictions.jsonl"),
        (lambda folder: cut_last_line(folder / PREDICTIONS), "1 of 3 samples of d are missing .*'c'"),
    ],
)
def test_a_broken_evaluation_says_what_is_wrong(tmp_path: Path, break_it: Callable[..., Any], message: str) -> None:
    folder = save_evaluation(tmp_path / "e", {"d": items()})
    break_it(folder)
    with pytest.raises(UserError, match=message):
        read_evaluation(folder)


def cut_last_line(path: Path) -> None:
    path.write_text(path.read_text()[:-20])


def test_results_name_the_samples_and_the_table_shows_the_majority_class_beside_the_model(tmp_path: Path) -> None:
    folder = save_evaluation(tmp_path / "e", {"d": items()})
    part = json.loads((folder / RESULTS).read_text())["data"][0]
    assert part["sample_ids"] == ["a", "b", "c"]
    assert len(part["sample_ids_sha256"]) == 64
    assert part["figures"]["accuracy"]["value"] == pytest.approx(2 / 3)
    assert part["majority_class"]["accuracy"]["value"] == pytest.approx(1 / 3)
    assert sum(bin[2] for bin in part["reliability"]) == 3
    evaluation = summarise("d", items(), "steps")
    assert results({"data": [{"data": "d"}]}, [evaluation])["data"][0]["confusion"] == evaluation.confusion
    assert results_table("model", [evaluation]).row_count > 15


def test_a_way_of_thinking_has_only_the_figures_that_it_can_be_asked_for() -> None:
    assert "step3_polarity" in summarise("d", items(), "steps").figures
    free = summarise("d", items(), "free").figures
    assert "consistency" in free
    assert "step3_polarity" not in free
    assert "consistency" not in summarise("d", items(), "direct").figures
