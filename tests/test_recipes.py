"""Every shipped recipe loads, makes settings that TRL takes, and says where its data and model come from."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml
from accelerate.commands.config.config_args import ClusterConfig
from typer.testing import CliRunner

from emor3.cli.main import app
from emor3.experiments.plan import cells_of, load_plan
from emor3.experiments.quickstart import EASY, HARD
from emor3.runs.recipe import load_recipe
from emor3.training.trl_config import grpo_config
from places import ROOT

RECIPES = ROOT / "recipes"
PLANS = {"table1_tiny.yaml", "ablation_tiny.yaml", "attacks_tiny.yaml", "reflection_study.yaml"}
NEEDS_GPU = {"paper.yaml": ["grpo.bf16=false"]}
"""Recipe -> what to switch off so that its settings can be checked on a machine without GPU."""


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.name)
def test_every_shipped_recipe_loads_and_its_settings_are_ones_that_trl_takes(path: Path, tmp_path: Path) -> None:
    if path.name in PLANS:
        cells = cells_of(load_plan(path, tmp_path, False))
        recipes = [cell.recipe for cell in cells]
    else:
        recipes = [load_recipe(path, NEEDS_GPU.get(path.name, []))]
    assert recipes
    for recipe in recipes:
        if recipe.grpo is not None:
            config = grpo_config(recipe, tmp_path, 1024)
            assert config.num_generations >= 2
            assert config.max_steps > 0


@pytest.mark.parametrize("shipped", [HARD.recipe, EASY.recipe], ids=lambda path: path.name)
def test_the_quickstart_trains_by_the_recipe_that_a_reader_finds_among_the_others(shipped: Path) -> None:
    assert (RECIPES / shipped.name).read_bytes() == shipped.read_bytes()


def test_the_paper_s_recipe_has_the_paper_s_settings() -> None:
    recipe = load_recipe(RECIPES / "paper.yaml")
    grpo = recipe.grpo
    assert (recipe.reward.reflective, recipe.reward.format, recipe.reward.formula) == (0.1, 0.1, "paper")
    judged = (recipe.reward.soft, recipe.reward.contrastive, recipe.reward.masked, recipe.judge.model)
    assert judged == (False, 0, False, "policy")
    assert (recipe.data.limit, grpo["num_generations"], grpo["learning_rate"], grpo["beta"]) == (2100, 4, 2e-6, 0.01)
    assert (grpo["temperature"], grpo["top_p"], grpo["epsilon"], grpo["epsilon_high"]) == (1.0, 1.0, 0.2, 0.3)
    # Eight GPUs: 2 completions x 64 accumulated x 8 = 1,024 = 256 prompts x 4 an update; 128 / 64 = 2 updates a round.
    assert grpo["per_device_train_batch_size"] * grpo["gradient_accumulation_steps"] * 8 == 256 * 4
    assert grpo["steps_per_generation"] == 2 * grpo["gradient_accumulation_steps"]


def plan_commands() -> list[Any]:
    """The `emor3 plan` lines that recipes give for the machine they are for."""
    lines = (line for path in sorted(RECIPES.glob("*.yaml")) for line in path.read_text().splitlines())
    return [line.removeprefix("# emor3 ").split() for line in lines if line.startswith("# emor3 plan ")]


@pytest.mark.parametrize("command", plan_commands(), ids=lambda command: Path(command[1]).stem)
def test_a_recipe_fits_the_machine_that_it_names(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(RECIPES.parent)
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert "peak (estimate)" in done.output


def test_the_recipes_of_real_models_say_that_we_did_not_run_them_and_what_they_need() -> None:
    for path in RECIPES.glob("emoset_*.yaml"):
        assert "NOT RUN BY US" in path.read_text(), path
        assert f"emor3 plan recipes/{path.name}" in path.read_text(), path


@pytest.mark.parametrize("path", sorted(RECIPES.glob("accelerate/*.yaml")), ids=lambda path: path.stem)
def test_accelerate_takes_our_configurations(path: Path) -> None:
    assert set(yaml.safe_load(path.read_text())) <= {field.name for field in fields(ClusterConfig)}
    config = ClusterConfig.from_yaml_file(path)
    assert (config.mixed_precision, config.num_processes) == ("bf16", 8)
