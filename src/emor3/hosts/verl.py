"""verl: `compute_score` for `reward.custom_reward_function`, and a reward manager with the same scores.

    reward.custom_reward_function.path=pkg://emor3.hosts.verl

verl asks for one completion at a time; those of a worker that come within moments are scored as one batch. It has no
group and no other rows, so each row names its distractors, and a judge that fails ends the run.
"""

from functools import cache, partial
from typing import Any

from emor3.hosts.scoring import batching
from emor3.hosts.versions import VERL, check_trainer


async def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: str,
    extra_info: Any = None,
    settings: str | None = None,
    **_: Any,
) -> dict[str, float]:
    """`score`, `acc` (which verl validates by) and the further parts of a completion; `ground_truth` is a packed row.

    `settings` is a file (`reward.custom_reward_function.reward_kwargs`).
    Raises JudgeFailedError, and UserError as `Scorer.score` and for a verl older than the one that was run.
    """
    check_trainer(VERL)
    found = await batching(settings).score(ground_truth, solution_str)
    return {"score": found.pop("total"), "acc": found.pop("accuracy"), **found}


def __getattr__(name: str) -> Any:
    """`EmotionRewardManager`, for `reward.reward_manager`: made when it is asked for, since it needs verl."""
    if name != "EmotionRewardManager":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _manager()


@cache
def _manager() -> type:
    from verl.experimental.reward_loop.reward_manager.naive import NaiveRewardManager

    class EmotionRewardManager(NaiveRewardManager):  # type: ignore[misc, unused-ignore]
        """verl's plain manager with our scores; its settings file is `reward.reward_kwargs.settings`."""

        def __init__(self, config: Any, tokenizer: Any, compute_score: Any = None, **given: Any) -> None:
            settings = (config.reward.get("reward_kwargs") or {}).get("settings")
            super().__init__(config, tokenizer, partial(_score, settings), **given)

    return EmotionRewardManager


async def _score(settings: str | None, **given: Any) -> dict[str, float]:
    return await compute_score(settings=settings, **given)
