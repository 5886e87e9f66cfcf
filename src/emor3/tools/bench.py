"""`emor3 bench step`: what a training step costs, against TRL without reflection and with straightforward reflection.

Each way runs in a process of its own, takes the same prompts in the same order with a learning rate of zero, and they
take turns step by step, so that whatever else the machine does hits all of them. The first step of each is left out.
"""

import json
import multiprocessing
import resource
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import torch
import transformers
from rich import box
from rich.table import Table
from transformers import PreTrainedModel, PrinterCallback, ProcessorMixin, TrainerCallback, set_seed
from transformers.image_utils import make_flat_list_of_images
from trl import GRPOTrainer

from emor3.errors import UserError
from emor3.experiments.quickstart import RECIPE
from emor3.judges.local import ScoreJudge, evaluating
from emor3.method.labels import MIKELS8, PLUTCHIK8, WEBEMO25
from emor3.method.reflection import ask, read_verdict
from emor3.method.rewards import verdict_value
from emor3.method.thinking import parse
from emor3.method.types import Aspect, Question, Reply, Sample
from emor3.models.architectures import images_encoded, set_area
from emor3.models.checkpoints import resolve_checkpoint
from emor3.models.generation import Request, chat, vision_token_ids
from emor3.runs.recipe import load_recipe
from emor3.runs.records import environment_stamp
from emor3.stats.format import count, hundredths, points, thousandths
from emor3.storage.images import open_image
from emor3.training.dataset import chosen_samples, prompt_dataset, training_order
from emor3.training.run import load_policy
from emor3.training.scorer import BatchScorer, part_rewards
from emor3.training.trainer import EmoTrainer
from emor3.training.trl_config import grpo_config

TRL, STRAIGHT, OURS, OURS_BARE = "trl", "trl + straightforward reflection", "emor3", "emor3 without reflection"
WAYS = (TRL, STRAIGHT, OURS, OURS_BARE)
Clock = Literal["seconds", "cpu_seconds"]
CLOCKS: tuple[Clock, ...] = get_args(Clock)
RATIOS = {
    "emor3 / trl": (OURS, TRL),
    "emor3 without reflection / trl": (OURS_BARE, TRL),
    "straightforward / emor3": (STRAIGHT, OURS),
}
ADDED = {
    "reflection adds to a trl step": (OURS, OURS_BARE),
    "straightforward reflection adds to a trl step": (STRAIGHT, TRL),
}
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


@dataclass
class StepCost:
    """What one step took. Positions are those that pass through the language model, padding included."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    """Seconds of this process on the CPU: what a loaded machine does not stretch."""
    positions: int = 0
    forwards: int = 0
    encoded: int = 0
    """Images that passed through a vision tower."""
    processed: int = 0
    """Images that passed through the image processor, in this many calls."""
    calls: int = 0
    peak_mib: float = 0.0


class Turns(Protocol):
    """Where a worker says that it is ready or what a step took, and waits for its turn."""

    def send(self, message: Any, /) -> None: ...

    def recv(self) -> Any: ...


class Meter(TrainerCallback):  # type: ignore[misc]
    """Callback that runs one step at each turn, and reports its cost."""

    def __init__(self, pipe: Turns, seed: int) -> None:
        self.pipe = pipe
        self.seed = seed
        self.cost = StepCost()
        self.start = self.cpu_start = 0.0

    def count(self, model: PreTrainedModel) -> None:
        """Count the forwards of a model's language model and vision tower."""
        model.get_decoder().register_forward_pre_hook(self._decoder, with_kwargs=True)
        model.get_encoder(modality="image").register_forward_pre_hook(self._tower, with_kwargs=True)

    def count_images(self, processor: ProcessorMixin) -> None:
        """Count the images that a processor prepares."""
        preprocess = processor.image_processor.preprocess

        def counted(images: Any, *args: Any, **kwargs: Any) -> Any:
            self.cost.calls += 1
            self.cost.processed += len(make_flat_list_of_images(images))
            return preprocess(images, *args, **kwargs)

        processor.image_processor.preprocess = counted

    def _decoder(self, _: Any, args: Any, kwargs: dict[str, Any]) -> None:
        self.cost.forwards += 1
        self.cost.positions += kwargs["inputs_embeds"].shape[:2].numel()

    def _tower(self, _: Any, args: Any, kwargs: dict[str, Any]) -> None:
        self.cost.encoded += images_encoded(args, kwargs)

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Wait for this way's turn; every way samples with the same seed."""
        self.pipe.send("ready")
        self.pipe.recv()
        set_seed(self.seed + state.global_step)
        if torch.accelerator.is_available():
            torch.accelerator.reset_peak_memory_stats()
        self.cost = StepCost()
        self.start, self.cpu_start = time.perf_counter(), time.process_time()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Report."""
        if torch.accelerator.is_available():
            torch.accelerator.synchronize()
            self.cost.peak_mib = torch.accelerator.max_memory_allocated() / 2**20
        else:
            self.cost.peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
        self.cost.cpu_seconds = time.process_time() - self.cpu_start
        self.cost.seconds = time.perf_counter() - self.start
        self.pipe.send(self.cost)


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


def bench_step(settings: BenchSettings, on_round: Callable[[int], None]) -> dict[str, list[StepCost]]:
    """Costs of every round of every way. Raises UserError if the model or data cannot be used."""
    resolve_checkpoint(settings.model)
    if len(chosen_samples(load_recipe(RECIPE, _overrides(settings, TRL, "unused")))) < settings.images:
        raise UserError(f"{settings.data} has fewer than {settings.images} training images: lower --images")
    context = multiprocessing.get_context("spawn")
    pipes: dict[str, Connection] = {}
    workers = []
    try:
        for way in WAYS:
            pipes[way], theirs = context.Pipe()
            workers.append(context.Process(target=_work, args=(way, settings, theirs), daemon=True))
            workers[-1].start()
            theirs.close()
            _receive(pipes[way], way)
        costs: dict[str, list[StepCost]] = {way: [] for way in WAYS}
        for done in range(settings.rounds + 1):
            for way in WAYS:
                pipes[way].send("go")
                costs[way].append(_receive(pipes[way], way))
                if done < settings.rounds:
                    _receive(pipes[way], way)  # it has loaded its next batch: nothing runs beside the next way
            on_round(done)
    finally:
        for worker in workers:
            worker.terminate()
            worker.join()
    return {way: steps[1:] for way, steps in costs.items()}


def _receive(pipe: Connection, way: str) -> Any:
    try:
        return pipe.recv()
    except EOFError:
        raise UserError(f"the process that runs {way!r} ended early: its error is printed above") from None


def _overrides(settings: BenchSettings, way: str, folder: str) -> list[str]:
    bare = [] if way == OURS else ["reward.reflective=0"]
    labels = [] if settings.labels is None else [f"data.labels={json.dumps(_labels(settings.labels))}"]
    return [
        f"output_dir={folder}",
        f"seed={settings.seed}",
        f"model.path={settings.model}",
        f"data.train={settings.data}",
        *bare,
        f"grpo.num_generations={settings.completions}",
        f"grpo.per_device_train_batch_size={settings.images * settings.completions}",
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


def _work(way: str, settings: BenchSettings, pipe: Connection) -> None:
    """A worker process: trains one way, a step at a time."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        meter = Meter(pipe, settings.seed)
        make_trainer(way, settings, folder, meter).train()


def make_trainer(way: str, settings: BenchSettings, folder: str, meter: Meter) -> GRPOTrainer:
    """The trainer of one way; the meter counts its models and its processor."""
    warnings.simplefilter("ignore", FutureWarning)  # of TRL's, about names that transformers has changed
    recipe = load_recipe(RECIPE, _overrides(settings, way, folder))
    model, processor = load_policy(recipe, recipe.model.path, None)
    if settings.pixels is not None:
        set_area(processor, settings.pixels, settings.pixels)
    chosen = chosen_samples(recipe)
    config = grpo_config(recipe, Path(folder), len(chosen))
    config.save_strategy = "no"
    config.generation_kwargs = {"suppress_tokens": vision_token_ids(processor)}
    scorer = BatchScorer(recipe.thinking, recipe.reward, settings.completions, lambda: ScoreJudge(model, processor))
    parts, config.reward_weights = part_rewards(scorer)
    functions: list[Any] = list(parts)
    straight = StraightforwardReflection(processor)
    if way == STRAIGHT:
        functions.append(straight)
        config.reward_weights.append(0.1)
    order = training_order(len(chosen), settings.images * (settings.rounds + 1), settings.seed)
    trainer = (EmoTrainer if way in (OURS, OURS_BARE) else GRPOTrainer)(
        model=model,
        args=config,
        reward_funcs=functions,
        train_dataset=prompt_dataset(chosen, recipe.prompt_template, order, processor),
        processing_class=processor,
        callbacks=[meter],
    )
    trainer.remove_callback(PrinterCallback)
    straight.model = trainer.model
    meter.count(model)
    if trainer.ref_model is not None:
        meter.count(trainer.ref_model)
    meter.count_images(processor)
    return trainer


def ratios(costs: dict[str, list[StepCost]], clock: Clock) -> dict[str, list[float]]:
    """The ratios of the times in each round, in which all ways took their turn."""
    seconds = {way: [getattr(cost, clock) for cost in steps] for way, steps in costs.items()}
    found = {name: [a / b for a, b in zip(seconds[x], seconds[y], strict=True)] for name, (x, y) in RATIOS.items()}
    for name, (more, less) in ADDED.items():
        rounds = zip(seconds[more], seconds[less], seconds[TRL], strict=True)
        found[name] = [(a - b) / whole for a, b, whole in rounds]
    return found


def report(settings: BenchSettings, costs: dict[str, list[StepCost]]) -> dict[str, Any]:
    """Everything measured, as JSON."""
    return {
        "settings": asdict(settings),
        "environment": environment_stamp(),
        "costs": {way: [asdict(cost) for cost in steps] for way, steps in costs.items()},
        "ratios": {
            clock: {name: statistics.median(rounds) for name, rounds in ratios(costs, clock).items()}
            for clock in CLOCKS
        },
    }


def tables(costs: dict[str, list[StepCost]]) -> list[Table]:
    """Medians over the rounds, and the medians and ranges of the ratios within rounds."""
    rounds = len(costs[TRL])
    step = Table(box=box.SIMPLE_HEAD, padding=0, title=f"One training step, medians of {rounds} interleaved rounds")
    images = ("images\nencoded", "images\nprocessed")
    for heading in ("", "seconds", "CPU s", "positions", "forwards", *images, "peak\nMiB"):
        step.add_column(heading, justify="right" if heading else "left")
    for way, steps in costs.items():
        middle = {name: statistics.median(asdict(cost)[name] for cost in steps) for name in asdict(steps[0])}
        counts = (count(middle[name]) for name in ("positions", "forwards", "encoded", "processed", "peak_mib"))
        step.add_row(way, thousandths(middle["seconds"]), thousandths(middle["cpu_seconds"]), *counts)
    ratio = Table(box=box.SIMPLE_HEAD, padding=0, title="Ratios within rounds: median (lowest to highest)")
    for heading in ("", "seconds", "CPU seconds"):
        ratio.add_column(heading, justify="right" if heading else "left")
    by_clock = [ratios(costs, clock) for clock in CLOCKS]
    for name in by_clock[0]:
        show = (lambda added: f"{points(added)}%") if name in ADDED else hundredths
        values = ([show(pick(found[name])) for pick in (statistics.median, min, max)] for found in by_clock)
        ratio.add_row(name, *(f"{median} ({lowest} to {highest})" for median, lowest, highest in values))
    return [step, ratio]
