"""Runs the ways in processes of their own, which take turns step by step, so that other work hits all of them alike.

The first step of each way is left out.
"""

import multiprocessing
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, SpawnContext
from typing import Any

import torch
import transformers

from emor3.errors import UserError
from emor3.experiments.quickstart import RECIPE
from emor3.models.checkpoints import resolve_checkpoint
from emor3.models.loading import load_config
from emor3.runs.recipe import load_recipe
from emor3.tools.bench.meter import Meter, StepCost, together
from emor3.tools.bench.ranks import free_port, join
from emor3.tools.bench.ways import TRL, BenchSettings, make_trainer, overrides, ways_of
from emor3.training.dataset import chosen_samples


class Way:
    """The processes that train one way, all waiting for their turn."""

    def __init__(self, name: str, settings: BenchSettings, context: SpawnContext | ForkServerContext) -> None:
        self.name = name
        self.pipes: list[Connection] = []
        self.workers = []
        port = free_port() if settings.processes > 1 else None
        for rank in range(settings.processes):
            ours, theirs = context.Pipe()
            self.pipes.append(ours)
            self.workers.append(context.Process(target=_work, args=(name, settings, rank, port, theirs), daemon=True))
            self.workers[-1].start()
            theirs.close()

    def step(self) -> StepCost:
        """Have all processes take one step."""
        for pipe in self.pipes:
            pipe.send("go")
        costs: list[StepCost] = [self._receive(pipe) for pipe in self.pipes]
        return together(costs) if len(costs) > 1 else costs[0]

    def ready(self) -> None:
        """Wait until all have loaded their next batch: nothing of this way runs beside the next one."""
        for pipe in self.pipes:
            self._receive(pipe)

    def end(self) -> None:
        """Stop all processes."""
        for worker in self.workers:
            worker.terminate()
            worker.join()

    def _receive(self, pipe: Connection) -> Any:
        try:
            return pipe.recv()
        except EOFError:
            raise UserError(f"the process that runs {self.name!r} ended early: its error is printed above") from None


def bench_step(
    settings: BenchSettings, on_round: Callable[[int], None], names: Sequence[str] | None = None
) -> dict[str, list[StepCost]]:
    """Costs of every round of every way, or of those named. Raises UserError if the model or data cannot be used."""
    _check(settings)
    context = start_method(settings)
    with ExitStack() as stack:
        ways = []
        for name in names or ways_of(settings):
            ways.append(Way(name, settings, context))
            stack.callback(ways[-1].end)
            ways[-1].ready()
        costs: dict[str, list[StepCost]] = {way.name: [] for way in ways}
        for done in range(settings.rounds + 1):
            for way in ways:
                costs[way.name].append(way.step())
                if done < settings.rounds:
                    way.ready()
            on_round(done)
    return {way: steps[1:] for way, steps in costs.items()}


def start_method(settings: BenchSettings) -> SpawnContext | ForkServerContext:
    """How workers start: copies of a process that has loaded the libraries, or by loading them again.

    Again if they meet in a group, which they set up before loading, or if the libraries hold an accelerator.
    """
    if (
        settings.processes > 1
        or torch.accelerator.is_available()
        or "forkserver" not in multiprocessing.get_all_start_methods()
    ):
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    # DeepSpeed and the model's code are loaded when a trainer is made.
    model = type(load_config(resolve_checkpoint(settings.model))).__module__.replace("configuration_", "modeling_")
    context.set_forkserver_preload([make_trainer.__module__, "deepspeed", model])
    return context


def _check(settings: BenchSettings) -> None:
    resolve_checkpoint(settings.model)
    if settings.images % settings.processes:
        raise UserError(
            f"--images {settings.images} cannot be shared out evenly over --processes {settings.processes}: "
            f"give a multiple of {settings.processes}"
        )
    if len(chosen_samples(load_recipe(RECIPE, overrides(settings, TRL, "unused")))) < settings.images:
        raise UserError(f"{settings.data} has fewer than {settings.images} training images: lower --images")


def _work(way: str, settings: BenchSettings, rank: int, port: int | None, pipe: Connection) -> None:
    """A worker process: trains one way, a step at a time."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    if port is not None:
        join(rank, settings.processes, port)
    with tempfile.TemporaryDirectory() as folder:
        meter = Meter(pipe, settings.seed)
        make_trainer(way, settings, folder, meter).train()
