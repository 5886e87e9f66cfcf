"""The profile of generation: parts that add up to the whole."""

import pytest

from emor3.tools.bench.ways import BenchSettings
from generation import PREFILL, REST, Rollout, measure, to_markdown


def test_parts_are_medians_with_their_share_and_the_page_says_how_long_completions_are() -> None:
    rollouts = [Rollout({"a": 1.0, REST: 3.0}, [10, 30]), Rollout({"a": 2.0, REST: 2.0}, [20, 20])]
    page = to_markdown(rollouts, {"images": 1})
    lines = page.splitlines()
    assert f"| {REST} | 2.500 | 62% |" in lines  # 2.5 of 1.5 + 2.5
    assert "| a | 1.500 | 38% |" in lines
    assert "have 20.0 tokens on average and 30 at most" in page  # 80 tokens of four completions


@pytest.mark.slow
def test_every_part_of_a_rollout_is_timed() -> None:
    (rollout,) = measure(BenchSettings(images=1, completions=2, max_tokens=24, rounds=1))
    assert len(rollout.lengths) == 2
    assert max(rollout.lengths) <= 24
    assert len(rollout.parts) == 9
    assert all(seconds > 0 for seconds in rollout.parts.values())
    assert rollout.parts[PREFILL] < sum(rollout.parts.values())
