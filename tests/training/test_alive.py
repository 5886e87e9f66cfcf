"""Staying alive: signals, kills, a full disk and every other end of a run leave it resumable, bit for bit."""

import io
import os
import resource
import shutil
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest
import torch
import yaml
from safetensors.torch import load_file

import kills
from emor3 import signals
from emor3.models.processors import load_processor
from emor3.runs.directory import CHECKPOINTS, COLD_START, COMPLETE, complete_checkpoints, latest_checkpoint
from emor3.runs.recipe import Recipe
from emor3.runs.records import read_jsonl
from emor3.signals import Stopped
from emor3.training.run import train as run_training
from emor3.training.stopping import is_out_of_memory
from forked import start_ranks
from steps import LEARNS, at_step, writes
from waiting import wait_until

GRPO = {
    "max_steps": 3,
    "num_generations": 2,
    "per_device_train_batch_size": 4,
    "max_completion_length": 6,
    "learning_rate": 1e-2,
    "save_steps": 3,
    **LEARNS,
}
TWO_STEPS_A_CYCLE = {"max_steps": 4, "save_steps": 4, "steps_per_generation": 2, "gradient_accumulation_steps": 1}


def recipe_of(output: Any, data: Any, checkpoint: str, changes: Any) -> dict[str, Any]:
    return {
        "output_dir": str(output),
        "model": {"path": checkpoint},
        "data": {"train": str(data)},
        **changes,
        "grpo": GRPO | changes.get("grpo", {}),
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, scenes: str, random_checkpoint: str) -> Path:
    """A run that nothing ended."""
    recipe = recipe_of(tmp_path_factory.mktemp("whole") / "run", scenes, random_checkpoint, {})
    run = run_training(Recipe.model_validate(recipe))
    start, end = (load_file(Path(folder) / "model.safetensors") for folder in (random_checkpoint, run / "final"))
    assert all(not torch.equal(start[name], end[name]) for name in start)  # else nothing would be lost in a resume
    return run


@pytest.fixture
def photos(tmp_path: Path, scenes: str) -> Path:
    """The same images in a folder that a test may spoil."""
    return Path(shutil.copytree(scenes, tmp_path / "photos"))


@pytest.fixture
def train(
    main_with: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
    photos: Path,
    random_checkpoint: str,
) -> Callable[..., tuple[int, str]]:
    """Run `emor3 train` in this process; returns its exit status and what it wrote to standard error."""
    monkeypatch.chdir(tmp_path)

    def run(name: str, *flags: Any, **changes: Any) -> tuple[Any, ...]:
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(recipe_of(name, photos, random_checkpoint, changes)))
        status = main_with("train", path, *flags)
        return status, capfd.readouterr().err

    return run


def ended_alike(run: Any, whole: Any) -> Any:
    """Whether two runs have the same final weights and the same rows, each step once."""
    rows = [
        [
            [(row["step"], row["group"], row["completion"]) for row in read_jsonl(folder / "rollouts.jsonl")]
            + [(row["step"], row["loss"]) for row in read_jsonl(folder / "metrics.jsonl")]
        ]
        for folder in (run, whole)
    ]
    weights = [load_file(folder / "final" / "model.safetensors") for folder in (run, whole)]
    return rows[0] == rows[1] and all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def steps_saved(run: Any) -> list[Any]:
    return [folder.name for folder in complete_checkpoints(run)]


def line_of(told: Any, start: Any) -> Any:
    """The one line that starts so, after making sure that no traceback was shown."""
    assert "Traceback" not in told
    found = [line for line in told.splitlines() if line.startswith(start)]
    assert len(found) == 1, told
    return found[0]


# --- signals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "status", "cycle", "saved"),
    [
        (signal.SIGINT, 130, {}, 1),
        # The second step uses the completions of the first, so it is taken before the run stops.
        pytest.param(signal.SIGTERM, 143, TWO_STEPS_A_CYCLE, 2, marks=pytest.mark.slow),
    ],
)
def test_a_signal_saves_at_the_next_step_that_resumes_exactly(
    train: Callable[..., tuple[int, str]],
    tmp_path: Path,
    whole: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: Any,
    status: int,
    cycle: Any,
    saved: int,
) -> None:
    if cycle:
        assert train("whole", grpo=cycle)[0] == 0
        whole = tmp_path / "whole"
    at_step(monkeypatch, 1, lambda _: os.kill(os.getpid(), number))
    ended, told = train("run", grpo=cycle)
    assert ended == status
    assert line_of(told, f"{number.name}: finishing the step")
    line = line_of(told, f"stopped by {number.name}; ")
    assert f"--resume goes on from step {saved} " in line
    assert steps_saved(tmp_path / "run") == [f"checkpoint-{saved}"]
    assert train("run", "--resume", grpo=cycle)[0] == 0
    assert ended_alike(tmp_path / "run", whole)


@pytest.mark.slow
def test_a_signal_inside_a_generation_cycle_saves_at_its_end(
    train: Callable[..., tuple[int, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_step(monkeypatch, 1, lambda _: os.kill(os.getpid(), signal.SIGTERM))
    ended, told = train("run", grpo=TWO_STEPS_A_CYCLE)
    assert ended == 143
    assert "--resume goes on from step 2 " in line_of(told, "stopped by SIGTERM; ")
    assert steps_saved(tmp_path / "run") == ["checkpoint-2"]


@pytest.mark.slow
def test_a_second_signal_stops_at_once(
    train: Callable[..., tuple[int, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_step(monkeypatch, 2, lambda _: [os.kill(os.getpid(), signal.SIGTERM) for _ in range(2)])
    ended, told = train("run", grpo={"save_steps": 1})
    assert ended == 143
    assert "goes on from step 1 " in line_of(told, "stopped by SIGTERM; ")


@pytest.mark.slow
def test_a_signal_in_the_cold_start_stops_at_once_and_it_begins_anew(
    train: Callable[..., tuple[int, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cold = {"samples": 4, "steps": 1, "batch_size": 2, "learning_rate": 1e-3}
    with monkeypatch.context() as patch:
        patch.setattr("emor3.training.cold_start.SFTTrainer.train", lambda self: os.kill(os.getpid(), signal.SIGTERM))
        ended, told = train("run", cold_start=cold, grpo={"max_steps": 1})
    assert ended == 143
    assert "--resume goes on from its start, for no step was saved yet" in line_of(told, "stopped by SIGTERM; ")
    mark = tmp_path / "run" / COLD_START / COMPLETE
    assert not mark.exists()
    assert train("run", "--resume", cold_start=cold, grpo={"max_steps": 1})[0] == 0
    assert mark.exists()


def test_every_other_command_ends_on_ctrl_c_with_one_line(
    main_with: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    class Watched(io.StringIO):
        """A terminal at which a person has seen enough."""

        def write(self, text: str) -> int:
            os.kill(os.getpid(), signal.SIGINT)
            return len(text)

    (tmp_path / "x.jsonl").write_text("{}\n")
    monkeypatch.setattr(sys, "stdout", Watched())
    before = signal.getsignal(signal.SIGINT)
    assert main_with("score", tmp_path / "x.jsonl") == 130
    assert capfd.readouterr().err == "stopped by SIGINT\n"
    assert signal.getsignal(signal.SIGINT) is before


def test_only_the_first_rank_speaks(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        signals.write_line(f"rank {rank}")
    assert capfd.readouterr().err == "rank 0\n"


def test_a_signal_that_is_ignored_stays_so(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with signals.signal_handler(signals.stop_at_once):
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_no_handler_of_errors_takes_a_signal_for_one() -> None:
    assert not issubclass(Stopped, Exception)


@pytest.mark.slow
def test_a_signal_to_one_of_two_ranks_stops_both_at_the_same_step(
    tmp_path: Path, photos: Path, random_checkpoint: str
) -> None:
    path = tmp_path / "recipe.yaml"
    grpo = GRPO | {"max_steps": 200, "save_steps": 200, "per_device_train_batch_size": 2}
    content = {"output_dir": str(tmp_path / "run"), "model": {"path": random_checkpoint}, "grpo": grpo}
    path.write_text(yaml.safe_dump(content | {"data": {"train": str(photos)}}))
    ranks = start_ranks("ddp", "emor3", "train", path)
    metrics = tmp_path / "run" / "metrics.jsonl"
    wait_until(lambda: metrics.exists() and metrics.read_text().count("\n") >= 2, ranks[0])
    os.kill(ranks[1].pid, signal.SIGTERM)
    told = "".join(rank.communicate()[1] for rank in ranks)  # both end, and neither is ended by a launcher
    assert [rank.returncode for rank in ranks] == [143, 143]
    assert "emor3.signals" not in told  # no traceback of ours
    last = latest_checkpoint(tmp_path / "run")
    # Rank 0, which got no signal, says where it goes on; both wrote their part of the checkpoint.
    assert f"goes on from step {last.name.removeprefix('checkpoint-')} " in told
    assert {path.name for path in last.glob("rng_state*")} == {"rng_state_0.pth", "rng_state_1.pth"}


# --- failures ---------------------------------------------------------------------------------------------------------


def vanish(photos: Any, _: Any) -> None:
    (photos / "images").rename(photos / "moved")


def spoil(photos: Any, _: Any) -> None:
    for path in (photos / "images").glob("*.png"):
        path.rename(path.with_suffix(".whole"))
        path.write_bytes(path.with_suffix(".whole").read_bytes()[:100])


def not_a_number(photos: Any, weights: Any) -> None:
    next(weight for weight in weights if weight.grad is not None).grad.fill_(float("nan"))


def full_gpu(photos: Any, _: Any) -> Any:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def full_machine(photos: Any, _: Any) -> None:
    torch.empty(10**15)


def mend(photos: Any) -> None:
    if (photos / "moved").exists():
        (photos / "moved").rename(photos / "images")
    for path in (photos / "images").glob("*.whole"):
        path.rename(path.with_suffix(".png"))


FAILURES = {  # step in which it happens; what; and the advice. Images are read a step ahead.
    "vanished image folder": (1, vanish, "check its path"),
    "unreadable image": (1, spoil, "cannot be read"),
    "gradients that are not finite": (2, not_a_number, "lower grpo.learning_rate"),
    "memory of the GPU": (2, full_gpu, "smaller grpo.per_device_train_batch_size"),
    "memory of the machine": (2, full_machine, "smaller grpo.per_device_train_batch_size"),
}


@pytest.mark.slow
@pytest.mark.parametrize("failure", FAILURES)
def test_a_failure_keeps_the_last_step_and_ends_with_one_line(
    train: Callable[..., tuple[int, str]],
    photos: Path,
    whole: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    failure: Any,
) -> None:
    step, happen, advice = FAILURES[failure]
    at_step(monkeypatch, step, partial(happen, photos))
    ended, told = train("run")
    line = line_of(told, "error: ")
    assert ended == 2
    assert advice in line
    assert steps_saved(tmp_path / "run") == ["checkpoint-1"]  # though none was due before the last step
    assert "with the same recipe and --resume goes on from step 1 " in line
    mend(photos)
    assert train("run", "--resume")[0] == 0
    assert ended_alike(tmp_path / "run", whole)


@pytest.mark.slow
def test_a_failure_inside_a_generation_cycle_saves_nothing_that_would_not_resume_exactly(
    train: Callable[..., tuple[int, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_step(monkeypatch, 2, partial(full_gpu, None))
    ended, told = train("run", grpo=TWO_STEPS_A_CYCLE)
    assert ended == 2
    assert "goes on from its start" in line_of(told, "error: ")
    assert steps_saved(tmp_path / "run") == []


def test_a_lack_of_memory_is_told_from_another_error_of_torch() -> None:
    with pytest.raises(RuntimeError) as failed:
        full_machine(None, None)
    assert is_out_of_memory(failed.value)
    assert not is_out_of_memory(RuntimeError("shape '[2]' is invalid for input of size 3"))


@pytest.mark.slow
def test_a_judge_that_dies_keeps_the_last_step(
    train: Callable[..., tuple[int, str]], tmp_path: Path, random_checkpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint = {"base_url": "http://127.0.0.1:9/v1", "model": "m", "retries": 0, "max_error_share": 0}
    # Nothing is asked before the first step: the replies to these few texts would be known when the judge is gone.
    judge = {"model": "endpoint", "endpoint": endpoint, "calibration": 0}
    alive = [True]

    async def respond(self: Any, request: httpx2.Request) -> httpx2.Response:
        if not alive[0]:
            raise httpx2.ConnectError("refused")
        return httpx2.Response(200, json={"choices": [{"message": {"role": "assistant", "content": "Yes"}}]})

    monkeypatch.setattr(httpx2.AsyncHTTPTransport, "handle_async_request", respond)
    # Descriptions, without which the judge is not asked.
    text = "<step1>A.</step1><step2>B.</step2><step3>C.</step3>\\boxed{awe}"
    writes(monkeypatch, load_processor(random_checkpoint).tokenizer, lambda count: [text] * count)
    assert train("whole", judge=judge)[0] == 0
    at_step(monkeypatch, 2, lambda _: alive.__setitem__(0, False))
    ended, told = train("run", judge=judge)
    line = line_of(told, "error: the judge at http://127.0.0.1:9/v1 failed")
    assert ended == 2
    assert "goes on from step 2 " in line
    alive[0] = True
    assert train("run", "--resume", judge=judge)[0] == 0
    assert ended_alike(tmp_path / "run", tmp_path / "whole")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no file that is always full")
@pytest.mark.parametrize("file", ["metrics.jsonl", "checkpoints/checkpoint-2/optimizer.pt"])
@pytest.mark.slow
def test_a_full_disk_leaves_the_last_whole_checkpoint(
    train: Callable[..., tuple[int, str]], whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    full = tmp_path / "run" / file

    def fill(_: Any) -> None:
        full.parent.mkdir(exist_ok=True)
        if full.exists():
            full.rename(tmp_path / "kept")
        full.symlink_to("/dev/full")

    at_step(monkeypatch, 2, fill)
    ended, told = train("run", grpo={"save_steps": 1})
    assert ended == 2
    assert "goes on from step 1 " in line_of(told, "error: no room to write to run")
    full.unlink()
    if (tmp_path / "kept").exists():
        (tmp_path / "kept").rename(full)
    assert train("run", "--resume", grpo={"save_steps": 1})[0] == 0
    assert ended_alike(tmp_path / "run", whole)


@pytest.mark.slow
def test_weights_that_cannot_be_written_leave_the_checkpoint_before(
    train: Callable[..., tuple[int, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE)
    at_step(monkeypatch, 2, lambda _: limit((1_000_000, before[1])))  # less than the weights
    try:
        ended, told = train("run", grpo={"save_steps": 1})
    finally:
        limit(before)
    assert ended == 2
    assert "goes on from step 1 " in line_of(told, "error: no room to write to run")


# --- kills ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_an_old_checkpoint_goes_only_when_the_new_one_is_whole(
    train: Callable[..., tuple[int, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, remove = {}, shutil.rmtree

    def removing(path: Any, *args: Any, **kwargs: Any) -> None:
        if Path(path).name.startswith("checkpoint-"):
            found[Path(path).name] = steps_saved(tmp_path / "run")  # a kill here would find these
        remove(path, *args, **kwargs)

    monkeypatch.setattr(shutil, "rmtree", removing)
    assert train("run", grpo={"save_steps": 1, "max_steps": 3, "save_total_limit": 1})[0] == 0
    assert found == {"checkpoint-1": ["checkpoint-2"], "checkpoint-2": ["checkpoint-3"]}
    assert {path.name for path in (tmp_path / "run" / CHECKPOINTS).iterdir()} >= {"checkpoint-3"}
    assert steps_saved(tmp_path / "run") == ["checkpoint-3"]


@pytest.mark.slow
def test_a_kill_before_the_first_record_was_whole_leaves_a_folder_that_can_be_used(
    train: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json.tmp").write_text('{"outp')
    assert train("run", "--resume", grpo={"max_steps": 1})[0] == 0


@pytest.mark.slow
def test_kills_at_random_moments_lose_nothing_past_the_last_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kills.main(kills=4, steps=4, seed=0, scratch=tmp_path)
    assert "4 kills" in capsys.readouterr().out
