"""Cold-Start-Emo: a light supervised stage on image -> boxed label that aligns the emotional prior with the label set.

It is short on purpose: label-only supervision run too long collapses out of domain (the paper's table, method.md).
"""

from collections.abc import Sequence
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import PreTrainedModel, ProcessorMixin
from trl import SFTConfig, SFTTrainer

from emor3.config import ColdStartBlock
from emor3.generation import open_image
from emor3.thinking import build_prompt
from emor3.types import Sample


def cold_start(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    samples: Sequence[Sample],
    settings: ColdStartBlock,
    seed: int,
    lora: LoraConfig | None,
) -> PreTrainedModel:
    """The model after a few steps on some of the samples, all weights or adapters (merged at the end)."""
    chosen = Random(seed).sample(list(samples), min(settings.samples, len(samples)))
    with TemporaryDirectory() as scratch:
        trainer = SFTTrainer(
            model=model,
            args=SFTConfig(
                output_dir=scratch,  # TRL asks for one; nothing is saved there
                save_strategy="no",
                max_steps=settings.steps,
                per_device_train_batch_size=settings.batch_size,
                learning_rate=settings.learning_rate,
                completion_only_loss=True,
                max_length=None,
                gradient_checkpointing=False,
                bf16=torch.accelerator.is_available(),
                use_cpu=not torch.accelerator.is_available(),
                remove_unused_columns=False,
                report_to="none",
                disable_tqdm=True,
                seed=seed,
            ),
            train_dataset=label_only_dataset(chosen, settings.template),
            processing_class=processor,
            peft_config=lora,
        )
        trainer.train()
    policy = trainer.accelerator.unwrap_model(trainer.model)
    return policy if lora is None else policy.merge_and_unload()


def label_only_dataset(samples: Sequence[Sample], template: str) -> Dataset:
    """Rows of prompt, image and the boxed label as completion; images are opened when a batch is made."""
    rows = [
        {
            "prompt": [{"role": "user", "content": build_prompt(sample.labels, template)}],
            "completion": [{"role": "assistant", "content": f"\\boxed{{{sample.label}}}"}],
            "image": sample.image,
        }
        for sample in samples
    ]
    return Dataset.from_list(rows).with_transform(with_images)


def with_images(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """A batch of rows with each image's path replaced by the picture; equal paths are opened once."""
    opened = {path: open_image(path) for path in set(batch["image"])}
    return {**batch, "image": [opened[path] for path in batch["image"]]}
