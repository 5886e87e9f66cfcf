"""How long a run takes follows from counted work and published runs; nothing is said of GPUs nobody measured."""

import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from trl import GRPOConfig

from emor3.models.architectures import PUBLISHED
from emor3.runs.recipe import Recipe, build_recipe
from emor3.tools.capacity import Machine, MemoryEstimate, estimate_memory, model_config
from emor3.tools.duration import (
    GPUS,
    Seconds,
    StepWork,
    between,
    estimate_time,
    log_prob_passes,
    probed_line,
    read_flops,
    step_work,
    time_lines,
    written_flops,
)
from emor3.training.trl_config import grpo_config

QWEN_3B = next(iter(PUBLISHED))


def recipe_of(path: str, grpo: Any = None, **changes: Any) -> Recipe:
    """Completions of at most 375 tokens in groups of 5, behind a text of 200 tokens and an image; no reflection."""
    group = {"num_generations": 5, "per_device_train_batch_size": 5, "max_completion_length": 375, "bf16": True}
    content = {
        "output_dir": "runs/x",
        "model": {"path": path, "dtype": "bfloat16"} | changes.pop("model", {}),
        "data": {"train": "data/none", "limit": 512},
        "reward": {"reflective": 0},
        "grpo": group | {"gradient_accumulation_steps": 1, "beta": 0.0} | (grpo or {}),
    }
    return build_recipe(content | changes, [], "here")


def needs_of(recipe: Recipe, machine: Machine | None = None) -> MemoryEstimate:
    return estimate_memory(recipe, model_config(recipe.model.path, None), machine or Machine())


def settings_of(recipe: Recipe) -> GRPOConfig:
    return grpo_config(recipe, Path(recipe.output_dir), 1)


def work_of(recipe: Recipe) -> StepWork:
    return step_work(recipe, settings_of(recipe), needs_of(recipe))


@pytest.fixture(scope="module")
def published() -> tuple[Recipe, MemoryEstimate]:
    """EasyR1's run of the 3B model: 512 prompts with 5 completions on 8 GPUs in 120 s at 1,800 tokens/s and GPU.

    That is 1,800 x 120 tokens for 320 completions on each GPU, so 675 for each: say 300 of prompt, 100 of these of the
    image, and 375 of completion.
    """
    grpo = {"gradient_accumulation_steps": 64, "beta": 0.01, "use_vllm": True, "gradient_checkpointing": True}
    recipe = recipe_of(QWEN_3B, grpo, model={"max_pixels": 100 * 28 * 28})
    return recipe, needs_of(recipe, Machine(8, 80e9, "fsdp2"))


def test_weights_are_counted_by_what_passes_them(published: tuple[Recipe, MemoryEstimate]) -> None:
    size = published[1].size
    # A layer: queries and what leaves attention 2 x 2048 x 2048, keys and values of 2 heads of 128, three of the MLP.
    layer = 2 * 2048 * 2048 + 2 * 2048 * 256 + 3 * 2048 * 11008
    assert size.text_weights == pytest.approx(36 * layer, rel=1e-3)  # and biases and norms
    assert size.text_weights + size.vision_weights + 151936 * 2048 == size.parameters  # the head is the embeddings


def test_the_work_of_a_step_is_that_of_its_phases(random_checkpoint: str) -> None:
    recipe = recipe_of(random_checkpoint, {"gradient_checkpointing": True})
    size, prompt = needs_of(recipe).size, needs_of(recipe).work.prompt
    width, weights, head = 4 * 128, size.text_weights, size.vocabulary * 128  # 4 layers of width 128
    # 2 operations a weight and token, 4 in each layer's width for each pair of a token and one that it sees.
    read = 2 * weights * prompt + 4 * width * prompt**2 / 2
    assert read_flops(size, 1, prompt) == read
    written = 2 * (weights + head) * 375 + 4 * width * (375 * prompt + 375**2 / 2)
    assert written_flops(size, 1, 375, prompt) == written
    seen = 2 * size.vision_weights * 64  # patches
    # A step of 1 prompt and 5 completions, no KL term; under checkpointing every completion has its own prompt.
    found = work_of(recipe)
    assert found.flops["generation"] == pytest.approx(read + seen)
    assert found.flops["log-probabilities"] == found.flops["reflection"] == 0
    assert found.flops["update"] == pytest.approx(3 * 5 * (read + written + seen))
    assert found.sampled_flops == pytest.approx(5 * written)
    assert found.tokens == 5 * (prompt + 375)
    cached = work_of(recipe_of(random_checkpoint, {"gradient_checkpointing": False}))
    assert cached.flops["update"] == pytest.approx(3 * (read + 5 * written + seen))
    adapters = {"lora": {"r": 16}, "freeze": ["vision"]}
    frozen = work_of(recipe_of(random_checkpoint, {"gradient_checkpointing": True}, model=adapters))
    assert frozen.flops["update"] == pytest.approx(5 * (2 * (read + written) + seen))


def test_a_round_of_generation_is_shared_out_over_its_steps(random_checkpoint: str) -> None:
    one = work_of(recipe_of(random_checkpoint, {"gradient_accumulation_steps": 2, "save_steps": 4}))
    # 4 micro-batches are generated at once and learnt twice, 2 in each step: 4 steps a round of twice as much.
    grpo = {"gradient_accumulation_steps": 2, "steps_per_generation": 4, "num_iterations": 2, "save_steps": 4}
    four = work_of(recipe_of(random_checkpoint, grpo))
    assert four.flops["generation"] == pytest.approx(one.flops["generation"] / 2)
    assert four.flops["update"] == pytest.approx(one.flops["update"])
    assert four.tokens == one.tokens / 2


@pytest.mark.parametrize(
    ("grpo", "passes"),
    [({}, 0), ({"beta": 0.1}, 1), ({"num_iterations": 2}, 1), ({"use_vllm": True, "beta": 0.1}, 2)],
)
def test_passes_before_the_update_are_those_that_trl_makes(grpo: Any, passes: int) -> None:
    assert log_prob_passes(settings_of(recipe_of(QWEN_3B, grpo))) == passes


def test_reflection_reads_what_is_asked_of_other_images_too_and_nothing_for_a_server(random_checkpoint: str) -> None:
    def reflection(judge: Any = None, **reward: Any) -> float:
        recipe = recipe_of(random_checkpoint, reward={"reflective": 0.1} | reward, judge=judge or {})
        return work_of(recipe).flops["reflection"]

    assert reflection(contrastive=2) > 1.5 * reflection(contrastive=0) > 0
    assert reflection(consistency=False, contrastive=0) < reflection(contrastive=0)
    server = {"model": "endpoint", "endpoint": {"base_url": "http://localhost:1/v1", "model": "m"}}
    assert reflection(server) == 0


def test_the_published_step_is_found_again_from_the_counted_work(published: tuple[Recipe, MemoryEstimate]) -> None:
    found = estimate_time(*published, GPUS["h100"])
    assert (found.whole.low, found.whole.high) == (pytest.approx(120), pytest.approx(120))
    counted = sum(seconds.low for seconds in found.phases.values())
    assert 60 < counted < 120  # 80: sampling is a bound, and moving weights and data is not counted
    assert (found.step.low, found.step.high) == (counted, pytest.approx(120))


def test_a_model_measured_twice_has_a_range_and_one_far_from_all_none(
    published: tuple[Recipe, MemoryEstimate],
    main_with: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    recipe, needs = published
    seven = replace(needs, size=replace(needs.size, parameters=8_292_166_656))
    update = estimate_time(recipe, seven, GPUS["h100"]).phases["update"]
    assert update.high / update.low == pytest.approx(0.232 / 0.160)
    assert main_with("plan", "quickstart", "--gpu", "h100") == 2
    assert "no model of about 1.3" in capsys.readouterr().err


def test_hours_and_costs_follow_from_steps_gpus_and_price(published: tuple[Recipe, MemoryEstimate]) -> None:
    recipe, needs = published
    found = estimate_time(recipe, replace(needs, steps=100), GPUS["h100"])
    lines = "\n".join(time_lines(found, gpus=8, price=2.5))
    hours = Seconds(found.step.low / 36, found.step.high / 36)  # 100 steps of so many seconds
    assert f"the run: {between(hours)} h for 100 steps" in lines
    assert f"cost: {between(hours.times(20))} at 2.5 a GPU and hour" in lines
    assert "an estimate" in lines
    assert "transformers samples" not in lines
    assert "transformers samples" in "\n".join(time_lines(replace(found, by_vllm=False), 8, None))
    assert "unknown" in list(time_lines(replace(found, steps=None), 8, 2.5))[-1]
    # 36 s each: 100 steps are an hour, which costs 2 x 3.
    so = "a step takes 36.0 s here"
    assert probed_line(36.0, 100, 2, 3.0) == f"{so}, so 100 steps take 1.00 h and cost 6 at 3 an hour"
    assert probed_line(36.0, None, 2, 3.0) == so


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--gpu", "a100"), r"error: --gpu a100: no measured run is known, only of h100, l20; --probe measures"),
        (("--price-per-hour", "2"), r"error: --price-per-hour needs a time: add --gpu NAME or --probe"),
        (("--gpu", "h100", "--price-per-hour", "-1"), r"Invalid value for '--price-per-hour'"),
    ],
)
def test_a_time_that_cannot_be_told_is_refused_in_one_line(
    options: tuple[str, ...], said: str, main_with: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main_with("plan", "paper", *options) == 2
    printed = capsys.readouterr()
    assert re.search(said, printed.err)
    assert printed.out == ""


def test_the_command_prints_time_and_cost_below_the_memory(
    main_with: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    eight = ("--gpus", "8", "--sharding", "fsdp2", "--gpu", "H100", "--price-per-hour", "2")
    assert main_with("plan", "paper", *eight) == 0
    out = capsys.readouterr().out
    assert out.index("peak (estimate)") < out.index("How long (an estimate, from EasyR1")
    run, cost = (re.search(rf"{name}: ([\d.]+) to ([\d.]+)", out) for name in ("the run", "cost"))
    # Eight GPUs at 2 an hour each; hours are printed in two digits.
    assert all(math.isclose(float(cost[place]), 16 * float(run[place]), rel_tol=0.05) for place in (1, 2))
