"""For people who bring their own loop: our rewards as reward functions of TRL."""

from collections.abc import Callable, Mapping

from emor3.method.rewards import RewardSettings, check_thinking
from emor3.method.thinking import Thinking
from emor3.method.types import Judge, Rollout
from emor3.scoring.own import OwnJudge, RewardPart, check_handed_over
from emor3.training.scorer import BatchScorer, PartReward, part_rewards


def reward_functions(
    judge: Judge,
    generations: int,
    settings: RewardSettings | None = None,
    *,
    thinking: Thinking = "steps",
    own: Mapping[str, RewardPart] | None = None,
    record: Callable[[int, list[Rollout]], None] = lambda step, rollouts: None,
    seed: int = 0,
    steps: int = 1,
) -> tuple[list[PartReward], list[float]]:
    """Reward functions of TRL's GRPOTrainer, one for each part, and their weights for `GRPOConfig.reward_weights`.

    Rows need the column `sample` of `prompt_dataset`; `generations` is G of the trainer. All functions of a step share
    one scoring of its batch, which `record` gets with the step. `own` holds the functions of `settings.own`; `seed` and
    `steps` are those of the run, for `placebo` and `anneal`.
    Raises UserError for what is no judge, for parts of one's own without a function, and for a part that this way of
    thinking is not asked for.
    """
    settings, checked = settings or RewardSettings(), OwnJudge(judge)
    check_thinking(settings, thinking)
    check_handed_over(settings.own, own or {})
    scorer = BatchScorer(
        thinking, settings, generations, lambda: checked, record, seed=seed, steps=steps, own=own
    )  # the judge is there already, so it need not come late
    return part_rewards(scorer)
