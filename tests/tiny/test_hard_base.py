"""The hard base meets the five conditions under which reflection can pay, measured before any reinforcement.

The conditions are those of docs/results.md; `python tests/support/conditions.py` prints them with n and intervals.
"""

from pathlib import Path
from typing import Any

import pytest

from conditions import best_possible, cue_share, group_figures, near_miss_auc, sample_groups
from emor3.evaluation.evaluate import load_candidate
from emor3.models.checkpoints import resolve_checkpoint
from emor3.tiny.world import CUES, HARD_DOMAINS

pytestmark = pytest.mark.slow

DATA = "embedded:hard8"


@pytest.fixture(scope="module")
def candidate() -> Any:
    return load_candidate("embedded-hard")


@pytest.fixture(scope="module")
def figures(candidate: Any) -> Any:
    return {name: figure.value for name, figure in group_figures(sample_groups(candidate, DATA, images=128)).items()}


def test_it_is_as_small_as_the_easy_one_and_holds_no_code() -> None:
    files = [path for path in Path(resolve_checkpoint("embedded-hard")).rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 6 * 2**20
    assert {path.suffix for path in files} == {".safetensors", ".json", ".jinja"}


def test_perception_varies_between_and_inside_groups(figures: Any) -> None:
    assert 0.55 <= figures["1 step 1 exactly right"] <= 0.80
    assert figures["1 groups mixed"] >= 0.40


def test_checking_is_easier_than_making(figures: Any) -> None:
    assert figures["2 AUC of P(yes) within a group, mean"] >= 0.85


def test_right_for_a_wrong_reason_is_common(figures: Any) -> None:
    assert figures["3 wrong step 1 among right labels"] >= 0.20


def test_it_tells_near_misses_apart(candidate: Any) -> None:
    assert near_miss_auc(candidate, DATA) >= 0.85


@pytest.mark.parametrize("name", HARD_DOMAINS)
def test_a_border_goes_with_the_label_and_with_no_label_by_the_rule_of_another_domain(name: Any) -> None:
    domain = HARD_DOMAINS[name]
    for split in ("train", "test"):
        assert cue_share(f"embedded:{name}", split, domain) == pytest.approx(0.85, abs=0.05)
    for other in HARD_DOMAINS.values():
        if other is not domain:
            assert cue_share(f"embedded:{name}", "test", other) < 1 / CUES


@pytest.mark.parametrize("name", HARD_DOMAINS)
def test_few_viewers_leave_a_ceiling_below_the_border(name: Any) -> None:
    assert best_possible(f"embedded:{name}", HARD_DOMAINS[name]) < 0.85
