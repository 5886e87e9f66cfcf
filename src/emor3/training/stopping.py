"""Whatever ends a run leaves it resumable: the last step is saved if it can be, and one line says how to go on.

A resumed run is exact only from the end of a generation cycle, with the random numbers that were next at that point. So
these are kept after every such step, and a step that fails later is saved with them.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object
from safetensors import SafetensorError
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from emor3.errors import UserError
from emor3.runs.directory import resume_hint
from emor3.signals import Stopped, StopRequest, received_by, stop_at_once
from emor3.storage.outputs import hindrance, is_disk_full
from emor3.training.callbacks import NonFiniteError
from emor3.training.trainer import EmoTrainer

NO_MEMORY = (
    "out of memory: free some, set grpo.gradient_checkpointing or a smaller judge.batch_size, and go on, or start a "
    "new run with a smaller grpo.per_device_train_batch_size, grpo.num_generations or model.max_pixels or with "
    "model.lora (`emor3 plan` tells what fits)"
)
CPU_ALLOCATOR = "DefaultCPUAllocator"
"""Torch has no exception of its own for the memory of the CPU, only this word in a RuntimeError."""


class LastStep(TrainerCallback):  # type: ignore[misc]
    """Saves the last step that can be resumed exactly, at a signal or when the next step fails."""

    def __init__(self, run: Path, steps_per_cycle: float) -> None:
        self.run = run
        self.steps_per_cycle = steps_per_cycle
        self.request = StopRequest()
        self.stopped_by = 0
        """Signal on which all ranks stop."""
        self._saved = 0
        self._next: tuple[int, Any] = (0, None)  # a step, and the random numbers after it

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Save as often as the recipe says now: the Trainer takes that from the checkpoint it resumes from."""
        state.save_steps = args.save_steps

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """After the last step of a cycle: keep the random state, and stop if any rank was asked to."""
        asked = max(gather_object([self.request.number]))
        if state.global_step % self.steps_per_cycle == 0:
            self._next = (state.global_step, _random_state())
            if asked:
                self.stopped_by = asked
                control.should_save = control.should_training_stop = True

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Remember what is saved already."""
        self._saved = state.global_step

    @contextmanager
    def saved_on_failure(self, trainer: EmoTrainer) -> Iterator[None]:
        """Save the last step whatever ends training. Raises Stopped after a signal, UserError if a person can fix it.

        A step that failed on one of several ranks is not saved, for which the others would have to take part.
        """
        try:
            with received_by(self.request):
                yield
        except (UserError, RuntimeError, MemoryError) as error:
            if not isinstance(error, UserError) and not is_out_of_memory(error):
                raise
            if trainer.accelerator.num_processes == 1 or isinstance(error, NonFiniteError):
                self._save(trainer)
            if not isinstance(error, UserError):
                raise
            raise UserError(f"{error}; {resume_hint(self.run)}") from None
        if self.stopped_by:
            raise Stopped(self.stopped_by)

    def _save(self, trainer: EmoTrainer) -> None:
        step, after = self._next
        if step == trainer.state.global_step > self._saved:
            _set_random_state(after)
            trainer._save_checkpoint(trainer.model, trial=None)
            trainer.callback_handler.on_save(trainer.args, trainer.state, trainer.control)


@contextmanager
def report_failures(run: Path) -> Iterator[None]:
    """End on one line that says how to resume the run, for signals, a full disk and a lack of memory inside."""
    try:
        with received_by(stop_at_once):
            yield
    except Stopped as stopped:
        raise Stopped(stopped.number, resume_hint(run)) from None
    except (OSError, RuntimeError, MemoryError, SafetensorError) as error:
        if is_out_of_memory(error):
            raise UserError(f"{NO_MEMORY}; {resume_hint(run)}") from None
        if is_disk_full(error):
            raise UserError(
                f"no room to write to {run}, the disk or a quota is full: make room; {resume_hint(run)}"
            ) from None
        reason = hindrance(error)
        if reason is None:
            raise
        raise UserError(f"cannot write to {run}: {reason}; {resume_hint(run)}") from None


def is_out_of_memory(error: Exception) -> bool:
    """Whether an accelerator's or the machine's memory ran out."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or CPU_ALLOCATOR in str(error)


def _random_state() -> tuple[Any, ...]:
    return random.getstate(), np.random.get_state(), torch.get_rng_state(), torch.cuda.get_rng_state_all()


def _set_random_state(state: tuple[Any, ...]) -> None:
    python, numpy, cpu, gpus = state
    random.setstate(python)
    np.random.set_state(numpy)
    torch.set_rng_state(cpu)
    torch.cuda.set_rng_state_all(gpus)
