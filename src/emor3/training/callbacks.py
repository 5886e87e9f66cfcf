"""Callbacks of a training run: its progress bar and records, and two watches over gradients and weights."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.optimizer import AcceleratedOptimizer
from torch import Tensor
from torch.distributed.tensor import DTensor
from transformers import (
    PreTrainedModel,
    ProcessorMixin,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from emor3.errors import UserError
from emor3.models.processors import save_processor
from emor3.printing import say
from emor3.progress import Lines, steps_bar
from emor3.runs.checkpoint_marks import mark_complete
from emor3.runs.directory import CHECKPOINTS, METRICS, complete_checkpoints, drop_replaced, remove_checkpoint
from emor3.runs.records import append_jsonl
from emor3.stats.format import hundredths, thousandths, whole_percent

TIME = "time/"
"""Prefix of the figures that count the seconds of a phase."""
WATCHED_STEPS = 3
"""Optimizer steps after which weights should have moved; adapters take two, because one of their halves starts at 0."""
WATCHED_NUMBERS = 4096
"""Of each weight, so that a look at all of them costs nothing."""


class ColdStartLines(TrainerCallback):  # type: ignore[misc]
    """Tells the steps of a cold start in a log file."""

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Begin to count."""
        self.lines = Lines("steps")

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Tell how far it is, now and then."""
        self.lines.tell("cold start", state.global_step, state.max_steps)


class RunCallback(TrainerCallback):  # type: ignore[misc]
    """Writes a run's records from the main process and moves its progress bar."""

    def __init__(self, run: Path, processor: ProcessorMixin, keep: int | None) -> None:
        """`keep`: how many checkpoints stay, None for all."""
        self.run = run
        self.processor = processor
        self.keep = keep
        self.seconds: Counter[str] = Counter()
        self.steps = 0
        self.progress = steps_bar()
        self.task = self.progress.add_task("EMO-R3", total=None)

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Set the bar to where the run goes on."""
        self.progress.update(self.task, completed=state.global_step, total=state.max_steps)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Move the bar."""
        self.progress.update(self.task, completed=state.global_step, total=state.max_steps)

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Mapping[str, Any], **_: Any
    ) -> None:
        """Record the figures of a step; the summary after the last one is not a step."""
        if state.is_world_process_zero and "loss" in logs:
            append_jsonl(self.run / METRICS, [{"step": state.global_step, **logs}])
            self.steps += 1
            self.seconds.update({name: logs[name] for name in logs if name.startswith(TIME)})
            if "reward" in logs:  # absent if a step reuses the completions of the one before
                reward, accuracy = map(thousandths, (logs["reward"], logs["rewards/accuracy/mean"]))
                self.progress.update(self.task, description=f"EMO-R3  reward {reward}  accuracy {accuracy}")

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Mark a checkpoint as complete once every rank has written its part; only then do old ones go."""
        PartialState().wait_for_everyone()
        if state.is_world_process_zero:
            folder = self.run / CHECKPOINTS / f"checkpoint-{state.global_step}"
            save_processor(self.processor, folder)  # as `AutoProcessor` needs it
            mark_complete(folder)
            drop_replaced(self.run)
            if self.keep:
                for old in complete_checkpoints(self.run)[: -self.keep]:
                    remove_checkpoint(old)

    def time_split(self) -> str:
        """Where the time of this process's steps went, on one line: mean seconds and share of each phase."""
        total = self.seconds.total()
        phases = (
            f"{name.removeprefix(TIME)} {hundredths(seconds / self.steps)} s ({whole_percent(seconds / total)})"
            for name, seconds in self.seconds.most_common()
        )
        return f"time per step: {hundredths(total / self.steps)} s = {' + '.join(phases)}"


class NonFiniteError(UserError):
    """The gradient is not finite, which all ranks see at once."""


class StopOnNonFinite(TrainerCallback):  # type: ignore[misc]
    """Stops before an update that would destroy the weights: raises with the last good weights in place."""

    def on_pre_optimizer_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: PreTrainedModel,
        optimizer: AcceleratedOptimizer,
        **_: Any,
    ) -> None:
        """Look at every gradient once; they are finite if the loss is. Raises NonFiniteError if one is not.

        DeepSpeed shows none: it has made its step by now, or skipped it for the same reason and would go on.
        """
        norms = [p.grad.detach().float().norm() for p in model.parameters() if p.grad is not None]
        finite = not norms or bool(torch.isfinite(torch.stack(norms)).all())
        if not finite or optimizer.step_was_skipped:
            raise NonFiniteError(
                f"the loss is not finite at step {state.global_step + 1}: training stopped before the update; "
                "lower grpo.learning_rate or grpo.max_grad_norm in a new run"
            )


class MovingWeights(TrainerCallback):  # type: ignore[misc]
    """Warns once if more than half of the trained weights are as they were after the first updates.

    Not under DeepSpeed, which learns in a float32 copy that rounds to the same weights for a while.
    """

    def __init__(self) -> None:
        self.unmoved: float | None = None
        """Share of the trained weights that did not change, once it is known."""
        self._start: dict[str, Tensor] = {}
        self._updates = 0

    def on_pre_optimizer_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: PreTrainedModel,
        optimizer: Any,
        **_: Any,
    ) -> None:
        """Remember the weights before the first update with a gradient and a learning rate, and count these."""
        if args.deepspeed or self.unmoved is not None:
            return
        learns = any(group["lr"] > 0 for group in optimizer.param_groups)
        gradients = (p.grad for p in model.parameters() if p.grad is not None)
        if learns and any(bool(_some(gradient).any()) for gradient in gradients):
            self._start = self._start or {name: value.clone() for name, value in _trained(model)}
            self._updates += 1

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: PreTrainedModel, **_: Any
    ) -> None:
        """Compare, after so many updates."""
        if self.unmoved is not None or self._updates < WATCHED_STEPS:
            return
        sizes = {name: p.numel() for name, p in model.named_parameters()}
        same = sum(
            sizes[name] * (now == self._start[name]).float().mean().item()
            for name, now in _trained(model)
            if now.numel()
        )
        self.unmoved = same / sum(sizes[name] for name in self._start)
        self._start.clear()
        if self.unmoved > 0.5 and state.is_world_process_zero:
            say(
                f"warning: {whole_percent(self.unmoved)} of the trained weights did not change in {self._updates} "
                f"updates: raise grpo.learning_rate ({args.learning_rate:g}), updates this small are lost in rounding"
            )


def _trained(model: PreTrainedModel) -> list[tuple[str, Tensor]]:
    return [(name, _some(p)) for name, p in model.named_parameters() if p.requires_grad]


def _some(weight: Tensor) -> Tensor:
    """Some numbers of a weight, spread evenly; of a sharded one, of this process's part."""
    own = weight.detach()
    local = own.to_local() if isinstance(own, DTensor) else own
    return local.flatten()[:: max(1, local.numel() // WATCHED_NUMBERS)]
