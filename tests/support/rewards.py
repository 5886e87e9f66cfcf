"""The paper's reward, for tests whose arithmetic is in its weights."""

from typing import Any

from emor3.method.rewards import PAPER, RewardSettings


def paper_reward(**changes: Any) -> RewardSettings:
    """Hard verdicts, weights 0.8, 0.1 and 0.1, no questions on other images; with changes."""
    return RewardSettings(**PAPER | changes)
