"""Around a training step that is itself left as it is: what happens in it, what its policy writes, what it is paid."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from peft import LoraConfig
from torch import Tensor
from torch.nn import Parameter
from transformers import GenerationMixin, PreTrainedModel, ProcessorMixin
from trl import GRPOConfig, GRPOTrainer

from emor3.data.folders import load_samples
from emor3.models.checkpoints import load
from emor3.models.generation import vision_token_ids
from emor3.training.dataset import prompt_dataset

LEARNS = {"entropy_coef": 0.5}
"""Settings of `grpo` under which weights move with a random policy too, which earns nothing: weights that never move
resume exactly whatever is lost."""


def at_step(monkeypatch: pytest.MonkeyPatch, number: int, happen: Callable[[list[Parameter]], object]) -> None:
    """Let something happen once, in the middle of the training step of that number from now, with the weights.

    Their gradients are there by then: accelerate, which is asked for the norm of these in each step, is the place.
    """
    steps, original = [], Accelerator.clip_grad_norm_

    def clip(self: Accelerator, parameters: Iterator[Parameter], *args: Any, **kwargs: Any) -> Tensor | None:
        weights = list(parameters)
        steps.append(None)
        if len(steps) == number:
            happen(weights)
        return original(self, weights, *args, **kwargs)

    monkeypatch.setattr(Accelerator, "clip_grad_norm_", clip)


def writes(monkeypatch: pytest.MonkeyPatch, tokenizer: Any, tell: Callable[[int], Sequence[str]]) -> None:
    """Have every policy write what `tell` makes of the number of prompts, as a random one never would.

    It stands in for transformers' sampling alone: prompts, log-probabilities and the update are computed as ever.
    """

    def generate(self: Any, input_ids: Tensor, **_: Any) -> Tensor:
        ids = [[*tokenizer(text).input_ids, tokenizer.eos_token_id] for text in tell(len(input_ids))]
        longest = max(map(len, ids))
        padded = [[*row, *[tokenizer.pad_token_id] * (longest - len(row))] for row in ids]
        return torch.cat([input_ids, torch.tensor(padded)], dim=1)

    monkeypatch.setattr(GenerationMixin, "generate", generate)


def batches_of(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What TRL computes each loss of the runs to come from."""
    seen, original = [], GRPOTrainer.compute_loss

    def compute_loss(self: Any, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        seen.append(inputs)
        return original(self, model, inputs, *args, **kwargs)

    monkeypatch.setattr(GRPOTrainer, "compute_loss", compute_loss)
    return seen


def trainer_of(
    cls: type[GRPOTrainer],
    folder: Path,
    scenes: str,
    checkpoint: str,
    rewards: Sequence[Any],
    adapters: LoraConfig | None = None,
    **settings: Any,
) -> GRPOTrainer:
    """A trainer on drawn scenes with reward functions of a test's own, which a recipe cannot name."""
    return trainer_on(cls, folder, scenes, load(checkpoint), rewards, adapters, **settings)


def trainer_on(
    cls: type[GRPOTrainer],
    folder: Path,
    scenes: str,
    loaded: tuple[PreTrainedModel, ProcessorMixin],
    rewards: Sequence[Any],
    adapters: LoraConfig | None = None,
    **settings: Any,
) -> GRPOTrainer:
    """The same with a model that is loaded."""
    model, processor = loaded
    samples = load_samples(scenes, split="train")
    config = GRPOConfig(
        **{"max_steps": 1, "max_completion_length": 6, "learning_rate": 1e-3} | settings,
        output_dir=str(folder),
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        bf16=False,
        generation_kwargs={"suppress_tokens": vision_token_ids(processor)},
        remove_unused_columns=False,
        disable_tqdm=True,
    )
    return cls(
        model=model,
        args=config,
        reward_funcs=list(rewards),
        train_dataset=prompt_dataset(samples, "steps", range(len(samples))),
        processing_class=processor,
        peft_config=adapters,
    )
