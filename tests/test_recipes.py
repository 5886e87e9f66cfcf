"""Every shipped recipe loads, makes settings that TRL takes, and says where its data and model come from."""

from collections.abc import Callable
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
from emor3.models.architectures import PUBLISHED, SMALL_DOWNLOAD, SMALL_MODEL
from emor3.runs.recipe import load_recipe
from emor3.storage.shipped import RECIPES, shipped_recipes
from emor3.training.trl_config import grpo_config
from places import ROOT

PLANS = {"table1_tiny.yaml", "table1_hard.yaml", "ablation_tiny.yaml", "attacks_tiny.yaml", "reflection_study.yaml"}
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


def test_the_recipes_of_a_checkout_are_those_of_the_package() -> None:
    assert (ROOT / "recipes").resolve() == RECIPES.resolve()
    assert {HARD.recipe, EASY.recipe} <= set(shipped_recipes().values())


def test_the_recipes_are_listed_with_the_first_line_of_their_comments() -> None:
    done = CliRunner().invoke(app, ["recipes"])
    assert done.exit_code == 0
    listed = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert listed.keys() == {path.relative_to(RECIPES).with_suffix("").as_posix() for path in RECIPES.rglob("*.yaml")}
    for name, line in listed.items():
        assert (RECIPES / f"{name}.yaml").read_text().startswith(f"# {line}\n")
        assert line.endswith((".", "`")), f"{name}: {line}"


def test_a_recipe_is_copied_to_the_working_folder_and_over_nothing(
    main_with: Callable[..., int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main_with("recipes", "paper") == 0
    assert Path("paper.yaml").read_text() == (RECIPES / "paper.yaml").read_text()
    Path("paper.yaml").write_text("mine")
    assert main_with("recipes", "paper") == 2
    assert capsys.readouterr().err.splitlines()[1:] == ["error: paper.yaml exists: choose another name, or delete it"]
    assert Path("paper.yaml").read_text() == "mine"
    Path("folder").mkdir()
    assert main_with("recipes", "accelerate/ddp", "folder") == 0
    assert main_with("recipes", "quickstart", "new/my.yaml") == 0
    assert [Path("folder/ddp.yaml").is_file(), Path("new/my.yaml").is_file()] == [True, True]


def test_a_shipped_recipe_goes_by_its_name_from_anywhere_and_a_file_of_that_name_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_recipe("quickstart") == load_recipe(RECIPES / "quickstart.yaml")
    assert load_plan(Path("table1_tiny"), None, True) == load_plan(RECIPES / "table1_tiny.yaml", None, True)
    done = CliRunner().invoke(app, ["plan", "emoset_3b_lora_1x24gb", "--memory", "24"])
    assert done.exit_code == 0, done.output
    Path("quickstart").write_text((RECIPES / "quickstart.yaml").read_text() + "seed: 7\n")
    assert load_recipe("quickstart").seed == 7


@pytest.mark.parametrize("command", ["train", "plan", "reproduce", "recipes", "data check d --recipe"])
def test_an_unknown_name_is_answered_with_the_nearest_one_and_the_list(
    main_with: Callable[..., int], capsys: pytest.CaptureFixture[str], command: str
) -> None:
    assert main_with(*command.split(), "papr") == 2
    told = capsys.readouterr().err
    assert told.startswith(
        "error: there is no recipe 'papr': did you mean 'paper'? give a YAML file, or one of ablation"
    )
    assert told.count("\n") == 1


@pytest.mark.parametrize("name", sorted(shipped_recipes()))
def test_a_copied_recipe_comes_with_the_command_that_takes_it_and_the_others_name_that(
    main_with: Callable[..., int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    if name.startswith("accelerate/"):
        takes, refuse = "accelerate launch", ["train", "plan", "reproduce"]
    elif f"{name}.yaml" in PLANS:
        takes, refuse = "emor3 reproduce", ["train", "plan"]
    else:
        takes, refuse = "emor3 train", ["reproduce"]
    assert main_with("recipes", name, "my file.yaml") == 0
    told = capsys.readouterr().err
    assert takes in told
    assert "'my file.yaml'" in told
    for command in refuse:
        for given in (name, "my file.yaml"):
            assert main_with(command, given) == 2
            told = capsys.readouterr().err
            assert told.startswith(f"error: {given} ")
            assert f"`{takes}" in told
            assert told.count("\n") == 1


def test_a_path_to_nowhere_is_told_as_a_path(main_with: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert main_with("plan", "no/paper.yaml") == 2
    assert capsys.readouterr().err == "error: cannot read the recipe no/paper.yaml: No such file or directory\n"


def test_the_paper_s_recipe_has_the_paper_s_settings() -> None:
    recipe = load_recipe(RECIPES / "paper.yaml")
    grpo = recipe.grpo
    assert (recipe.reward.reflective, recipe.reward.format, recipe.reward.formula) == (0.1, 0.1, "paper")
    judged = (recipe.reward.soft, recipe.reward.contrastive, recipe.judge.model)
    assert judged == (False, 0, "policy")
    assert (recipe.data.limit, grpo["num_generations"], grpo["learning_rate"], grpo["beta"]) == (2100, 4, 2e-6, 0.01)
    assert (grpo["temperature"], grpo["top_p"], grpo["epsilon"], grpo["epsilon_high"]) == (1.0, 1.0, 0.2, 0.3)
    # Eight GPUs: 2 completions x 64 accumulated x 8 = 1,024 = 256 prompts x 4 an update; 128 / 64 = 2 updates a round.
    assert grpo["per_device_train_batch_size"] * grpo["gradient_accumulation_steps"] * 8 == 256 * 4
    assert grpo["steps_per_generation"] == 2 * grpo["gradient_accumulation_steps"]


def plan_commands() -> list[Any]:
    """The `emor3 plan` lines that recipes give for the machine they are for."""
    lines = (line for path in sorted(RECIPES.glob("*.yaml")) for line in path.read_text().splitlines())
    return [line.removeprefix("# emor3 ").split() for line in lines if line.startswith("# emor3 plan ")]


@pytest.mark.parametrize("command", plan_commands(), ids=lambda command: command[1])
def test_a_recipe_fits_the_machine_that_it_names(command: str) -> None:
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert "peak (estimate)" in done.output


def test_the_recipes_of_real_models_say_that_we_did_not_run_them_and_what_they_need() -> None:
    for path in (*RECIPES.glob("emoset_*.yaml"), RECIPES / "photos_laptop.yaml"):
        assert "NOT RUN BY US" in path.read_text(), path
        assert f"emor3 plan {path.stem} " in path.read_text(), path


def test_the_recipe_for_a_laptop_has_the_small_model_and_one_tile_of_each_image() -> None:
    recipe = load_recipe("photos_laptop")
    assert recipe.model.path == SMALL_MODEL
    assert recipe.model.max_pixels == PUBLISHED[SMALL_MODEL]["vision_config"]["image_size"] ** 2
    assert f"{SMALL_DOWNLOAD / 1e6:.0f} MB" in (RECIPES / "photos_laptop.yaml").read_text()


@pytest.mark.parametrize("path", sorted(RECIPES.glob("accelerate/*.yaml")), ids=lambda path: path.stem)
def test_accelerate_takes_our_configurations(path: Path) -> None:
    assert set(yaml.safe_load(path.read_text())) <= {field.name for field in fields(ClusterConfig)}
    config = ClusterConfig.from_yaml_file(path)
    assert (config.mixed_precision, config.num_processes) == ("bf16", 8)


def test_the_comparison_on_hard_scenes_has_the_methods_of_the_one_on_easy_scenes() -> None:
    easy, hard = (load_plan(RECIPES / f"table1_{world}.yaml", None, False) for world in ("tiny", "hard"))
    assert hard.methods == easy.methods
