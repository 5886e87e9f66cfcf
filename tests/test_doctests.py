"""The worked examples in docstrings: each gives what it says, and the central functions have one."""

import doctest
import re
from importlib import import_module
from typing import Any

import pytest

import emor3
from places import ROOT

SOURCE = ROOT / "src"
FILES = sorted(path for path in (SOURCE / "emor3").rglob("*.py") if ">>>" in path.read_text("utf-8"))
CENTRAL = {
    "method.labels": ("normalise", "affirmed", "mask"),
    "method.thinking": ("parse",),
    "method.reflection": ("reflect",),
    "method.rewards": ("score", "consistency_value"),
    "method.group_rewards": ("vote_values", "without_failed_parts", "relative_values", "trust_weight", "in_form"),
    "scoring.saved": ("score_row",),
    "scoring.rows": ("score_rows",),
    "stats.uncertainty": (
        *("proportion", "wilson", "mean", "means", "bootstrap", "bootstraps", "resample", "by_cluster"),
        *("compare_hits", "mcnemar", "sign_flip", "holm"),
    ),
    "stats.seeds": ("share_table", "pseudo_values", "compare_seeds", "hierarchical_bootstrap", "seed_band"),
    "stats.power": ("spread_of_shares", "detectable", "smallest_effect", "images_needed", "seeds_needed"),
    "stats.mixed": ("mixed_model",),
    "data.folders": ("load_samples",),
    "judges.local": ("best_candidate",),
    "judges.endpoint": ("candidate_probabilities",),
    "storage.cells": ("to_cell", "from_cell"),
    "models.prefix_cache": ("Prefix", "distinct"),
    "models.packing.rows": ("PackedRows",),
    "models.packing.work": ("shared_out", "cheapest_rows"),
    "models.architectures": ("split_images",),
    "training.scorer": ("by_group",),
    "training.dynamic_sampling": ("replace_rows",),
    "training.trainer": ("equal_rewards", "runs"),
}


def module_name(path: Any) -> Any:
    return ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_the_examples_of_a_module_give_what_they_say(path: Any) -> None:
    found = doctest.testmod(import_module(module_name(path)))
    assert found.attempted > 0
    assert found.failed == 0


@pytest.mark.parametrize(("module", "names"), CENTRAL.items(), ids=list(CENTRAL))
def test_central_functions_have_a_worked_example(module: Any, names: Any) -> None:
    functions = vars(import_module(f"{emor3.__name__}.{module}"))
    assert [name for name in names if ">>>" not in functions[name].__doc__] == []


def test_docstrings_tell_conditions_by_if_and_when() -> None:
    """As the field writes: "where" is for places and shapes."""
    texts = [path.read_text("utf-8") for path in (SOURCE / "emor3").rglob("*.py")]
    docstrings = " ".join(part for text in texts for part in re.findall(r'"""(.*?)"""', text, re.DOTALL))
    assert len(re.findall(r"\bwhere\b", docstrings)) < len(re.findall(r"\b(?:if|when)\b", docstrings)) / 2
