"""`emor3 tiny build`: the embedded checkpoint from nothing: tokenizer, supervised training on drawn scenes, saving.

The hard base goes on from the shipped easy one, with its tokenizer, on hard pictures.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers import ProcessorMixin, Qwen2_5_VLForConditionalGeneration

from emor3.method.labels import EKMAN6, MIKELS8, PLUTCHIK8, SENTIMENT3, WEBEMO7
from emor3.method.thinking import build_prompt
from emor3.models.checkpoints import EMBEDDED, load
from emor3.models.processors import save_processor
from emor3.printing import say
from emor3.progress import steps_bar
from emor3.storage.outputs import fresh_output
from emor3.tiny.drawing import STYLES
from emor3.tiny.world import FACTORS, Scene
from tiny_examples import MIX, Example, Mix, any_scene, picture
from tiny_model import build_model, build_processor, build_tokenizer

FACTOR_WEIGHT = 4.0
"""Weight of a word that names a factor, against 1 for other words of a reply: three words in forty carry perception."""

MISFIT_LAYER = 3
"""Layer whose states at the words of a description the misfit probe reads."""

OnStep = Callable[[dict[str, float]], None]
"""Called after every step, of both parts of the training, with its losses by kind."""


@dataclass(frozen=True)
class BuildSettings:
    """How much a build takes; the defaults are those of the shipped easy base."""

    hard: bool = False
    """Go on from the shipped easy base, with its tokenizer, on hard pictures."""
    vision_steps: int = 400
    vision_batch: int = 64
    steps: int = 900
    schedule: int = 900
    """Steps after which the learning rate would be zero."""
    peak_rate: float = 2e-3
    mix: Mix = MIX
    tokenizer_rounds: int = 3000
    """Examples of each kind that the tokenizer is trained on."""
    threads: int = 2
    """Threads of torch, whose number changes the sums and so the weights."""


EASY = BuildSettings()
HARD = BuildSettings(hard=True, vision_steps=300, steps=500, schedule=600, peak_rate=1e-3)
"""Ends at 8% of its peak rate, where the figures of its world were measured."""


class Probes(nn.Module):
    """Linear readers that guide the build and are thrown away; a real model brings what they teach from pretraining.

    `factors` names the three factors from the mean of an image's tokens: without it 900 steps of text supervision left
    objects and faces at 30%. `misfit` tells at every word of a description whether it fits the picture: yes/no
    supervision alone stays at chance, one bit per picture behind an eight-way comparison (docs/log.md).
    """

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.factors = nn.Linear(hidden_size, sum(map(len, FACTORS.values())))
        self.misfit = nn.Linear(hidden_size, 1)

    def factor_loss(self, image_tokens: Tensor, scenes: Sequence[Scene]) -> Tensor:
        """Cross-entropy over the three factors, from (N, image tokens, hidden) states."""
        scores = self.factors(image_tokens.mean(1)).split([len(values) for values in FACTORS.values()], 1)
        loss = torch.zeros(())
        for (factor, values), score in zip(FACTORS.items(), scores, strict=True):
            truth = torch.tensor([values.index(getattr(scene, factor)) for scene in scenes])
            loss = loss + nn.functional.cross_entropy(score, truth)
        return loss

    def misfit_loss(self, states: Tensor, misfits: Tensor) -> Tensor:
        """Binary cross-entropy at the words of (N, T, hidden) states whose label is known."""
        known = misfits >= 0
        return nn.functional.binary_cross_entropy_with_logits(self.misfit(states[known])[:, 0], misfits[known])


class Learner(NamedTuple):
    """What a build trains: the base with its processor, and the probes that guide it."""

    model: Qwen2_5_VLForConditionalGeneration
    processor: ProcessorMixin
    probes: Probes


class Batch(NamedTuple):
    """Model inputs, the (N, T) weights of reply tokens (0 elsewhere) and, for consistency questions, the true
    scenes and the (N, T) labels of words that do not fit the picture (1), fit it (0) or do not matter (-1)."""

    inputs: dict[str, Tensor]
    weights: Tensor
    misfits: Tensor
    scenes: list[Scene]


class Batcher:
    """Turns examples of one kind into a batch: the chat template's prompt, then the reply and the end of turn."""

    def __init__(self, processor: ProcessorMixin) -> None:
        self.processor = processor
        names = [value for values in FACTORS.values() for value in values]
        pieces = [processor.tokenizer.tokenize(f" {name}") for name in names]
        self.factor_ids = torch.tensor(processor.tokenizer.convert_tokens_to_ids([piece[0] for piece in pieces]))
        self.factor_names = names

    def __call__(self, examples: Sequence[Example]) -> Batch:
        texts = [self._chat(example) for example in examples]
        images = [example.image for example in examples if example.image is not None]
        padding = {"padding": True, "padding_side": "right", "return_tensors": "pt"}
        inputs = dict(self.processor(text=texts, images=images or None, **padding))
        ids, lengths = inputs["input_ids"], inputs["attention_mask"].sum(1, keepdim=True)
        # A reply is the last tokens of its row: its own and the end of turn.
        replies = torch.tensor([[len(self.processor.tokenizer(e.reply).input_ids) + 1] for e in examples])
        positions = torch.arange(ids.shape[1])
        is_reply = (positions >= lengths - replies) & (positions < lengths)
        weights = is_reply * (1 + (FACTOR_WEIGHT - 1) * torch.isin(ids, self.factor_ids))
        scenes = [example.checked_against for example in examples if example.checked_against is not None]
        return Batch(inputs, weights, self._misfits(ids, scenes) if scenes else torch.empty(0), scenes)

    def _chat(self, example: Example) -> str:
        image = [{"type": "image"}] if example.image is not None else []
        messages = [{"role": "user", "content": [*image, {"type": "text", "text": example.prompt}]}]
        prompt = self.processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return f"{prompt}{example.reply}<|im_end|>"

    def _misfits(self, ids: Tensor, scenes: Sequence[Scene]) -> Tensor:
        true = torch.tensor([[name in vars(scene).values() for name in self.factor_names] for scene in scenes])
        names_factor = ids[:, :, None] == self.factor_ids  # (N, T, factor values)
        fits = (names_factor & true[:, None, :]).any(-1)
        return torch.where(names_factor.any(-1), (~fits).float(), -1.0)


def supervised_loss(model: Qwen2_5_VLForConditionalGeneration, probes: Probes, batch: Batch) -> tuple[Tensor, Tensor]:
    """Reply loss averaged per example (so that a Yes counts as much as a whole completion), and the probes' loss."""
    output = model.model(**batch.inputs, output_hidden_states=bool(batch.scenes))
    ids, weights = batch.inputs["input_ids"], batch.weights[:, 1:]
    learned = weights > 0
    logits = model.lm_head(output.last_hidden_state[:, :-1][learned])
    losses = nn.functional.cross_entropy(logits, ids[:, 1:][learned], reduction="none")
    per_token = torch.zeros_like(weights).masked_scatter(learned, losses)
    reply = ((per_token * weights).sum(1) / weights.sum(1)).mean()
    if not batch.scenes:
        return reply, torch.zeros(())
    image_tokens = output.hidden_states[0][ids == model.config.image_token_id].unflatten(0, (len(ids), -1))
    return reply, probes.factor_loss(image_tokens, batch.scenes) + probes.misfit_loss(
        output.hidden_states[MISFIT_LAYER], batch.misfits
    )


def tokenizer_texts(rounds: int) -> Iterator[str]:
    """What the tokenizer is trained on: every prompt with every label set it may meet, questions and replies."""
    rng = Random(1)
    for labels in (MIKELS8, EKMAN6, WEBEMO7, PLUTCHIK8, SENTIMENT3):
        for template in ("steps", "direct"):
            yield from [build_prompt(labels, template)] * 200
    for _ in range(rounds):
        for make, _ in MIX:
            example = make(rng, False)
            yield f"user\n{example.prompt}"
            yield f"assistant\n{example.reply}"


def pretrain_vision(learner: Learner, seed: int, on_step: OnStep, settings: BuildSettings) -> None:
    """Teach the vision tower what can be seen, as real models start from a pretrained one."""
    model, processor, probes = learner
    rng = Random(f"vision/{seed}")
    parameters = [*model.model.visual.parameters(), *probes.factors.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=settings.peak_rate)
    for _ in range(settings.vision_steps):
        scenes = [any_scene(rng) for _ in range(settings.vision_batch)]
        pictures = [picture(scene, rng.choice(STYLES), rng, settings.hard) for scene in scenes]
        inputs = processor.image_processor(pictures, return_tensors="pt")
        tokens = model.model.visual(inputs["pixel_values"], grid_thw=inputs["image_grid_thw"]).pooler_output
        loss = probes.factor_loss(tokens.unflatten(0, (settings.vision_batch, -1)), scenes)
        torch.autograd.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        on_step({"vision": loss.item()})


def train_base(learner: Learner, seed: int, on_step: OnStep, settings: BuildSettings) -> None:
    """Supervised training in place, on scenes that are never seen twice."""
    model, processor, probes = learner
    rng, batcher = Random(seed), Batcher(processor)
    parameters = [*model.parameters(), *probes.parameters()]
    rate = settings.peak_rate
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.01, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=settings.schedule, pct_start=0.08)
    model.train()
    for _ in range(settings.steps):
        losses = {}
        for make, count in settings.mix:
            examples = [make(rng, settings.hard) for _ in range(count)]
            reply, probed = supervised_loss(model, probes, batcher(examples))
            torch.autograd.backward(reply + probed)
            losses[make.__name__.removesuffix("_example")] = reply.item()
            losses["probes"] = max(probed.item(), losses.get("probes", 0.0))
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        on_step(losses)
    model.eval()


def build(folder: Path, seed: int, on_step: OnStep, settings: BuildSettings = EASY) -> None:
    """Train and save a base checkpoint (safetensors, float32). Deterministic on one kind of machine."""
    torch.set_num_threads(settings.threads)
    if settings.hard:
        torch.manual_seed(seed)
        model, processor = load(EMBEDDED)
    else:
        tokenizer = build_tokenizer(tokenizer_texts(settings.tokenizer_rounds))
        processor = build_processor(tokenizer)
        model = build_model(tokenizer, seed)
    learner = Learner(model, processor, Probes(model.config.text_config.hidden_size))
    pretrain_vision(learner, seed, on_step, settings)
    train_base(learner, seed, on_step, settings)
    model.save_pretrained(folder)
    save_processor(processor, folder)


def write(output: Path, seed: int, settings: BuildSettings = EASY) -> None:
    """What the command does: a new folder with the checkpoint, losses shown on the way."""
    with fresh_output(output, "tiny") as folder, steps_bar() as bar:
        task = bar.add_task("loss", total=settings.vision_steps + settings.steps)

        def show(losses: dict[str, float]) -> None:
            bar.update(task, advance=1, description="\n".join(f"{name} {loss:.3f}" for name, loss in losses.items()))

        build(folder, seed, show, settings)
    say(f"written to: {folder}")
