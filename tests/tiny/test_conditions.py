"""The figures of the five conditions, on groups small enough to count by hand."""

import pytest

from conditions import Group, group_figures


def test_figures_of_two_groups_are_counted_by_hand() -> None:
    # Group 1: right 0.9 and 0.4, wrong 0.6 and 0.4: of four pairs 0.9 wins two, 0.4 loses one and ties one: 2.5 / 4.
    first = Group(exact=(True, True, False, False), right=(True, False, True, True), yes=(0.9, 0.4, 0.6, 0.4))
    second = Group(exact=(True,) * 4, right=(True, True, False, False), yes=(0.5,) * 4)  # not mixed: no AUC
    values = [figure.value for figure in group_figures([first, second], rounds=10).values()]
    # exact 2 + 4 of 8; mixed 1 of 2; AUC of the one mixed group; wrong step 1 in 2 of 5 right labels; right 5 of 8
    assert values == pytest.approx([6 / 8, 1 / 2, 2.5 / 4, 2 / 5, 5 / 8])


def test_intervals_are_over_images_and_hold_the_figure() -> None:
    groups = [Group((True, False), (True, True), (1.0, 0.0)), Group((True, True), (True, True), (1.0, 1.0))] * 20
    mixed = group_figures(groups)["1 groups mixed"]
    assert mixed.low < mixed.value < mixed.high
    assert mixed.n == 40
