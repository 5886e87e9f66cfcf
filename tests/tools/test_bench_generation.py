"""The profile of generation: parts that add up to the whole, and what ended rows would have cost."""

import pytest

from emor3.tools.bench.ways import BenchSettings
from generation import PREFILL, REST, Rollout, measure, to_markdown


def test_parts_are_medians_with_their_share_and_rollouts_are_held_against_computing_every_row_to_the_end() -> None:
    rollouts = [Rollout({"a": 1.0, REST: 3.0}, [10, 30], 4.0, 8.0), Rollout({"a": 2.0, REST: 2.0}, [20, 20], 4.0, 4.0)]
    lines = to_markdown(rollouts, {"images": 1}).splitlines()
    assert f"| {REST} | 2.500 | 62% |" in lines  # 2.5 of 1.5 + 2.5
    assert "| a | 1.500 | 38% |" in lines
    assert lines[-2:] == ["| 2 | 20.0 | 30 | 0.50 |", "| 2 | 20.0 | 20 | 1.00 |"]


@pytest.mark.slow
def test_every_part_of_a_rollout_is_timed_and_both_ways_sample_the_same_tokens() -> None:
    (rollout,) = measure(BenchSettings(images=1, completions=2, max_tokens=24, rounds=1))
    assert len(rollout.lengths) == 2
    assert max(rollout.lengths) <= 24
    assert len(rollout.parts) == 9
    assert all(seconds > 0 for seconds in rollout.parts.values())
    assert rollout.parts[PREFILL] < sum(rollout.parts.values())
