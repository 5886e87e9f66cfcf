"""How a host pays: the blocks `thinking`, `reward` and `judge` of a recipe, in a YAML file of their own."""

import os
from pathlib import Path

from pydantic import Field, ValidationError

from emor3.errors import UserError
from emor3.judges.settings import JudgeBlock
from emor3.method.rewards import RewardSettings, check_thinking
from emor3.method.thinking import Thinking
from emor3.settings import Block, describe_fault
from emor3.storage.yaml_text import read_yaml

VARIABLE = "EMOR3_REWARD"
"""The environment variable that names the file, for hosts that hand a reward no options."""
JUDGES = ("endpoint", "checkpoint")
"""Judges that a reward can have without the trainer's policy."""


class HostSettings(Block):
    """What the reward in another trainer is made of."""

    thinking: Thinking = "steps"
    """How completions think, as in a recipe."""
    reward: RewardSettings = Field(default_factory=RewardSettings)
    """Weights and switches of the reward, as in a recipe."""
    judge: JudgeBlock | None = None
    """Who judges: `model: endpoint` or `model: checkpoint` (frozen, in this process); None if nothing is asked."""


def read_settings(path: str | None, *, whole_groups: bool) -> HostSettings:
    """Settings of a file; by default the one that the environment names, else the defaults.

    `whole_groups` says whether the host hands over all completions of a prompt at once.
    Raises UserError for a file that cannot be used, and for what the host cannot do.
    """
    path = path or os.environ.get(VARIABLE) or None
    content = {} if path is None else read_yaml(Path(path), "reward settings")
    try:
        settings = HostSettings.model_validate({} if content is None else content)
        check(settings, whole_groups)
    except ValidationError as error:
        raise UserError(f"{path}: {describe_fault(error, HostSettings)}") from None
    except UserError as error:
        raise UserError(f"{path or 'reward settings'}: {error}") from None
    return settings


def check(settings: HostSettings, whole_groups: bool, judges: tuple[str, ...] = JUDGES) -> None:
    """Raise UserError for settings that would be weaker in a host than they are in a run of ours."""
    reward = settings.reward
    check_thinking(reward, settings.thinking)
    if settings.judge is not None and (settings.judge.model not in judges or settings.judge.coherence is not None):
        named = "judge.coherence policy" if settings.judge.coherence else f"judge.model {settings.judge.model}"
        raise UserError(f"{named}: a reward in another trainer has the judges {' and '.join(judges)}")
    if reward.own:
        raise UserError(f"reward.own.{next(iter(reward.own))}: parts of one's own run in score_rows and emor3 train")
    if reward.advantages == "separate":
        raise UserError("reward.advantages separate is what a trainer makes of parts: set it there, and leave it out")
    forms = {"votes": reward.votes > 0, "relative": reward.relative, "trust": reward.trust}
    for name, wanted in forms.items():
        if wanted and not whole_groups:
            raise UserError(
                f"reward.{name} compares the completions of a prompt, and this host may hand over a part of them: "
                "leave it out, or use EasyR1 or emor3 train"
            )
