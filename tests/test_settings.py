"""A number that nothing can be learnt with is refused in one line before anything is written."""

import dataclasses
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import typer
from trl import GRPOConfig

from emor3.cli.main import app
from emor3.data.settings import DataBlock
from emor3.errors import UserError
from emor3.evaluation.settings import EvaluationSettings
from emor3.heldout.settings import HeldOutBlock
from emor3.judges.settings import EndpointBlock, JudgeBlock
from emor3.method.rewards import OwnPart, RewardSettings
from emor3.models.settings import LoraBlock, ModelBlock
from emor3.runs.recipe import ColdStartBlock, Recipe, build_recipe
from emor3.settings import BOUNDS, MOST, Block
from emor3.training.run import train
from emor3.training.trl_config import REFUSED, grpo_config

HINTS = get_type_hints(GRPOConfig)
UNBOUNDED = {"pad_to_multiple_of", "logging_steps", "reward_weights", "seed", "data_seed"}
"""A number or a word, or set by emor3."""
NUMBERS = sorted(name for name in HINTS if {int, float} & {HINTS[name], *get_args(HINTS[name])})
ODD = [float("nan"), float("inf"), -float("inf"), 10**20, -(10**20), -5, "nan", "9" * 20]


def recipe(output: str = "run", **blocks: Any) -> Any:
    content = {"output_dir": str(output), "model": {"path": "embedded"}, "data": {"train": "embedded:scenes8"}}
    return build_recipe(content | blocks, (), "recipe.yaml")


def test_every_number_that_trl_takes_has_a_bound() -> None:
    fields = {field.name for field in dataclasses.fields(GRPOConfig)}
    assert set(NUMBERS) & fields - set(BOUNDS) - set(REFUSED) <= UNBOUNDED


@pytest.mark.parametrize("name", [name for name in NUMBERS if name in BOUNDS])
def test_an_odd_number_of_trl_is_refused_by_name(tmp_path: Path, name: str) -> None:
    for value in ODD:
        with pytest.raises(UserError, match=rf"\b{name}\b") as refused:
            grpo_config(recipe(grpo={name: value}), tmp_path, 24)
        assert len(str(refused.value)) < 200


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *itertools.product(["temperature", "top_p", "max_completion_length", "num_iterations", "save_steps"], [0, 0.0]),
        *[("temperature", 1e-300), ("top_p", 1.1), ("num_generations", 1), ("adam_beta2", 1), ("save_steps", -1)],
        *[("num_train_epochs", 1e30), ("learning_rate", "-1e-6"), ("lr_scheduler_kwargs", {"power": float("nan")})],
    ],
)
def test_nothing_is_written_for_a_number_that_nothing_can_be_learnt_with(tmp_path: Path, name: str, value: Any) -> None:
    with pytest.raises(UserError, match=name):
        train(recipe(tmp_path / "run", grpo={name: value}))
    assert not (tmp_path / "run").exists()


def test_the_numbers_that_people_use_are_taken(tmp_path: Path) -> None:
    used = {"learning_rate": "5e-5", "temperature": 0.9, "top_p": 1.0, "top_k": 0, "min_p": None, "beta": 0.0}
    used |= {"max_steps": -1, "epsilon_high": 0.28, "delta": 1.5, "max_grad_norm": 0.2, "save_total_limit": 2}
    config = grpo_config(recipe(grpo=used), tmp_path, 24)
    assert (config.learning_rate, config.top_k, config.epsilon_high) == (5e-5, 0, 0.28)
    assert grpo_config(recipe(grpo={"learning_rate": 0.0}), tmp_path, 24).learning_rate == 0  # as `bench` has it


BLOCKS = (
    *(Recipe, ModelBlock, LoraBlock, DataBlock, ColdStartBlock, HeldOutBlock),
    *(RewardSettings, OwnPart, JudgeBlock, EndpointBlock),
)
SETTINGS = [
    (block, name)
    for block in (*BLOCKS, EvaluationSettings)
    for name, field in block.model_fields.items()
    if {int, float} & {field.annotation, *get_args(field.annotation)} and field.annotation is not bool
]


def test_every_block_of_settings_is_gone_through() -> None:
    known = {block for block in Block.__subclasses__() if block.__module__.startswith("emor3.")}
    assert {block.__name__ for block in known} - {block.__name__ for block in (*BLOCKS, EvaluationSettings)} <= {
        "Plan",
        "QuickBlock",
        "FamilyBlock",
        "HostSettings",
    }


def test_an_unknown_setting_below_a_name_of_the_users_own_is_told_with_the_known_ones() -> None:
    part = {"function": "my:brevity", "weight": 0.1, "sha": "a"}
    with pytest.raises(UserError, match=r"unknown setting 'reward.own.brevity.sha'; did you mean .*brevity.sha256'"):
        recipe(reward={"own": {"brevity": part}})


@pytest.mark.parametrize(("block", "name"), SETTINGS)
def test_an_odd_number_of_a_block_is_refused(block: Any, name: str) -> None:
    required = {"base_url": "http://localhost:8000/v1", "model": "m"} if block is EndpointBlock else {}
    for value in ODD[:6]:
        with pytest.raises((UserError, ValueError), match=name):
            block.model_validate(required | {name: value})


# --- the command line -----------------------------------------------------------------------------------------------


def commands(group: Any, path: tuple[Any, ...] = ()) -> Iterator[Any]:
    for command in group.registered_commands:
        yield (*path, command.name or command.callback.__name__), get_type_hints(command.callback, include_extras=True)
    for below in group.registered_groups:
        yield from commands(below.typer_instance, (*path, below.name))


def is_number(hint: Any) -> bool:
    return bool({int, float} & {hint.__origin__, *get_args(hint.__origin__)})


OPTIONS = [
    (path, name)
    for path, hints in commands(app)
    for name, hint in hints.items()
    if hasattr(hint, "__metadata__") and is_number(hint)
]


def test_options_are_found() -> None:
    assert {(("evaluate",), "temperature"), (("bench", "step"), "rounds"), (("data", "import"), "seed")} <= set(OPTIONS)


def words(path: Any) -> Any:
    """What a command cannot do without."""
    hints = dict(commands(app))[path]
    given = [hint.__metadata__[0] for hint in hints.values() if hasattr(hint, "__metadata__")]
    return ["x" for info in given if isinstance(info, typer.models.ArgumentInfo)] + (
        ["-m", "x"] if path == ("predict",) else []
    )


@pytest.mark.parametrize(("path", "name"), OPTIONS)
def test_an_odd_number_of_an_option_is_refused_by_its_name(
    path: Any, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    hint = dict(commands(app))[path][name]
    kinds = {hint.__origin__, *get_args(hint.__origin__)}
    option = f"--{name.replace('_', '-')}"
    for value in ("nan", "inf", "-inf", "-1") if float in kinds else (str(10**20), "-1", "9" * 5000):
        with pytest.raises(SystemExit) as ended:
            app([*path, *words(path), f"{option}={value}"])
        assert ended.value.code == 2
        assert option in capsys.readouterr().err


def test_a_temperature_that_overflows_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        app(["evaluate", "-m", "embedded", "-d", "embedded:scenes8", "--temperature", "1e-300"])
    assert "give 0, or 0.001 and above" in " ".join(capsys.readouterr().err.split())


def test_the_largest_seed_is_taken_and_the_next_refused() -> None:
    assert recipe(seed=MOST).seed == 2**32 - 1
    with pytest.raises(UserError, match="seed"):
        recipe(seed=MOST + 1)
