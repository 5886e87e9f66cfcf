"""Kill a training run with SIGKILL at random moments and resume it, until so many kills are done.

Half of the kills come while a checkpoint is written, the others at any moment from the start of the process. After
each the newest complete checkpoint must be whole and no older than before; a run that ends must have every step in its
records once, and the weights, completions and losses of a run that nothing ended. Ends with status 1 if not.
Run: python benchmarks/kills.py [--kills 30] [--steps 12] [--seed 0]
"""

import argparse
import json
import multiprocessing
import os
import shutil
import signal
import sys
import time
from collections import Counter
from multiprocessing.process import BaseProcess
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import load_file

from emor3.runs.directory import CHECKPOINTS, FINAL, METRICS, ROLLOUTS, checkpoint_step, complete_checkpoints
from emor3.runs.recipe import Recipe
from emor3.runs.records import read_jsonl

LONGEST = 4.0
"""Seconds after which a process is killed at the latest, or in the next checkpoint; loading takes some of them."""
WRITING = 0.04
"""Seconds that a checkpoint of the tiny model takes at most, about."""


def recipe(folder: Path, steps: int) -> Recipe:
    """A cold start and a few steps of the embedded model, each saved, with one checkpoint kept."""
    return Recipe.model_validate(
        {
            "output_dir": str(folder),
            "model": {"path": "embedded"},
            "data": {"train": "embedded:scenes8", "limit": 16},
            "cold_start": {"samples": 4, "steps": 2, "batch_size": 2, "learning_rate": 1e-3},
            "grpo": {
                "max_steps": steps,
                "num_generations": 4,
                "per_device_train_batch_size": 8,
                "max_completion_length": 48,
                "learning_rate": 1e-3,
                "save_steps": 1,
                "save_total_limit": 1,
            },
        }
    )


def work(folder: Path, steps: int, log: Path) -> None:
    """Train or go on, in a process of its own, with its output in a file."""
    from emor3.training.run import train

    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    train(recipe(folder, steps), resume=True)


def half_written(run: Path) -> bool:
    """Whether a checkpoint is there that is not complete."""
    return len(list(run.glob(f"{CHECKPOINTS}/checkpoint-*"))) > len(complete_checkpoints(run))


def wait_for_moment(process: BaseProcess, run: Path, rng: Random) -> None:
    """Wait until the process is to be killed, or ends."""
    process.join(rng.uniform(0, LONGEST))
    if rng.random() < 0.5:
        while process.is_alive() and not half_written(run):
            time.sleep(0.001)
        time.sleep(rng.uniform(0, WRITING))


def check_checkpoint(run: Path, before: int) -> int:
    """Step of the newest complete checkpoint, 0 without one, after reading its parts. Raises if it is not whole."""
    found = complete_checkpoints(run)
    if not found:
        assert before == 0, f"the checkpoint of step {before} is gone"
        return 0
    step, newest = checkpoint_step(found[-1]), found[-1]
    assert step >= before, f"complete up to step {before} before, {step} after the kill"
    assert all(bool(value.isfinite().all()) for value in load_file(newest / "model.safetensors").values())
    for part in ("optimizer.pt", "scheduler.pt"):
        torch.load(newest / part, weights_only=True)
    assert (newest / "rng_state.pth").stat().st_size > 0
    assert json.loads((newest / "trainer_state.json").read_text())["global_step"] == step
    return step


def outcome(run: Path) -> tuple[list[Any], list[Any], dict[str, torch.Tensor]]:
    """Completions, losses and final weights of a run that ended."""
    rollouts = [(row["step"], row["group"], row["sample"], row["completion"]) for row in read_jsonl(run / ROLLOUTS)]
    losses = [(row["step"], row["loss"], row["reward"]) for row in read_jsonl(run / METRICS)]
    return rollouts, losses, load_file(run / FINAL / "model.safetensors")


def check_outcome(run: Path, whole: Path, steps: int) -> None:
    """Raise if a run does not end as one that nothing ended."""
    (rollouts, losses, weights), expected = outcome(run), outcome(whole)
    assert [step for step, *_ in losses] == list(range(1, steps + 1)), "metrics.jsonl has not each step once"
    assert Counter(step for step, *_ in rollouts) == dict.fromkeys(range(1, steps + 1), 8), "rollouts.jsonl"
    assert rollouts == expected[0], "other completions"
    assert losses == expected[1], "other losses"
    assert all(torch.equal(weights[name], expected[2][name]) for name in expected[2]), "other weights"


def main(kills: int, steps: int, seed: int, scratch: Path) -> None:
    """Do the kills and print what was found."""
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["emor3.training.run"])
    rng, done, runs, moments = Random(seed), 0, 0, Counter[str]()
    whole, run, log = scratch / "whole", scratch / "run", scratch / "log.txt"

    def start(folder: Path) -> BaseProcess:
        process = processes.Process(target=work, args=(folder, steps, log))
        process.start()
        return process

    first = start(whole)
    first.join()
    assert first.exitcode == 0, log.read_text()[-2000:]
    began, complete = time.monotonic(), 0
    while done < kills or run.exists():
        process = start(run)
        if done < kills:
            wait_for_moment(process, run, rng)
            process.kill()
        process.join()
        if process.exitcode != -signal.SIGKILL:
            assert process.exitcode == 0, log.read_text()[-2000:]
            check_outcome(run, whole, steps)
            shutil.rmtree(run)
            runs, complete = runs + 1, 0
            continue
        done += 1
        moments["half a checkpoint" if half_written(run) else "elsewhere"] += 1
        complete = check_checkpoint(run, complete)
    shares = ", ".join(
        f"{count} left {name}" if "half" in name else f"{count} {name}" for name, count in moments.items()
    )
    print(f"{done} kills ({shares}) in {time.monotonic() - began:.0f} s: every newest complete checkpoint was whole;")
    print(f"{runs} runs of {steps} steps ended with the records and, bit for bit, the weights of the one never killed")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for option, value in (("--kills", 30), ("--steps", 12), ("--seed", 0)):
        parser.add_argument(option, type=int, default=value)
    chosen = parser.parse_args()
    with TemporaryDirectory() as folder:
        try:
            main(chosen.kills, chosen.steps, chosen.seed, Path(folder))
        except AssertionError as error:
            sys.exit(f"failed: {error}")
