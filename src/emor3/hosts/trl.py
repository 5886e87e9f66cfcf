"""TRL: reward functions by dotted path for `trl grpo`, and an object for `GRPOTrainer` that asks the policy itself.

    trl grpo --reward_funcs emor3.hosts.trl.accuracy emor3.hosts.trl.format --reward_weights 0.9 0.1 ...

Rows have the column `emor3` (`emor3 data export --for trl`). Settings of the dotted functions, and the judge that
`consistency` and `coherence` need, stand in the file that the environment variable EMOR3_REWARD names.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import emor3.models.processors  # noqa: F401  # without torchvision, `trl grpo` then loads processors with video parts all the same
from emor3.errors import UserError
from emor3.hosts.rows import COLUMN
from emor3.hosts.scoring import Scorer, SharedParts, scorer
from emor3.hosts.settings import HostSettings, check
from emor3.hosts.versions import TRL, check_trainer
from emor3.method.rewards import RewardSettings, paid_weights
from emor3.method.thinking import Thinking
from emor3.method.types import Judge

if TYPE_CHECKING:
    from transformers import TrainerCallback


class PartFunction:
    """One part of the reward as a reward function; its name is what TRL's trackers show.

    A part without a value is None, which TRL leaves out of the sum: for all completions of the prompt.
    """

    def __init__(self, part: str, shared: SharedParts) -> None:
        self.part = part
        self.shared = shared
        self.__name__ = part

    def __call__(self, completions: Sequence[Any], **columns: Any) -> list[float | None]:
        """Values of N completions. Raises UserError as `Scorer.score`, and without the column `emor3`."""
        return self.shared.values(self.part, columns.get(COLUMN), completions)


def _scorer() -> Scorer:
    check_trainer(TRL)
    return scorer(None, whole_groups=False)


_SHARED = SharedParts(_scorer)
accuracy = PartFunction("accuracy", _SHARED)
format = PartFunction("format", _SHARED)
consistency = PartFunction("consistency", _SHARED)
coherence = PartFunction("coherence", _SHARED)
confidence = PartFunction("confidence", _SHARED)


class PolicyRewards:
    """The reward for a `GRPOTrainer` of one's own, judged by the policy in a fresh context, as in the paper.

    rewards = PolicyRewards()
    GRPOTrainer(..., reward_funcs=rewards.functions, callbacks=[rewards.callback],
                args=GRPOConfig(reward_weights=rewards.weights, ...))
    """

    def __init__(self, settings: RewardSettings | None = None, *, thinking: Thinking = "steps") -> None:
        """Raises UserError for settings that need a whole group, or a run of ours, and for an old TRL."""
        check_trainer(TRL)
        chosen = HostSettings(reward=settings or RewardSettings(), thinking=thinking)
        check(chosen, whole_groups=False)
        self._judge: Judge | None = None
        shared = SharedParts(lambda: Scorer(chosen, self._policy))
        parts = paid_weights(chosen.reward)
        self.functions = [PartFunction(part, shared) for part in parts]
        self.weights = list(parts.values())
        self.callback: TrainerCallback = _binder(self)

    def judge_with(self, model: Any, processor: Any) -> None:
        """Have this model judge; the callback calls it with the trainer's own."""
        from emor3.judges.build import build_judge
        from emor3.judges.settings import JudgeBlock

        self._judge = build_judge(JudgeBlock(), model, processor)

    def _policy(self, settings: HostSettings) -> Judge:
        if self._judge is None:
            raise UserError("no policy to ask: give the trainer callbacks=[rewards.callback]")
        return self._judge


def _binder(rewards: PolicyRewards) -> "TrainerCallback":
    """A callback that hands the trainer's model to the rewards, once there is one."""
    from transformers import TrainerCallback

    class Binder(TrainerCallback):  # type: ignore[misc, unused-ignore]
        def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            rewards.judge_with(given["model"], given["processing_class"])

    return Binder()
