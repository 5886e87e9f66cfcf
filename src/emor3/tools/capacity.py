"""`emor3 plan`: what a recipe needs of each GPU, computed from the model's configuration before anything is loaded.

    peak = weights + reference + judge + gradients + optimizer + vLLM + the largest of (rollout, reflection, update)

Counts follow from the configuration; bytes per activation are rules of thumb, compared with a measurement in
docs/scaling.md. How long the work takes: `emor3.tools.duration`.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import torch
from peft import get_peft_model
from rich.table import Table
from transformers import AutoModelForImageTextToText, PretrainedConfig, ProcessorMixin
from trl import GRPOConfig

from emor3.data.prompt_lengths import text_tokens
from emor3.errors import UserError
from emor3.method.thinking import sample_prompt
from emor3.models.architectures import (
    PARTS,
    is_limited,
    largest_area,
    largest_image,
    layer_kinds,
    published_config,
    takes_masks,
    vision_sizes,
)
from emor3.models.checkpoints import PACKAGED, part_parameters, resolve_checkpoint
from emor3.models.loading import load_config
from emor3.models.packing.work import LayerWork, cheapest_rows, layer_work
from emor3.models.processors import load_processor
from emor3.runs.directory import METRICS
from emor3.runs.recipe import Recipe
from emor3.runs.records import MEASURED, read_jsonl
from emor3.stats.format import byte_size, count, significant
from emor3.training.dataset import chosen_samples
from emor3.training.run import lora_config, train
from emor3.training.trl_config import grpo_config, optimizer_steps

Sharding = Literal["none", "fsdp2", "zero3"]

TEXT_TOKENS = 200
"""Length of the prompt without its image, for about eight labels, if data or tokenizer are not at hand."""
FORWARD_HIDDEN, FORWARD_INTERMEDIATE = 4, 3
"""Tensors of a layer alive at once in a forward pass, in widths of the residual stream and of the feed-forward."""
SAVED_HIDDEN, SAVED_INTERMEDIATE = 11, 4
"""Tensors of a layer kept for the backward pass: norms, queries, keys, values, attention, gate, up, product."""
TILE_TOKENS, TILE_WORDS = 4096, 32768
"""Logits that TRL's head holds at once: it goes through completion tokens and vocabulary by tiles."""
FOUR_BIT = 0.5 + 1 / 64 + 4 / (64 * 256)
"""Bytes of a weight in nf4: 4 bits, a byte of scale for 64 of them, and four bytes for 256 scales."""
HEADROOM = 0.9
"""Share of the memory that a plan may use; the rest is for the driver and for fragments."""


@dataclass(frozen=True)
class Machine:
    """What a run has: GPUs, bytes of memory on each, and how the model is spread over them."""

    gpus: int = 1
    memory: float = 80e9
    sharding: Sharding = "none"


@dataclass(frozen=True)
class Stack:
    """Layers of a transformer: their number and two widths."""

    layers: int
    hidden: int
    intermediate: int

    def forward(self, tokens: int, width: int) -> int:
        """Bytes alive in a forward pass over so many tokens; `width` is the bytes of a number."""
        return tokens * width * (FORWARD_HIDDEN * self.hidden + FORWARD_INTERMEDIATE * self.intermediate)

    def layer(self, tokens: int, width: int) -> int:
        """Bytes that the backward pass needs of a layer."""
        return tokens * width * (SAVED_HIDDEN * self.hidden + SAVED_INTERMEDIATE * self.intermediate)

    def saved(self, tokens: int, width: int, checkpointing: bool) -> int:
        """Bytes saved of all layers: what the backward pass needs, or under checkpointing the input of each."""
        return self.layers * (tokens * width * self.hidden if checkpointing else self.layer(tokens, width))

    def recomputed(self, tokens: int, width: int) -> int:
        """Bytes of a layer that was recomputed, in its backward pass: with gradients inside the feed-forward."""
        return self.layer(tokens, width) + tokens * width * FORWARD_INTERMEDIATE * self.intermediate


@dataclass(frozen=True)
class Size:
    """A model in numbers."""

    parameters: int
    trainable: int
    four_bit: int
    """Parameters held in 4 bits."""
    text: Stack
    vision: Stack
    vocabulary: int
    cache_numbers: int
    """Numbers in the KV cache for each token."""
    image_tokens: int
    patches: int
    weight_bytes: int
    text_weights: int
    """Weights that each token passes, without embeddings and head."""
    vision_weights: int
    """Weights of the vision tower and the projector, which each patch is counted to pass."""
    layer_work: LayerWork
    """Multiplications of a layer of the language model, which decide how many completions a packed row holds."""
    mask_kinds: int
    """Masks that a packed row takes, one for each kind of layer; 0 for models whose rows are never packed."""

    def read(self, images: int, text: int, width: int) -> int:
        """Bytes alive in a forward pass over so many images and tokens of text; `width` is the bytes of a number."""
        tokens, patches = images * self.image_tokens + text, images * self.patches
        return self.text.forward(tokens, width) + self.vision.forward(patches, width)


@dataclass(frozen=True)
class RoundOfWork:
    """What a GPU computes on from one generation to the next, at the longest that data and recipe have."""

    images: int
    text: int
    """Tokens of a prompt's text."""
    prompt: int
    """Tokens of a prompt with its images."""
    patches: int
    """Patches of a prompt's images."""
    completion: int
    batch: int
    """Completions in a forward pass of the update."""
    rollouts: int
    """Completions that are generated at once."""
    prompts: int
    """Different prompts among them."""
    cached: bool
    """Whether completions share their prompt by its cache in the update: not under checkpointing or on shards."""
    prompts_in_update: int
    """Prompts that a forward pass of the update reads."""


@dataclass(frozen=True)
class JudgeModel:
    """The local model that judges."""

    size: Size
    weights: float
    """Bytes of its weights if it is one more model, else 0."""
    width: int
    """Bytes of a number in its forward passes."""


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes on each GPU by what they are for, and the length of the run."""

    size: Size
    fixed: dict[str, float]
    phases: dict[str, float]
    disk: dict[str, float]
    """Bytes that the run leaves on disk at most, by folder."""
    work: RoundOfWork
    judge: JudgeModel
    steps: int | None

    @property
    def peak(self) -> float:
        """Bytes at the worst moment: what is always there, and the largest phase."""
        return sum(self.fixed.values()) + max(self.phases.values())

    def fits(self, machine: Machine) -> bool:
        """Whether the peak leaves some headroom."""
        return self.peak <= HEADROOM * machine.memory


def model_config(
    path: str, config: Path | None, instead: str = "give --config with its config.json"
) -> PretrainedConfig:
    """Configuration of a checkpoint: a given file's, its own, or the published one of that name.

    Raises UserError if none can be had, with what to do instead.
    """
    if config is None and (published := published_config(path)):
        return published
    try:
        return load_config(str(config or resolve_checkpoint(path)))
    except UserError as error:
        raise UserError(f"no configuration of {config or path}: {error}; {instead}") from None


def size_of(recipe: Recipe, config: PretrainedConfig) -> Size:
    """The recipe's model in numbers; it is built without weights, on the meta device."""
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config, trust_remote_code=False)
        parameters = sum(parameter.numel() for parameter in model.parameters())
        embeddings, output = model.get_input_embeddings().weight, model.get_output_embeddings().weight
        vision = sum(parameter.numel() for part in PARTS for parameter in part_parameters(model, part))
        around = embeddings.numel() + (0 if output is embeddings else output.numel())
        frozen = [parameter for part in recipe.model.freeze for parameter in part_parameters(model, part)]
        trainable = parameters - sum(parameter.numel() for parameter in frozen)
        four_bit = 0
        if recipe.model.quantize is not None:  # linear layers, except the last, which gives the logits
            layers = [module for module in model.modules() if isinstance(module, torch.nn.Linear)]
            four_bit = sum(layer.weight.numel() for layer in layers if layer is not model.get_output_embeddings())
        if recipe.model.lora is not None:
            adapted = get_peft_model(model, lora_config(recipe.model))
            trainable = adapted.get_nb_trainable_parameters()[0]
    text = config.get_text_config()
    head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    tokens, patches = image_size(recipe, config)
    dtype = config.dtype or torch.float32 if recipe.model.dtype == "auto" else getattr(torch, recipe.model.dtype)
    return Size(
        parameters=parameters,
        trainable=trainable,
        four_bit=four_bit,
        text=Stack(text.num_hidden_layers, text.hidden_size, text.intermediate_size),
        vision=Stack(*vision_sizes(config)),
        vocabulary=text.vocab_size,
        cache_numbers=2 * text.num_hidden_layers * text.num_key_value_heads * head,
        image_tokens=tokens,
        patches=patches,
        weight_bytes=dtype.itemsize,
        text_weights=parameters - vision - around,
        vision_weights=vision,
        layer_work=layer_work(text),
        mask_kinds=len(layer_kinds(text)) if takes_masks(model.config) else 0,
    )


def image_size(recipe: Recipe, config: PretrainedConfig) -> tuple[int, int]:
    """Tokens and patches of the largest image."""
    area = recipe.model.max_pixels
    processor = processor_at_hand(recipe) if is_limited(config) else None
    if processor is not None:
        own = largest_area(processor)
        area = min(own, area or own)
    return largest_image(config, area)


def processor_at_hand(recipe: Recipe) -> ProcessorMixin | None:
    """The model's processor; None if the hub would be asked for it."""
    if recipe.model.path in PACKAGED or Path(recipe.model.path).exists():
        return load_processor(resolve_checkpoint(recipe.model.path))
    return None


def longest_prompt(recipe: Recipe) -> tuple[int, int]:
    """Most images of a prompt, and tokens of its text, counted on the longest if data and tokenizer are at hand."""
    try:
        samples = chosen_samples(recipe)
    except UserError:
        return 1, TEXT_TOKENS
    processor = processor_at_hand(recipe)
    images, wordy = 0, samples[0]
    for sample in samples:  # each is read from disk, so they are gone through once
        images = max(images, len(sample.images))
        wordy = max(wordy, sample, key=lambda one: (len(one.text or ""), one.is_video))
    prompt = sample_prompt(wordy, recipe.prompt_template)
    return images, TEXT_TOKENS if processor is None else text_tokens(processor, prompt)


def estimate_memory(recipe: Recipe, config: PretrainedConfig, machine: Machine) -> MemoryEstimate:
    """What the recipe needs of each GPU. Raises UserError for a recipe without reinforcement learning."""
    if recipe.grpo is None:
        raise UserError("this recipe has no grpo block: a plan is for reinforcement learning")
    size, settings = size_of(recipe, config), grpo_config(recipe, Path(recipe.output_dir), 1)
    work = round_of_work(recipe, settings, size, machine)
    width = 2 if settings.bf16 or settings.fp16 else size.weight_bytes
    judge = judge_model(recipe, settings, size, width)
    cache = work.rollouts * size.cache_numbers * (work.prompt + work.completion) * width
    asked = min(recipe.judge.batch_size, 2 * work.rollouts)
    phases = {
        "rollout": 0 if settings.use_vllm else work.prompts * size.read(work.images, work.text, width) + cache,
        "reflection": asked * judge.size.read(work.images, work.text, judge.width),
        "update": update_bytes(recipe, settings, size, work, width),
    }
    steps = steps_of(recipe, settings, machine)
    fixed = fixed_bytes(recipe, settings, size, judge, machine)
    return MemoryEstimate(size, fixed, phases, disk_bytes(recipe, settings, size, steps), work, judge, steps)


def round_of_work(recipe: Recipe, settings: GRPOConfig, size: Size, machine: Machine) -> RoundOfWork:
    """Sizes of the work between two generations."""
    images, text = longest_prompt(recipe)
    batch, group = settings.per_device_train_batch_size, settings.num_generations
    rollouts = batch * settings.steps_per_generation
    # The completions of a prompt share it (emor3.training.trainer). In updates under checkpointing or on shards they do
    # so in packed rows, as far as these pay and a micro-batch holds several: that is not counted on.
    cached = not settings.gradient_checkpointing and machine.sharding == "none"
    return RoundOfWork(
        images=images,
        text=text,
        prompt=images * size.image_tokens + text,
        patches=images * size.patches,
        completion=settings.max_completion_length,
        batch=batch,
        rollouts=rollouts,
        prompts=math.ceil(rollouts / group),
        cached=cached,
        prompts_in_update=math.ceil(batch / group) if cached else batch,
    )


def update_bytes(recipe: Recipe, settings: GRPOConfig, size: Size, work: RoundOfWork, width: int) -> float:
    """Bytes of an update beside weights, gradients and optimizer, in the dearer of the two ways it may go.

    Rows are packed if a micro-batch holds completions of the same prompt, which its order decides.
    """
    spoken, checkpointing = work.batch * work.completion, settings.gradient_checkpointing
    # The head comes first in the backward pass; under checkpointing one layer after another follows, recomputed.
    head = head_bytes(recipe, size, spoken, width)

    def of(prompts: int, tokens: int) -> float:
        learning = [(size.text, tokens)]
        if "vision" not in recipe.model.freeze:
            learning.append((size.vision, prompts * work.patches))
        largest = head
        if checkpointing:
            largest = max(largest, *(stack.recomputed(number, width) for stack, number in learning))
        return largest + sum(stack.saved(number, width, checkpointing) for stack, number in learning)

    apart = of(work.prompts_in_update, work.prompts_in_update * work.prompt + spoken)
    if work.cached:  # attention keeps the shared keys and values for each completion, as wide as its queries
        return apart + 2 * size.text.layers * work.batch * work.prompt * size.text.hidden * width
    rows, length = packed_rows(settings, size, work)
    return max(apart, of(rows, rows * length) + mask_bytes(size, rows, length, width))


def packed_rows(settings: GRPOConfig, size: Size, work: RoundOfWork) -> tuple[int, int]:
    """Number and length of the packed rows of a micro-batch that holds whole groups, (0, 0) if it is not packed."""
    if not size.mask_kinds:
        return 0, 0
    prompts = [place // settings.num_generations for place in range(work.batch)]
    rows = cheapest_rows(prompts, [work.prompt] * work.batch, [work.completion] * work.batch, size.layer_work)
    most = max(map(len, rows), default=0)
    return len(rows), most and work.prompt - 1 + most * work.completion


def mask_bytes(size: Size, rows: int, length: int, width: int) -> int:
    """Bytes of the masks of packed rows: a byte for each pair, and what attention adds in their place in one layer."""
    return rows * length**2 * (size.mask_kinds + width)


def disk_bytes(recipe: Recipe, settings: GRPOConfig, size: Size, steps: int | None) -> dict[str, float]:
    """Bytes of a run's folders: what learns as float32, and Adam's moments, in checkpoints; whole policies as loaded.

    While a checkpoint is written, the one that it replaces is still there. Of a run without a known end one is counted.
    """
    lora = recipe.model.lora is not None
    learnt = 4 * (size.trainable if lora else size.parameters)
    average = 4 * size.parameters if recipe.judge.model == "ema" else 0
    one = learnt + moment_bytes(settings) * size.trainable + average
    kept = 1 if steps is None else math.ceil(steps / settings.save_steps)
    if settings.save_total_limit:
        kept = min(kept, settings.save_total_limit + 1)
    whole = size.parameters * (size.weight_bytes if lora else 4)
    return {
        "cold_start/": 0 if recipe.cold_start is None else whole,
        f"checkpoints/ ({count(kept)} of {byte_size(one)})": kept * one,
        "best/": 0 if recipe.evaluation is None else 2 * learnt,  # a better one is written beside the one before
        "final/": whole,
    }


def moment_bytes(settings: GRPOConfig) -> int:
    """Bytes of Adam's two moments for each weight that learns."""
    return 2 * (1 if "8bit" in settings.optim else 4)


def judge_model(recipe: Recipe, settings: GRPOConfig, size: Size, width: int) -> JudgeModel:
    """The model that reflection asks (`emor3.training.run._judge_model`), the policy if a server is asked.

    A model of its own lies whole on each GPU, in `model.dtype`; the moving average in float32, as what it follows. The
    KL reference serves as the start model if there is one: not with adapters, nor without a KL term.
    """
    kind, lora = recipe.judge.model, recipe.model.lora is not None
    if recipe.judge.path is not None:
        path, instead = recipe.judge.path, "give a folder that holds its config.json"
        plain: dict[str, Any] = {"path": path, "lora": None, "quantize": None, "freeze": [], "max_pixels": None}
        own = recipe.model_copy(update={"model": recipe.model.model_copy(update=plain)})
        judge = size_of(own, model_config(path, None, instead))
        return JudgeModel(judge, judge.parameters * judge.weight_bytes, judge.weight_bytes)
    if kind == "ema":
        return JudgeModel(size, 4 * size.parameters, 4)
    if kind == "reference" and (lora or settings.beta == 0):
        held = (size.parameters - size.four_bit) * size.weight_bytes + size.four_bit * FOUR_BIT
        return JudgeModel(size, held, size.weight_bytes)
    return JudgeModel(size, 0, width)


def head_bytes(recipe: Recipe, size: Size, tokens: int, width: int) -> int:
    """Bytes of TRL's head in the backward pass: a tile of logits, and float32 gradients of its input and weights."""
    tile = min(tokens, TILE_TOKENS) * TILE_WORDS * width
    return tile + 4 * size.text.hidden * (tokens + (size.vocabulary if recipe.model.lora is None else 0))


def fixed_bytes(
    recipe: Recipe, settings: GRPOConfig, size: Size, judge: JudgeModel, machine: Machine
) -> dict[str, float]:
    """Bytes on each GPU that are there all the time."""
    lora = recipe.model.lora is not None
    parts = machine.gpus if machine.sharding != "none" else 1
    # Weights that learn are float32 (emor3.models.checkpoints.learn_in_float32), with FSDP2 all weights; ZeRO-3 holds a
    # float32 copy beside weights of the run's precision.
    weight = 4 if machine.sharding == "fsdp2" else size.weight_bytes
    trained = size.weight_bytes if machine.sharding == "zero3" else 4
    optimizer = moment_bytes(settings) + (4 if machine.sharding == "zero3" else 0)
    reference = 4 if recipe.model.dtype == "auto" else weight  # as the policy, if the recipe does not say
    frozen_copy = 0 if lora or settings.beta == 0 else size.parameters * reference
    whole = size.parameters - size.four_bit
    base = whole * (weight if lora else max(weight, trained)) + size.four_bit * FOUR_BIT
    colocated = settings.use_vllm and settings.vllm_mode == "colocate"
    return {
        "weights": (base + (size.trainable * trained if lora else 0)) / parts,
        "reference": frozen_copy / parts,
        "judge": judge.weights,
        "gradients": size.trainable * trained / parts,
        "optimizer": size.trainable * optimizer / parts,
        "vLLM": settings.vllm_gpu_memory_utilization * machine.memory if colocated else 0,
    }


def steps_of(recipe: Recipe, settings: GRPOConfig, machine: Machine) -> int | None:
    """Optimizer steps of the run; None if they follow from data that are not at hand."""
    asked = int((recipe.grpo or {}).get("max_steps", -1))
    if asked > 0:
        return asked
    try:
        samples = len(chosen_samples(recipe))
    except UserError:
        if recipe.data.limit is None:
            return None
        samples = recipe.data.limit
    return optimizer_steps(settings, samples, machine.gpus)


def ways_to_fit(
    recipe: Recipe, config: PretrainedConfig, machine: Machine
) -> Iterator[tuple[str, MemoryEstimate, Machine]]:
    """Changes one after another, each on top of those before it, with what is then needed; ends once it fits."""
    for change, settings, sharding in _changes(recipe, config, machine):
        recipe = recipe.model_copy(update=settings)
        machine = Machine(machine.gpus, machine.memory, sharding)
        needs = estimate_memory(recipe, config, machine)
        yield change, needs, machine
        if needs.fits(machine):
            return


def _changes(
    recipe: Recipe, config: PretrainedConfig, machine: Machine
) -> Iterator[tuple[str, dict[str, Any], Sharding]]:
    grpo, sharding = dict(recipe.grpo or {}), machine.sharding
    if not grpo_config(recipe, Path(recipe.output_dir), 1).gradient_checkpointing:
        grpo.pop("activation_checkpointing", None)  # transformers' new name for it
        grpo["gradient_checkpointing"] = True
        yield "grpo.gradient_checkpointing=true", {"grpo": dict(grpo)}, sharding
    settings = grpo_config(recipe, Path(recipe.output_dir), 1)
    group, batch = settings.num_generations, settings.per_device_train_batch_size
    accumulated = math.ceil(batch * settings.gradient_accumulation_steps / group) * group  # as many prompts an update
    smaller = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": accumulated}
    smaller["steps_per_generation"] = group
    grpo |= smaller
    judge = recipe.judge.model_copy(update={"batch_size": 4})
    named = ", ".join(f"grpo.{name}={value}" for name, value in smaller.items())
    yield f"{named}, judge.batch_size=4", {"grpo": grpo, "judge": judge}, sharding
    model = recipe.model
    if is_limited(config) and image_size(recipe, config)[0] > 512:
        model = model.model_copy(update={"max_pixels": 401_408})
        yield "model.max_pixels=401408", {"model": model}, sharding
    if judge.model == "ema":  # neither shards nor adapters can be followed
        judge = judge.model_copy(update={"model": "policy", "every": None})
        yield "judge.model=policy", {"judge": judge}, sharding
    if machine.gpus > 1 and machine.sharding == "none" and model.lora is None:
        sharding = "fsdp2"
        yield "recipes/accelerate/fsdp2.yaml", {}, sharding
    if model.lora is None:
        lora = type(recipe).model_validate(recipe.model_dump() | {"model": model.model_dump() | {"lora": {}}}).model
        yield "model.lora={r: 16}", {"model": lora}, "none"


def probe(recipe: Recipe) -> float:
    """Seconds of one optimizer step, measured: the second of two, in a folder that is thrown away."""
    with TemporaryDirectory() as scratch:
        grpo = (recipe.grpo or {}) | {"max_steps": 2}
        run = train(recipe.model_copy(update={"output_dir": f"{scratch}/run", "grpo": grpo, "cold_start": None}))
        rows = [row for row in read_jsonl(run / METRICS, MEASURED) if "step_time" in row]
    return float(rows[-1]["step_time"])


def memory_table(recipe: Recipe, needs: MemoryEstimate, machine: Machine) -> Table:
    """The plan as a person reads it; all bytes are those of one GPU."""
    size = needs.size
    gpus = f"{machine.gpus} x {significant(machine.memory / 1e9, 6)} GB"
    table = Table("what", "needs", title=f"{recipe.model.path} on {gpus}, sharding: {machine.sharding}")
    table.add_row("parameters", count(size.parameters))
    table.add_row("trained", count(size.trainable))
    table.add_row("tokens of the largest image", count(size.image_tokens))
    table.add_row("completions generated at once", count(needs.work.rollouts))
    steps = "unknown: the data are not at hand" if needs.steps is None else count(needs.steps)
    table.add_row("steps", steps, end_section=True)
    for name, amount in needs.fixed.items():
        table.add_row(name, byte_size(amount))
    for name, amount in needs.phases.items():
        table.add_row(f"{name} (beside these)", byte_size(amount))
    table.add_section()
    peak = f"{byte_size(needs.peak)} of {byte_size(HEADROOM * machine.memory)} usable"
    table.add_row("peak (estimate)", peak, end_section=True)
    for folder, amount in needs.disk.items():
        if amount:
            table.add_row(f"disk: {folder}", byte_size(amount))
    return table
