"""An exponential moving average of the policy's weights as the judge, saved beside each checkpoint."""

import copy
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState
from transformers.training_args import TrainingArguments

EMA = "judge_ema.safetensors"
"""The moving average, saved beside each checkpoint so that a resumed run judges as if it had never stopped."""


class MovingAverage(TrainerCallback):  # type: ignore[misc]
    """A copy of the policy that follows it: weights = decay * weights + (1 - decay) * policy, after every step."""

    def __init__(self, policy: PreTrainedModel, decay: float, folder: Path, checkpoint: Path | None) -> None:
        self.decay = decay
        self.folder = folder
        self.model = copy.deepcopy(policy).eval().requires_grad_(False)
        if checkpoint is not None:
            self.model.load_state_dict(load_file(checkpoint / EMA), strict=False)  # tied weights are stored once

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: PreTrainedModel, **_: Any
    ) -> None:
        """Move towards the policy."""
        with torch.no_grad():
            for average, current in zip(self.model.parameters(), model.parameters(), strict=True):
                average.lerp_(current.detach(), 1 - self.decay)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Save beside the checkpoint."""
        if state.is_world_process_zero:
            folder = self.folder / f"checkpoint-{state.global_step}"
            save_file({name: p.contiguous() for name, p in self.model.named_parameters()}, folder / EMA)
