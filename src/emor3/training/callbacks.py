"""What a training run shows and records while it goes: a bar with ETA, `metrics.jsonl`, complete checkpoints."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from accelerate import PartialState
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from transformers import ProcessorMixin, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from emor3.models.processors import save_processor
from emor3.printing import console
from emor3.runs.checkpoint_marks import mark_complete
from emor3.runs.directory import (
    CHECKPOINTS,
    METRICS,
    append_jsonl,
    complete_checkpoints,
    drop_replaced,
    remove_checkpoint,
)

DESCRIPTION = TextColumn("{task.description}", markup=False)
"""What a bar is of: a name that a person gave, in which brackets are only brackets."""
TIME = "time/"
"""Prefix of the figures that count the seconds of a phase."""


def training_bar() -> Progress:
    """A bar that stays when it is done, with its last description; where there is no terminal it is printed once."""
    columns = (MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("ETA"), TimeRemainingColumn())
    return Progress(DESCRIPTION, BarColumn(), *columns)


def evaluation_bar() -> Progress:
    """A bar with ETA on standard error that goes away when it is done; none where there is no terminal."""
    shown = console(error=True)
    return Progress(
        DESCRIPTION, *Progress.get_default_columns()[1:], console=shown, transient=True, disable=not shown.is_terminal
    )


class RunCallback(TrainerCallback):  # type: ignore[misc]
    """Writes a run's records from the main process and moves its progress bar."""

    def __init__(self, run: Path, processor: ProcessorMixin, keep: int | None) -> None:
        """`keep`: how many checkpoints stay, None for all."""
        self.run = run
        self.processor = processor
        self.keep = keep
        self.seconds: Counter[str] = Counter()
        self.steps = 0
        self.progress = training_bar()
        self.task = self.progress.add_task("EMO-R3", total=None)

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
            if "reward" in logs:  # absent where a step reuses the completions of the one before
                accuracy = logs["rewards/accuracy/mean"]
                self.progress.update(
                    self.task, description=f"EMO-R3  reward {logs['reward']:.3f}  accuracy {accuracy:.3f}"
                )

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
            f"{name.removeprefix(TIME)} {seconds / self.steps:.2f} s ({seconds / total:.0%})"
            for name, seconds in self.seconds.most_common()
        )
        return f"time per step: {total / self.steps:.2f} s = {' + '.join(phases)}"
