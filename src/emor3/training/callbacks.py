"""Callbacks of a training run: its progress bar, its records, its evaluation on held-out samples, and two watches.

The watches look at gradients and weights.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
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
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from emor3.errors import UserError
from emor3.heldout.figures import Measurement
from emor3.heldout.samples import HeldOut
from emor3.heldout.settings import HeldOutBlock
from emor3.models.checkpoints import save
from emor3.models.processors import save_processor
from emor3.models.sharding import whole_weights
from emor3.printing import say
from emor3.progress import Lines, steps_bar
from emor3.runs.checkpoint_marks import mark_complete
from emor3.runs.directory import (
    BEST,
    BEST_OF,
    CHECKPOINTS,
    EVALUATIONS,
    HELD_OUT,
    METRICS,
    complete_checkpoints,
    drop_replaced,
    remove_checkpoint,
)
from emor3.runs.evaluations import evaluations_of, held_out_record, is_best
from emor3.runs.records import append_jsonl
from emor3.stats.format import hundredths, thousandths, whole_percent
from emor3.storage.outputs import replacing, write_json

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

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Mapping[str, Any], **_: Any
    ) -> None:
        """Record the figures of a step and move the bar; the summary after the last one is not a step."""
        if state.is_world_process_zero and "loss" in logs:
            append_jsonl(self.run / METRICS, [{"step": state.global_step, **logs}])
            self.steps += 1
            self.seconds.update({name: logs[name] for name in logs if name.startswith(TIME)})
            moved: dict[str, Any] = {"completed": state.global_step}
            if "reward" in logs:  # absent if a step reuses the completions of the one before
                reward, accuracy = map(thousandths, (logs["reward"], logs["rewards/accuracy/mean"]))
                moved["description"] = f"EMO-R3  reward {reward}  accuracy {accuracy}"
            self.progress.update(self.task, **moved)  # at once, so that a line has the figures of its step

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


class HeldOutEvaluation(TrainerCallback):  # type: ignore[misc]
    """Evaluates the policy on held-out samples every so many steps, records what it finds and keeps the best policy.

    Training goes on as if it were not there. All ranks take part in each evaluation.
    """

    def __init__(self, run: Path, settings: HeldOutBlock, held_out: HeldOut, measurement: Measurement) -> None:
        self.run = run
        self.settings = settings
        self.record = held_out_record(held_out)
        """Content of `held_out.json`."""
        self.lines = held_out.lines
        self.measurement = measurement
        self._rows: list[dict[str, float]] = []

    def follow(self, trainer: Trainer, aside: Callable[[], AbstractContextManager[None]] = nullcontext) -> None:
        """Evaluate this trainer's policy from now on, inside of `aside()`."""
        self.trainer, self.aside = trainer, aside
        trainer.add_callback(self)

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Evaluate the start, or the step that a run goes on from if it was killed before it could."""
        self._rows = evaluations_of(self.run)
        if state.is_world_process_zero:
            write_json(self.run / HELD_OUT, self.record)
            for line in self.lines if not self._rows else ():
                say(line)
        self._evaluate_if_due(args, state, control)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Evaluate when it is time, and at the end."""
        self._evaluate_if_due(args, state, control)

    def _evaluate_if_due(self, args: TrainingArguments, state: TrainerState, control: TrainerControl) -> None:
        step = state.global_step
        due = step % self.settings.every == 0 or step == state.max_steps
        if not due or any(row["step"] == step for row in self._rows):
            return
        with self.aside():
            figures = self.measurement.figures(self.trainer.model, self.trainer.processing_class)
            row = {"step": step, "n": len(self.measurement.samples), **figures}
            if is_best(figures, self._rows, self.settings.metric):
                self._keep(row)
        self._rows.append(row)
        if state.is_world_process_zero:
            append_jsonl(self.run / EVALUATIONS, [row])
            say(f"step {step}: held-out {figures_text(figures)} (n = {row['n']})")
        due_to_log = control.should_log
        # For trackers only: a log of TRL's would mix these figures with those of the step.
        self.trainer.callback_handler.on_log(args, state, control, {f"eval_{name}": figures[name] for name in figures})
        control.should_log = due_to_log

    def _keep(self, row: Mapping[str, float]) -> None:
        """Put the policy as it is in place of the best one so far; adapters stay adapters, for they go on learning."""
        weights = whole_weights(self.trainer)
        if self.trainer.accelerator.is_main_process:
            with replacing(self.run / BEST) as folder:
                policy = self.trainer.accelerator.unwrap_model(self.trainer.model)
                save(policy, self.trainer.processing_class, folder, weights)
                metric = self.settings.metric
                write_json(
                    folder / BEST_OF, {"step": row["step"], "metric": metric, "value": row[metric], "n": row["n"]}
                )


def figures_text(figures: Mapping[str, float]) -> str:
    """Figures of an evaluation inside a line: "accuracy 0.625, format 1.000"."""
    return ", ".join(f"{name} {thousandths(value)}" for name, value in figures.items())


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
