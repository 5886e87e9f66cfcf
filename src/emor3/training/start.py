"""What the start model can do before the first step, and whether its trained weights move in the first ones.

Reinforcement learning pays what the start model already does now and then. A model that never keeps the format, or
never names a label of the set, is paid nothing, and so is one whose weights are too coarse for the learning rate.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState
from transformers.training_args import TrainingArguments

from emor3.method.rewards import predicted_label
from emor3.method.types import EmotionalThought, Sample
from emor3.printing import say

RARE = 0.1
"""A share of completions below this is too few to learn from."""
WATCHED_STEPS = 3
"""Optimizer steps after which weights should have moved; adapters take two, because one of their halves starts at 0."""
WATCHED_NUMBERS = 4096
"""Of each weight, so that a look at all of them costs nothing."""


@dataclass(frozen=True)
class StartFigures:
    """How many of n sampled completions of the start model keep the format, and name a label of the set."""

    n: int
    format: int
    named: int
    temperature: float

    def line(self) -> str:
        """The figures on one line, with a warning on another if almost no completion can be paid."""
        text = (
            f"start model: {self.format} of {self.n} completions keep the format, {self.named} name a label of the set "
            f"(one for each of {self.n} training images, temperature {self.temperature:g})"
        )
        lacks = [
            what
            for what, count in (("keeps the format", self.format), ("names a label of the set", self.named))
            if count < RARE * self.n
        ]
        if not lacks:
            return text
        return (
            f"{text}\nwarning: almost none {' or '.join(lacks)}, so there is hardly a reward to learn from: "
            "try another start model, a cold start (a shorter one if there is one), or a prompt template it follows"
        )


def start_figures(samples: Sequence[Sample], thoughts: Sequence[EmotionalThought], temperature: float) -> StartFigures:
    """Figures of one parsed completion for each of n samples.

    Two of four in the right format and three with a label of the set: `StartFigures(4, 2, 3, 1.0)`.
    """
    named = [
        predicted_label(thought, sample.labels) is not None for sample, thought in zip(samples, thoughts, strict=True)
    ]
    return StartFigures(
        len(thoughts), sum(thought.problem is None for thought in thoughts), sum(named), float(temperature)
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
                f"warning: {self.unmoved:.0%} of the trained weights did not change in {self._updates} updates: "
                f"raise grpo.learning_rate ({args.learning_rate:g}), updates this small are lost in rounding"
            )


def _trained(model: PreTrainedModel) -> list[tuple[str, Tensor]]:
    return [(name, _some(p)) for name, p in model.named_parameters() if p.requires_grad]


def _some(weight: Tensor) -> Tensor:
    """Some numbers of a weight, spread evenly; of a sharded one, of this process's part."""
    own = weight.detach()
    local = own.to_local() if isinstance(own, DTensor) else own
    return local.flatten()[:: max(1, local.numel() // WATCHED_NUMBERS)]
