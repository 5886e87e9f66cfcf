"""Who judges a training run: the policy itself, the start model, or a moving average of the policy; and how well.

Before the first step the judge is tried on descriptions that the policy gives of training images: each with its own
image and with another one. A judge that cannot tell these apart makes the consistency reward noise.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from sklearn.metrics import roc_auc_score
from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState
from transformers.training_args import TrainingArguments

from emor3.method.reflection import consistency_question, says_yes
from emor3.method.types import EmotionalThought, Judge, Sample

EMA = "judge_ema.safetensors"
"""The moving average, saved beside each checkpoint so that a resumed run judges as if it had never stopped."""

WEAK_AUC = 0.7


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


@dataclass(frozen=True)
class Calibration:
    """How well a judge tells an image's own description from another one's, before training."""

    auc: float
    yes_own: float
    yes_swapped: float
    n: int

    def line(self) -> str:
        """The finding on one line, with a warning where it is bad."""
        text = (
            f"judge: AUC {self.auc:.2f} between own and swapped descriptions of {self.n} images "
            f"(yes to {self.yes_own:.0%} and {self.yes_swapped:.0%})"
        )
        if self.auc >= WEAK_AUC:
            return text
        return f"{text}\nwarning: this judge hardly sees, its consistency reward is noise: try another judge.model"


def calibrate(judge: Judge, samples: Sequence[Sample], thoughts: Sequence[EmotionalThought]) -> Calibration | None:
    """Try a judge on the policy's descriptions of n samples, one parsed completion for each.

    None if fewer than two samples have usable, unlike ones, and if the judge fails on all of them.
    """
    described = [
        (sample, thought.trigger)
        for sample, thought in zip(samples, thoughts, strict=True)
        if thought.trigger is not None
    ]
    pairs = [
        (sample, text, other)
        for place, (sample, text) in enumerate(described)
        if (other := next((t for _, t in described[place + 1 :] + described[:place] if t != text), None))
    ]
    if not pairs:
        return None
    own_questions = [consistency_question(sample.images, text, sample.text) for sample, text, _ in pairs]
    swapped_questions = [consistency_question(sample.images, other, sample.text) for sample, _, other in pairs]
    replies = judge.answer([*own_questions, *swapped_questions])
    answered = [
        (says_yes(first), says_yes(second))
        for first, second in zip(replies[: len(pairs)], replies[len(pairs) :], strict=True)
        if first.error is None and second.error is None
    ]
    if not answered:
        return None
    own, swapped = (list(scores) for scores in zip(*answered, strict=True))
    auc = float(roc_auc_score([1] * len(own) + [0] * len(swapped), own + swapped))
    yes_own, yes_swapped = (sum(score > 0.5 for score in part) / len(part) for part in (own, swapped))
    return Calibration(auc, yes_own, yes_swapped, len(answered))
