"""Before the first step: what the start model can do is said, and weights that learn really move."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from test_train import LEARNING, completions_of, metrics_of, run_of, same, weights_of, write_recipe

from emor3.data.folders import load_samples
from emor3.judges.calibration import StartFigures, start_figures
from emor3.method.thinking import parse
from emor3.models.checkpoints import learn_in_float32, load, resolve_checkpoint, save
from emor3.runs.recipe import load_recipe
from emor3.training.callbacks import WATCHED_STEPS, MovingWeights
from emor3.training.run import train

GOOD = "<step1>a</step1><step2>b</step2><step3>c</step3>\\boxed{awe}"


def test_the_start_model_is_counted_by_format_and_by_labels_of_the_set(scenes: str) -> None:
    samples = load_samples(scenes, split="train")[:4]
    thoughts = [parse(text) for text in (GOOD, GOOD.replace("awe", "zeal"), "\\boxed{fear}", "\\boxed{zeal}")]
    figures = start_figures(samples, thoughts, 1.0)
    assert figures == StartFigures(n=4, format=2, named=2, temperature=1.0)
    assert figures.line() == (
        "start model: 2 of 4 completions keep the format, 2 name a label of the set "
        "(one for each of 4 training images, temperature 1)"
    )


@pytest.mark.parametrize(
    ("format", "named", "lacks"),
    [
        (32, 0, "almost none names a label of the set,"),
        (3, 32, "almost none keeps the format,"),  # 3 / 32 is below a tenth
        (0, 0, "almost none keeps the format or names a label of the set,"),
    ],
)
def test_a_start_model_that_is_hardly_ever_paid_is_warned_of(format: int, named: int, lacks: str) -> None:
    assert f"warning: {lacks}" in StartFigures(32, format, named, 1.0).line()
    assert "warning" not in StartFigures(32, 4, 4, 1.0).line()


def test_a_run_says_what_its_start_model_can_do_once(
    tmp_path: Path, scenes: str, random_checkpoint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {"judge": {"calibration": 3}, "grpo": {"max_steps": 1}}
    run = run_of(tmp_path, scenes, random_checkpoint, **settings)
    printed = capsys.readouterr().out
    # Random weights keep no format, which the judge needs, too.
    assert "start model: 0 of 3 completions keep the format, 0 name a label" in printed
    assert "warning: almost none keeps the format or names a label of the set" in printed
    assert "judge: not tried" in printed
    assert json.loads((run / "start.json").read_text()) == {"n": 3, "format": 0, "named": 0, "temperature": 1.0}
    train(load_recipe(write_recipe(tmp_path, scenes, random_checkpoint, **settings)), resume=True)
    assert "start model" not in capsys.readouterr().out


@pytest.mark.slow
def test_trying_the_judge_on_groups_is_said_kept_and_leaves_training_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = []
    for tried in (0, 3):
        (tmp_path / str(tried)).mkdir()
        settings = {"judge": {"calibration": tried}, "grpo": LEARNING | {"max_steps": 1}}
        runs.append(run_of(tmp_path / str(tried), "embedded:scenes8", "embedded", **settings))
    assert not (runs[0] / "judge.json").exists()
    found = json.loads((runs[1] / "judge.json").read_text())
    assert (found["n"], found["groups"]) == (3, 3)
    assert 0 <= found["alike"] <= 3
    assert f"same of all completions in {found['alike']} of 3 groups" in capsys.readouterr().out
    assert json.loads((runs[1] / "start.json").read_text())["n"] == 3
    assert completions_of(runs[0]) == completions_of(runs[1])
    assert same(*(weights_of(run / "final") for run in runs))


def moved(run: Path) -> tuple[Any, ...]:
    """Share of the weights that are not those of the embedded base, and how far they moved on average."""
    start, end = load_file(f"{resolve_checkpoint('embedded')}/model.safetensors"), weights_of(run / "final")
    steps = torch.cat([(end[name].double() - start[name].double()).flatten() for name in start])
    return (steps != 0).double().mean().item(), steps.abs().mean().item()


@pytest.mark.slow
def test_weights_learn_under_bfloat16_as_in_float32(
    tmp_path: Path, scenes: str, capsys: pytest.CaptureFixture[str]
) -> None:
    learning = LEARNING | {"learning_rate": 2e-6, "max_steps": 3, "save_steps": 3, "lr_scheduler_type": "constant"}
    shares, means = {}, {}
    for dtype, bf16 in (("float32", False), ("bfloat16", True)):
        (tmp_path / dtype).mkdir()
        run = run_of(
            tmp_path / dtype,
            scenes,
            "embedded",
            model={"path": "embedded", "dtype": dtype},
            grpo=learning | {"bf16": bf16},
            judge={"calibration": 0},
        )
        shares[dtype], means[dtype] = moved(run)
    assert "did not change" not in capsys.readouterr().out
    # Weights held in bfloat16 moved in 1.7% of places, and a fiftieth as far.
    assert shares["bfloat16"] == pytest.approx(shares["float32"], abs=0.05)
    assert shares["float32"] > 0.9
    assert means["bfloat16"] == pytest.approx(means["float32"], rel=0.3)
    kl = [row["kl"] for row in metrics_of(run)]
    assert 0 <= kl[0] < 1e-3  # the reference is the start model in bfloat16


def test_adapters_on_weights_in_bfloat16_are_float32(random_checkpoint: str) -> None:
    base, _ = load(random_checkpoint, "bfloat16")
    model = get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj"]), autocast_adapter_dtype=False)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    learn_in_float32(model)
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    assert {p.dtype for p in model.parameters() if not p.requires_grad} == {torch.bfloat16}


class Arguments:
    deepspeed = None
    learning_rate = 2e-6


class MainProcess:
    is_world_process_zero = True


@pytest.mark.parametrize(
    ("dtype", "unmoved"),
    [
        (torch.float32, 0),
        # Steps of 2e-6 on weights of 1: bfloat16 tells 1 from 1.0078 at best.
        (torch.bfloat16, 1),
    ],
)
def test_weights_too_coarse_for_the_learning_rate_are_warned_of(
    dtype: Any, unmoved: int, capsys: pytest.CaptureFixture[str]
) -> None:
    model = torch.nn.Linear(8, 8, bias=False, dtype=dtype)
    torch.nn.init.ones_(model.weight)
    optimizer = torch.optim.AdamW(model.parameters(), lr=Arguments.learning_rate)
    watch = MovingWeights()
    for _ in range(WATCHED_STEPS):
        assert watch.unmoved is None
        model.weight.grad = torch.ones_like(model.weight)
        watch.on_pre_optimizer_step(Arguments, None, None, model, optimizer)
        optimizer.step()
        watch.on_step_end(Arguments, MainProcess, None, model)
    assert watch.unmoved == unmoved
    warning = "warning: 100% of the trained weights did not change in 3 updates: raise grpo.learning_rate (2e-06)"
    assert (warning in capsys.readouterr().out) == bool(unmoved)


def test_updates_without_a_gradient_or_a_learning_rate_are_not_counted(capsys: pytest.CaptureFixture[str]) -> None:
    model = torch.nn.Linear(2, 2)
    watch = MovingWeights()
    for rate, gradient in ((0.0, 1.0), (1.0, 0.0)):
        optimizer = torch.optim.SGD(model.parameters(), lr=rate)
        for _ in range(WATCHED_STEPS + 1):
            for parameter in model.parameters():
                parameter.grad = torch.full_like(parameter, gradient)
            watch.on_pre_optimizer_step(Arguments, None, None, model, optimizer)
            watch.on_step_end(Arguments, MainProcess, None, model)
    assert watch.unmoved is None
    assert not capsys.readouterr().out


@pytest.mark.slow
def test_a_padding_token_that_also_ends_a_turn_learns_as_any_other(tmp_path: Path, scenes: str) -> None:
    """torch gives `padding_idx` no gradient, so that weights differed though completions and rewards were equal."""
    model, processor = load("embedded")
    end = processor.tokenizer.eos_token
    assert processor.tokenizer.pad_token != end
    finals = []
    for name in ("own", "end"):
        if name == "end":
            processor.tokenizer.pad_token = end
            for config in (model.config.get_text_config(), model.generation_config):
                config.pad_token_id = processor.tokenizer.eos_token_id
        (tmp_path / name).mkdir()
        save(model, processor, tmp_path / name / "start")
        run = run_of(tmp_path / name, scenes, str(tmp_path / name / "start"), grpo=LEARNING, judge={"calibration": 0})
        finals.append((weights_of(run / "final"), metrics_of(run)))
    (own, own_metrics), (ending, ending_metrics) = finals
    assert ending_metrics == own_metrics
    assert same(ending, own)
