"""The ways to train a step that are compared, on the same prompts with a learning rate of zero."""

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PrinterCallback, ProcessorMixin
from trl import GRPOTrainer

from emor3.experiments.quickstart import RECIPE
from emor3.judges.build import build_judge
from emor3.judges.local import evaluating
from emor3.method.labels import MIKELS8, PLUTCHIK8, WEBEMO25
from emor3.method.reflection import ask, read_verdict
from emor3.method.rewards import verdict_value
from emor3.method.thinking import parse
from emor3.method.types import Aspect, Question, Reply, Sample
from emor3.models.architectures import set_area
from emor3.models.generation import Request, chat, vision_token_ids
from emor3.runs.recipe import load_recipe
from emor3.storage.images import open_image
from emor3.tools.bench.meter import Meter
from emor3.tools.bench.updates import EveryUpdate
from emor3.training.dataset import chosen_samples, prompt_dataset, training_order
from emor3.training.run import load_policy
from emor3.training.scorer import BatchScorer, part_rewards
from emor3.training.trainer import EmoTrainer
from emor3.training.trl_config import grpo_config

TRL, STRAIGHT, OURS, OURS_BARE = "trl", "trl + straightforward reflection", "emor3", "emor3 without reflection"
EVERY = "emor3 without reflection, every update"
"""As OURS_BARE, with the update of each step taken by each of our ways."""
TRAINERS = {OURS: EmoTrainer, OURS_BARE: EmoTrainer, EVERY: EveryUpdate}
"""Trainers of the ways that are not TRL's own."""
REPLY_TOKENS = 16
"""Longest reply of the straightforward judge: enough for every label, and shorter than people usually allow."""


@dataclass(frozen=True)
class BenchSettings:
    """The work of a step and how often it is measured."""

    model: str = "embedded"
    data: str = "embedded:scenes8"
    images: int = 8
    completions: int = 8
    """Completions per image, G."""
    max_tokens: int = 96
    pixels: int | None = None
    """Scale every image to about this area; None leaves it as the checkpoint has it."""
    labels: int | None = None
    """Ask for this many labels, the data's own among them; None takes the data's."""
    checkpointing: bool = False
    """Recompute the layers in the backward pass: no cache can be kept, and packed rows share the prompts."""
    rounds: int = 7
    seed: int = 0
    processes: int = 1
    """Processes that train together, sharded by FSDP2; on a CPU each has its share of the cores."""


class StraightforwardReflection:
    """The obvious way: for each completion two more sampled generations, over a freshly processed image."""

    __name__ = "reflection"

    def __init__(self, processor: ProcessorMixin) -> None:
        self.processor = processor
        self.model: PreTrainedModel | None = None

    def __call__(self, completions: Sequence[Any], sample: Sequence[Sample], **_: Any) -> list[float]:
        earned = [0.0] * len(completions)
        asked: list[tuple[int, Question]] = []
        for place, (completion, shown) in enumerate(zip(completions, sample, strict=True)):
            questions = ask(shown, parse(completion[0]["content"]), frozenset(Aspect))
            asked += [(place, question) for question in questions.values() if isinstance(question, Question)]
        for aspect in Aspect:
            mine = [(place, question) for place, question in asked if question.aspect is aspect]
            replies = self._sample([(question.images, question.text) for _, question in mine])
            for (place, question), reply in zip(mine, replies, strict=True):
                label, labels = sample[place].label, sample[place].labels
                earned[place] += verdict_value(read_verdict(question, Reply(reply), label, labels)) / 2
        return earned

    def _sample(self, requests: list[Request]) -> list[str]:
        assert self.model is not None, "bind the trainer's model before training"
        if not requests:
            return []
        chats = [chat(text, len(paths)) for paths, text in requests]
        texts = self.processor.apply_chat_template(chats, tokenize=False, add_generation_prompt=True)
        images = [open_image(path) for paths, _ in requests for path in paths]
        inputs = self.processor(
            text=texts, images=images or None, padding=True, padding_side="left", return_tensors="pt"
        ).to(self.model.device)
        with evaluating(self.model):
            output = self.model.generate(**inputs, max_new_tokens=REPLY_TOKENS, do_sample=True, temperature=0.6)
        made = output[:, inputs["input_ids"].shape[1] :]
        replies: list[str] = self.processor.batch_decode(made, skip_special_tokens=True)
        return replies


def ways_of(settings: BenchSettings) -> tuple[str, ...]:
    """The ways that are compared.

    Straightforward reflection is for one process: its ranks would sample for different numbers of questions, and wait
    for each other for ever on a sharded model.
    """
    return (TRL, STRAIGHT, OURS, OURS_BARE) if settings.processes == 1 else (TRL, OURS, OURS_BARE)


def overrides(settings: BenchSettings, way: str, folder: str) -> list[str]:
    bare = [] if way == OURS else ["reward.reflective=0"]
    labels = [] if settings.labels is None else [f"data.labels={json.dumps(_labels(settings.labels))}"]
    return [
        f"output_dir={folder}",
        f"seed={settings.seed}",
        f"model.path={settings.model}",
        f"data.train={settings.data}",
        *bare,
        f"grpo.num_generations={settings.completions}",
        f"grpo.per_device_train_batch_size={settings.images * settings.completions // settings.processes}",
        f"grpo.max_completion_length={settings.max_tokens}",
        f"grpo.gradient_checkpointing={settings.checkpointing}",
        f"grpo.max_steps={settings.rounds + 1}",
        f"grpo.save_steps={settings.rounds + 2}",
        "grpo.learning_rate=0.0",
        *labels,
    ]


def _labels(count: int) -> list[str]:
    """The data's eight labels and others from the built-in sets."""
    return list(dict.fromkeys(name for labels in (MIKELS8, WEBEMO25, PLUTCHIK8) for name in labels.labels))[:count]


def make_trainer(way: str, settings: BenchSettings, folder: str, meter: Meter) -> GRPOTrainer:
    """The trainer of one way; the meter counts its models and its processor."""
    warnings.simplefilter("ignore", FutureWarning)  # of TRL's, about names that transformers has changed
    recipe = load_recipe(RECIPE, overrides(settings, way, folder))
    chosen = chosen_samples(recipe)
    config = grpo_config(recipe, Path(folder), len(chosen))  # before the model: shards are set up here
    model, processor = load_policy(recipe, recipe.model.path, None)
    if settings.pixels is not None:
        set_area(processor, settings.pixels, settings.pixels)
    config.save_strategy = "no"
    config.generation_kwargs = {"suppress_tokens": vision_token_ids(processor)}
    judge = build_judge(recipe.judge, model, processor)
    scorer = BatchScorer(recipe.thinking, recipe.reward, settings.completions, lambda: judge)
    parts, config.reward_weights = part_rewards(scorer)
    functions: list[Any] = list(parts)
    straight = StraightforwardReflection(processor)
    if way == STRAIGHT:
        functions.append(straight)
        config.reward_weights.append(0.1)
    order = training_order(len(chosen), settings.images * (settings.rounds + 1), settings.seed)
    trainer = TRAINERS.get(way, GRPOTrainer)(
        model=model,
        args=config,
        reward_funcs=functions,
        train_dataset=prompt_dataset(chosen, recipe.prompt_template, order, processor),
        processing_class=processor,
        callbacks=[meter],
    )
    trainer.remove_callback(PrinterCallback)
    if settings.processes > 1:
        # accelerate does not mark what it shards by FSDP2, and TRL's ranks, which end rollouts after unlike numbers of
        # tokens, would wait for each other for ever.
        trainer.model._is_fsdp_managed_module = True
    if isinstance(trainer, EveryUpdate):
        trainer.on_tried = meter.tried
    straight.model = trainer.model
    meter.count(model)
    if trainer.ref_model is not None:
        meter.count(trainer.ref_model)
    meter.count_images(processor)
    meter.count_rollouts(trainer)
    meter.count_rewards(trainer)
    return trainer
