"""Recipes are strict: what is not known or makes no sense is refused in words that say what to write instead."""

from pathlib import Path
from typing import Any

import pytest

from emor3.errors import UserError, one_line
from emor3.method.rewards import RewardSettings
from emor3.runs.recipe import OWNED, Recipe, build_recipe, load_recipe


def minimal(**blocks: Any) -> dict[str, Any]:
    return {"output_dir": "run", "model": {"path": "embedded"}, "data": {"train": "embedded:scenes8"}, **blocks}


def recipe(content: Any, *overrides: Any) -> Recipe:
    return build_recipe(content, overrides, "r.yaml")


def test_what_is_left_out_is_the_default_reward_judged_by_scores() -> None:
    built = recipe(minimal())
    assert built.reward == RewardSettings()
    assert (built.judge.backend, built.thinking, built.prompt_template) == ("score", "steps", "steps")


def test_a_resolved_recipe_reads_back_as_itself() -> None:
    built = recipe(minimal(cold_start={"steps": 3}, grpo={"beta": 0.02}))
    assert build_recipe(built.model_dump(), (), "config.json") == built


def test_overrides_reach_any_depth_make_blocks_and_are_read_as_yaml() -> None:
    built = recipe(minimal(), "grpo.beta=0.02", "cold_start.samples=8", "data.labels=[a, b]", "cold_start.steps=2")
    assert (built.grpo["beta"], built.cold_start.samples, built.data.labels) == (0.02, 8, ["a", "b"])


def test_reflection_and_its_parts_can_be_switched_off_in_a_recipe() -> None:
    settings = recipe(minimal(), "reward.reflective=0", "reward.coherence=false").reward
    assert (settings.reflective, settings.coherence, settings.consistency) == (0, False, True)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["reward.fromat=0.2"], r"unknown setting 'reward.fromat'; did you mean 'reward.format'\?"),
        (["modle.path=x"], r"unknown setting 'modle'; did you mean 'model'\?"),
        (["model.lora.rank=4"], r"unknown setting 'model.lora.rank'; known here: r, alpha, dropout, target_modules"),
        (["model.path=[]"], r"model.path: Input should be a valid string \(found \[\]\)"),
        (["data.limit=0"], r"data.limit: .*greater than or equal to 1 \(found 0\)"),
        (["thinking=slow"], r"thinking: .*'steps', 'free', 'direct' or 'confidence' \(found 'slow'\)"),
        (["reward.format=0.95"], r"reward weights reflective 0.3 \+ format 0.95 exceed 1"),
        (["reward.format=-1"], r"-1"),
        (
            ["reward.relative=true", "reward.reflective=0"],
            r"reward.relative changes how reflection is paid, and none is",
        ),
        (["reward.placebo=true", "reward.reflective=0"], r"reward.placebo changes how reflection is paid, and none is"),
        (["reward.trust=true", "reward.formula=released"], r"reward.trust is no part of the released formula"),
        (["reward.anneal=true", "reward.advantages=separate"], r"reward.anneal scales R_RER .* choose one of both"),
        (["judge.model=checkpoint"], r"judge.model checkpoint and judge.path go together"),
        (["judge.path=embedded"], r"judge.model checkpoint and judge.path go together"),
        (["judge.every=5"], r"judge.every .* needs judge.model ema, not policy"),
        (["judge.every=0", "judge.model=ema"], r"judge.every: .*greater than or equal to 1"),
        (["judge.coherence=policy"], r"judge.model is policy already"),
        (
            ["judge.coherence=policy", "judge.model=reference", "reward.coherence=false"],
            r"judge.coherence names who reads the reasoning, and no reward asks that",
        ),
        (
            ["reward.confidence=0.1"],
            r"reward.confidence 0.1 pays .* thinking: steps asks for none: set",
        ),
        (["reward.confidence=0.5", "thinking=confidence"], r"reward.confidence 0.5 is more than the 0.1 that is left"),
        (["grpo=3"], r"grpo: .*dictionary \(found 3\)"),
        (["grpo.num_generations=1"], r"num_generations \(G\) must be a whole number of at least 2.*found 1"),
        (["grpo.num_generations=four"], r"num_generations \(G\) must be .* found 'four'"),
        (["grpo.num_generations=[4]"], r"num_generations \(G\) must be .* found \[4\]"),
        (["grpo.seed=3"], r"'seed' is set by emor3; use seed"),
        (["grpo=null"], "nothing to train"),
        (["nonsense"], "--set takes KEY=VALUE.*found 'nonsense'"),
        (["=3"], "--set takes KEY=VALUE"),
        (["model.path.x=3"], "'path' is a single setting"),
        (["grpo.beta=["], "the value is not YAML"),
    ],
)
def test_a_bad_setting_is_refused_in_one_line(overrides: list[Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        recipe(minimal(), *overrides)
    assert len(str(caught.value)) < 250


def test_a_missing_setting_is_named() -> None:
    content = minimal()
    del content["data"]["train"]
    with pytest.raises(UserError, match=r"setting 'data\.train' is missing"):
        recipe(content)


def test_every_setting_that_emor3_decides_is_refused_with_what_to_use_instead() -> None:
    for key, instead in OWNED.items():
        with pytest.raises(UserError, match=f"'{key}' is set by emor3") as caught:
            recipe(minimal(grpo={key: None}))
        assert instead in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"- a\n- b\n", "must be a mapping of settings"),
        (b"", "must be a mapping of settings"),
        (b"a: [1\n", "is not YAML"),
        (b"\xff\xfe\x00", "is not YAML"),
        (b"!!python/object/apply:os.system ['true']", "is not YAML"),
    ],
)
def test_a_file_that_is_no_recipe_is_refused_and_runs_nothing(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        load_recipe(path)


def test_a_text_becomes_one_line_that_a_terminal_does_not_obey() -> None:
    assert one_line("a\x1b[2J\nb\udcff  日本 é") == "a\\x1b[2J b\\udcff 日本 é"


def test_a_value_of_any_size_makes_a_short_message() -> None:
    huge, nested = 10**5000, [[["x" * 40] * 100] * 100] * 100
    for value in (huge, nested):
        with pytest.raises(UserError) as error:
            recipe(minimal() | {"thinking": value})
        assert len(str(error.value)) < 400


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_that_no_generator_takes_is_refused(seed: int) -> None:
    with pytest.raises(UserError, match="seed"):
        recipe(minimal() | {"seed": seed})
