"""Cold-Start-Emo: a light supervised stage on image -> boxed label that aligns the emotional prior with the label set.

It is short on purpose: label-only supervision run too long collapses out of domain (the paper's table, method.md).
Run long it is the supervised baseline, on labels alone or on reasoning texts.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import torch
from accelerate.state import AcceleratorState
from datasets import Dataset
from peft import LoraConfig
from transformers import PreTrainedModel, PrinterCallback, ProcessorMixin
from trl import SFTConfig, SFTTrainer

from emor3.data.prompt_lengths import Turn, check_context
from emor3.errors import UserError, refused_by
from emor3.method.thinking import sample_prompt
from emor3.method.types import Sample
from emor3.models.checkpoints import learn_in_float32
from emor3.models.sharding import check_shardable, whole_weights
from emor3.runs.recipe import ColdStartBlock
from emor3.training.callbacks import ColdStartLines, HeldOutEvaluation
from emor3.training.dataset import lazy_dataset


def cold_start(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    samples: Sequence[Sample],
    settings: ColdStartBlock,
    template: str,
    seed: int,
    lora: LoraConfig | None,
    on_start: Callable[[], None] = lambda: None,
    evaluation: HeldOutEvaluation | None = None,
) -> tuple[PreTrainedModel, Mapping[str, torch.Tensor] | None]:
    """The model after a few steps on some of the samples, and its weights, None if adapters learnt (not merged).

    `template` is the recipe's prompt template, which goes with reasoning; `on_start` is called before the first step,
    when all that can fail was tried; `evaluation` goes on meanwhile, if there is one. Raises UserError if a sample has
    no reasoning or is too long for the model, for adapters on shards, and for settings that TRL or peft refuse.
    """
    chosen = Random(seed).sample(range(len(samples)), min(settings.samples or len(samples), len(samples)))
    check_context(model, processor, _turns(processor, (samples[place] for place in chosen), settings, template))
    with TemporaryDirectory() as scratch:
        with refused_by("TRL"):
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
                train_dataset=supervised_dataset(samples, chosen, settings, template, processor),
                processing_class=processor,
                peft_config=lora,
            )
        check_shardable(trainer)
        learn_in_float32(trainer.model)
        trainer.remove_callback(PrinterCallback)  # prints its summary as a raw dict
        trainer.add_callback(ColdStartLines())
        if evaluation is not None:
            evaluation.follow(trainer)
        on_start()
        trainer.train()
        weights = whole_weights(trainer)
    AcceleratorState._reset_state()  # DeepSpeed's settings name batch sizes, and reinforcement has others
    return trainer.accelerator.unwrap_model(trainer.model), weights


def supervised_dataset(
    samples: Sequence[Sample],
    order: Sequence[int],
    settings: ColdStartBlock,
    template: str,
    processor: ProcessorMixin | None = None,
) -> Dataset:
    """Rows of prompt, images and completion (boxed label or reasoning)."""
    with_reasoning = settings.targets == "reasoning"
    if with_reasoning:
        for place in order:
            _target(samples[place], with_reasoning)  # says what is missing before a step is made
    row = partial(_supervised_row, _prompt_template(settings, template), with_reasoning)
    return lazy_dataset(samples, order, row, processor)


def _prompt_template(settings: ColdStartBlock, template: str) -> str:
    return settings.template or (template if settings.targets == "reasoning" else "direct")


def _turns(
    processor: ProcessorMixin, samples: Iterable[Sample], settings: ColdStartBlock, template: str
) -> Iterator[Turn]:
    for sample in samples:
        target = _target(sample, settings.targets == "reasoning")
        length = len(processor.tokenizer(target).input_ids)
        yield sample, sample_prompt(sample, _prompt_template(settings, template)), length


def _supervised_row(template: str, with_reasoning: bool, sample: Sample) -> dict[str, Any]:
    return {
        "prompt": [{"role": "user", "content": sample_prompt(sample, template)}],
        "completion": [{"role": "assistant", "content": _target(sample, with_reasoning)}],
    }


def _target(sample: Sample, with_reasoning: bool) -> str:
    if not with_reasoning:
        return f"\\boxed{{{sample.label}}}"
    if sample.reasoning is None:
        raise UserError(f"sample {sample.id!r} has no 'reasoning' to learn from: set cold_start.targets to label")
    return sample.reasoning
