"""What a resumed run may change, and what it may not."""

from typing import Any, get_type_hints

import pytest
from trl import GRPOConfig

from emor3.heldout.settings import HeldOutBlock
from emor3.judges.settings import EndpointBlock, JudgeBlock
from emor3.runs.changes import HARMLESS, HELD_OUT_DATA, MAX_STEPS, changes
from emor3.runs.recipe import OWNED, Recipe
from emor3.training.trl_config import REFUSED


def resolved(**blocks: Any) -> dict[str, Any]:
    return Recipe.model_validate(
        {"output_dir": "x", "model": {"path": "y"}, "data": {"train": "z"}} | blocks
    ).model_dump()


def test_every_harmless_setting_exists() -> None:
    known = {f"grpo.{name}" for name in get_type_hints(GRPOConfig).keys() - OWNED.keys() - REFUSED.keys()}
    known |= {f"judge.{name}" for name in JudgeBlock.model_fields}
    known |= {f"judge.endpoint.{name}" for name in EndpointBlock.model_fields} | {"output_dir"}
    known |= {f"evaluation.{name}" for name in HeldOutBlock.model_fields}
    assert HARMLESS | {MAX_STEPS, HELD_OUT_DATA} <= known


@pytest.mark.parametrize(
    ("before", "after", "harmless"),
    [
        ({"every": 1}, {"every": 2}, True),
        ({"data": "here"}, {"data": "there"}, True),  # its samples are compared
        ({"data": None}, {"data": "there"}, False),  # rows that were held out would be trained on
        ({"samples": 8}, {"samples": 9}, False),
        ({"metric": "accuracy"}, {"metric": "format"}, False),
    ],
)
def test_the_rhythm_and_the_place_of_held_out_samples_may_change_but_not_what_they_are(
    before: dict[str, Any], after: dict[str, Any], harmless: bool
) -> None:
    (change,) = changes(resolved(evaluation=before), resolved(evaluation=after))
    assert change.harmless == harmless


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ({}, {"seed": 1}, "seed 0 -> 1"),
        ({}, {"judge": {"backend": "generate"}}, "judge.backend score -> generate"),
        ({"grpo": {"beta": 0.1}}, {"grpo": {}}, "grpo.beta 0.1 -> unset"),
        ({}, {"grpo": None}, "grpo {} -> None"),
        ({"grpo": {"per_device_train_batch_size": 8}}, {"grpo": {"per_device_train_batch_size": 4}}, "8 -> 4"),
        ({"model": {"path": "y", "lora": {"r": 2}}}, {"model": {"path": "y", "lora": {"r": 4}}}, "model.lora.r 2 -> 4"),
    ],
)
def test_what_could_alter_learning_is_not_harmless_and_tells_both_values(
    before: Any, after: dict[str, Any], told: str
) -> None:
    (change,) = changes(resolved(**before), resolved(**after))
    assert told in str(change)
    assert not change.harmless


def test_settings_that_a_recorded_run_did_not_know_yet_are_at_their_defaults() -> None:
    recorded = resolved()
    del recorded["reward"]["placebo"], recorded["judge"]["path"], recorded["dynamic_sampling"]
    assert changes(recorded, resolved()) == []
    (change,) = changes(recorded, resolved(reward={"placebo": True}))
    assert str(change) == "reward.placebo False -> True"


@pytest.mark.parametrize(
    ("before", "after", "harmless"),
    [
        ({"lr_scheduler_type": "constant", "max_steps": 4}, {"max_steps": 6}, True),
        ({"lr_scheduler_type": "constant", "max_steps": 4}, {"max_steps": 3}, False),
        ({"lr_scheduler_type": "constant"}, {"max_steps": 6}, False),  # how long it was follows from the data
        ({"lr_scheduler_type": "linear", "max_steps": 4}, {"max_steps": 6}, False),
        ({"max_steps": 4}, {"max_steps": 6}, False),  # linear is the Trainer's default
    ],
)
def test_a_run_may_only_become_longer_and_only_at_a_constant_learning_rate(
    before: dict[str, Any], after: dict[str, Any], harmless: bool
) -> None:
    (change,) = changes(resolved(grpo=before), resolved(grpo=before | after))
    assert change.harmless == harmless


def test_a_run_whose_reward_is_annealed_over_its_steps_may_not_become_longer() -> None:
    blocks = {"reward": {"anneal": True}, "grpo": {"lr_scheduler_type": "constant", "max_steps": 4}}
    (change,) = changes(resolved(**blocks), resolved(**blocks | {"grpo": blocks["grpo"] | {"max_steps": 6}}))
    assert not change.harmless
