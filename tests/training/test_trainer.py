"""What EmoTrainer adds to a step: other prompts for dry groups, the time split, and a stop before NaN."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from emor3 import progress
from emor3.errors import UserError
from emor3.training.callbacks import RunCallback, StopOnNonFinite
from emor3.training.trainer import EmoTrainer, Stopwatch


class State:
    global_step = 4


def other_inputs(step: int, attempt: Any, rank: Any, count: int = 6) -> Any:
    """What a process of a run with groups of three draws in place of its dry groups."""
    trainer = SimpleNamespace(
        args=SimpleNamespace(seed=7),
        state=SimpleNamespace(global_step=step),
        accelerator=SimpleNamespace(process_index=rank),
        train_dataset=range(100_000),
        num_generations=3,
    )
    return EmoTrainer._other_inputs(trainer, count, attempt)


def test_other_prompts_for_dry_groups_come_in_whole_groups() -> None:
    first, second = (other_inputs(4, 0, 0)[place : place + 3] for place in (0, 3))
    assert len(set(first)) == len(set(second)) == 1
    assert len({*first, *second}) == 2
    assert len(other_inputs(4, 0, 0, count=12)) == 12


def test_other_prompts_are_drawn_anew_for_each_step_try_and_process_and_again_the_same_after_a_resume() -> None:
    drawn = [other_inputs(*place) for place in ((4, 0, 0), (5, 0, 0), (4, 1, 0), (4, 0, 1))]
    assert len({tuple(rows) for rows in drawn}) == 4
    assert other_inputs(4, 0, 0) == drawn[0]


def test_an_inner_phase_is_not_counted_in_the_outer_one() -> None:
    times = iter([0.0, 1.0, 4.0, 10.0])  # outer starts, inner starts, inner ends, outer ends
    watch = Stopwatch(lambda: next(times))
    with watch.phase("update"), watch.phase("generate"):
        pass
    assert watch.read() == {"generate": 3.0, "update": 7.0}
    assert watch.read() == {}


def test_the_time_split_names_mean_seconds_and_shares() -> None:
    callback = RunCallback(None, None, None)
    callback.seconds.update({"time/generate": 1.0, "time/update": 3.0})
    callback.steps = 2
    # 4 seconds in 2 steps
    assert callback.time_split() == "time per step: 2.00 s = update 1.50 s (75%) + generate 0.50 s (25%)"


def test_a_line_of_a_log_file_has_the_figures_of_its_own_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "EVERY", 0.0)  # every line is due
    callback = RunCallback(tmp_path, None, None)
    callback.on_train_begin(None, SimpleNamespace(global_step=0, max_steps=2), None)
    capsys.readouterr()
    for step, reward in ((1, 0.5), (2, 0.75)):
        state = SimpleNamespace(global_step=step, max_steps=2, is_world_process_zero=True)
        callback.on_step_end(None, state, None)
        callback.on_log(None, state, None, {"loss": 0.0, "reward": reward, "rewards/accuracy/mean": reward / 2})
    told = [line.partition(" in ")[0] for line in capsys.readouterr().out.splitlines()]
    assert told == [
        "EMO-R3 reward 0.500 accuracy 0.250: 1 of 2 steps",
        "EMO-R3 reward 0.750 accuracy 0.375: 2 of 2 steps",
    ]


def test_a_non_finite_gradient_stops_before_the_update() -> None:
    model = torch.nn.Linear(2, 1)
    model(torch.ones(1, 2)).sum().backward()
    done, skipped = (SimpleNamespace(step_was_skipped=skipped) for skipped in (False, True))
    StopOnNonFinite().on_pre_optimizer_step(None, State, None, model, done)
    with pytest.raises(UserError, match="not finite at step 5"):  # under DeepSpeed, which shows no gradient
        StopOnNonFinite().on_pre_optimizer_step(None, State, None, torch.nn.Identity(), skipped)
    model.weight.grad[0, 0] = float("nan")
    with pytest.raises(UserError, match="not finite at step 5"):
        StopOnNonFinite().on_pre_optimizer_step(None, State, None, model, done)
