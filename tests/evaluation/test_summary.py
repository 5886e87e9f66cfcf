"""Figures of an evaluation are computed once, whoever asks for them."""

from pathlib import Path
from typing import Any

import pytest

from emor3.evaluation.compare import compare_evaluations
from emor3.evaluation.share import model_card_block
from emor3.evaluation.summary import summarise
from emor3.runs.predictions import read_evaluation
from emor3.stats import classification
from made_up import prediction, save_evaluation

MADE = [prediction("joy", answer, id=answer, votes={"joy": 1.0}, sampled=(answer,)) for answer in ("joy", "fear")]


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Statistics of confusion tables by call of the bootstrap, watched in our code: a second call gives the same."""
    calls, original = [], classification.bootstraps

    def counted(parts: Any, items: Any, seed: int) -> Any:
        calls.append(len(parts))
        return original(parts, items, seed)

    monkeypatch.setattr(classification, "bootstraps", counted)
    return calls


def test_an_evaluation_bootstraps_its_confusion_tables_once_and_those_of_the_majority_class_once(
    tables: list[int],
) -> None:
    summarise("d", MADE, "steps")
    assert tables == [3, 3]  # macro-F1, weighted F1 and balanced accuracy share the draws


def test_a_model_card_bootstraps_the_confusion_tables_of_a_data_set_once(tables: list[int], tmp_path: Path) -> None:
    saved = read_evaluation(save_evaluation(tmp_path / "e", {"d": MADE, "other": MADE}))
    tables.clear()
    model_card_block(saved)
    assert tables == [3, 3]


def test_a_comparison_bootstraps_the_change_of_macro_f1_alone(tables: list[int], tmp_path: Path) -> None:
    saved = [read_evaluation(save_evaluation(tmp_path / name, {"d": MADE})) for name in "ab"]
    tables.clear()
    compare_evaluations(saved)
    assert tables == [1]
