"""The table of figures knows every figure that is computed, and everything that lists figures follows it."""

import ast
from dataclasses import replace

from emor3.evaluation.summary import summarise
from emor3.stats.figures import FIGURES, checks
from made_up import prediction
from places import ROOT


def test_every_figure_of_an_evaluation_stands_in_the_table_and_the_other_way_round() -> None:
    voted = [
        prediction("joy", name, id=name, votes={"joy": 1.0}, sampled=("joy",)) for name in ("joy", "fear", "anger")
    ]
    for place, made in enumerate(voted):
        stated = "".join(f"<{tag}>0.{place}</{tag}>" for tag in ("confidence", "valence", "arousal"))
        sample = replace(made.sample, valence=place / 2, arousal=place / 2)
        voted[place] = replace(made, completion=made.completion + stated, sample=sample)
    assert summarise("d", voted, "steps").figures.keys() == FIGURES.keys()


def test_ways_of_thinking_are_checked_for_what_their_completions_have() -> None:
    judged = {name for name, row in FIGURES.items() if row.judged}
    assert list(checks("direct")) == ["format"]
    assert checks("free").keys() == {"format", *judged}
    assert checks("steps").keys() == {"format", *judged, "step3_polarity", "step3_arousal"}
    assert checks("confidence") == checks("steps")


def test_no_other_module_lists_figures() -> None:
    """Five names in one tuple or dict are a list: but for the table, of what is computed or chosen there."""
    lists = []
    for path in (ROOT / "src" / "emor3").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            parts = node.elts if isinstance(node, ast.Tuple | ast.List) else getattr(node, "keys", [])
            names = [part.value for part in parts if isinstance(part, ast.Constant)] if isinstance(parts, list) else []
            if len(FIGURES.keys() & set(names)) >= 5:
                lists.append(path.stem)
    assert sorted(set(lists)) == ["distributions", "figures", "quickstart"]
