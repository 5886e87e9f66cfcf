"""Settings that a resumed run may change, since they do not change what is learnt; any other change is refused."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from emor3.errors import UserError
from emor3.runs.recipe import Recipe

HARMLESS = {
    "output_dir",
    *("grpo.save_steps", "grpo.save_total_limit"),
    *("grpo.report_to", "grpo.run_name"),
    *("judge.endpoint.base_url", "judge.endpoint.timeout", "judge.endpoint.retries", "judge.endpoint.concurrency"),
    *("grpo.vllm_server_base_url", "grpo.vllm_server_host", "grpo.vllm_server_port", "grpo.vllm_group_port"),
    "grpo.vllm_server_timeout",
    "evaluation.every",
    # The same sums in another order, for a run that lacks memory: equal up to rounding, and to masks of LoRA dropout.
    *("grpo.gradient_checkpointing", "grpo.activation_checkpointing", "judge.batch_size"),
}
MAX_STEPS = "grpo.max_steps"
"""May be raised if neither learning rate nor reward depends on it."""
HELD_OUT_DATA = "evaluation.data"
"""May move, since the ids of its samples are compared (`heldout`); null takes them from the training data."""
UNSET = "unset"
MOST_CHARACTERS = 100
"""Longest value that a message shows whole."""


@dataclass(frozen=True)
class Change:
    """A setting, by its name in `--set`, before and after."""

    setting: str
    before: Any
    after: Any
    harmless: bool

    def __str__(self) -> str:
        return f"{self.setting} {_short(self.before)} -> {_short(self.after)}"


def _short(value: Any) -> str:
    written = str(value)
    return written if len(written) <= MOST_CHARACTERS else f"{written[:MOST_CHARACTERS]}…"


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    """What differs between two resolved recipes, of which the first may be older than some settings."""
    found = []
    for setting, old, new in _differences(_completed(before), after):
        longer = isinstance(old, int) and isinstance(new, int) and new > old
        prolonged = setting == MAX_STEPS and longer and all(map(_is_constant, (before, after)))
        moved = setting == HELD_OUT_DATA and None not in (old, new)
        found.append(Change(setting, old, new, prolonged or moved or setting in HARMLESS))
    return found


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    """What differs between two records in which nothing may change."""
    return [Change(setting, old, new, harmless=False) for setting, old, new in _differences(before, after)]


def _completed(recorded: Mapping[str, Any]) -> Mapping[str, Any]:
    """A recorded recipe with later settings at their defaults, which are what a run did before it could be set."""
    try:
        return Recipe.model_validate(recorded).model_dump()
    except (ValidationError, UserError):  # it holds what is refused by now, which is then told as a change
        return recorded


def _is_constant(recipe: Mapping[str, Any]) -> bool:
    grpo, reward = recipe.get("grpo"), recipe.get("reward")
    anneals = isinstance(reward, Mapping) and reward.get("anneal")
    return isinstance(grpo, Mapping) and grpo.get("lr_scheduler_type") == "constant" and not anneals


def _differences(
    before: Mapping[str, Any], after: Mapping[str, Any], place: str = ""
) -> Iterator[tuple[str, Any, Any]]:
    for key in [*before, *(key for key in after if key not in before)]:
        old, new = before.get(key, UNSET), after.get(key, UNSET)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from _differences(old, new, f"{place}{key}.")
        elif old != new:
            yield f"{place}{key}", old, new
