"""How long a recipe takes on GPUs that somebody measured, and what that costs: the second half of `emor3 plan`.

    seconds = work in FLOPs / (peak of the GPU x its measured utilisation) + bytes read in sampling / its bandwidth

Work is counted by the convention of the measurements: 2 operations for each weight and token forward, 4 backward, and
none for layers that are computed again. Completions are taken to be as long as the recipe allows, so runs end sooner.
Sampling is a bound from below: every token reads all weights and caches once, at the full bandwidth.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from trl import GRPOConfig

from emor3.errors import UserError
from emor3.method.types import Aspect
from emor3.runs.recipe import Recipe
from emor3.stats.format import count, hundredths, significant, tenths, whole_percent
from emor3.tools.capacity import MemoryEstimate, Size
from emor3.training.trl_config import grpo_config

REPLY_TOKENS = 16
"""Longest reply of a judge that generates."""
QUESTION_TOKENS = 40
"""Words of a question beside what it asks about, about."""

LIKE = 2.5
"""Factor between the sizes of two models of which one's utilisation may stand for the other's."""


@dataclass(frozen=True)
class MeasuredRun:
    """Steps of GRPO that somebody ran and published."""

    model: str
    parameters: float
    tokens: float
    """Tokens of prompts and completions a second and GPU, over whole steps with sampling."""
    utilisation: float
    """Share of the GPU's peak that the update reached."""


@dataclass(frozen=True)
class Gpu:
    """A kind of GPU: the maker's figures, and runs on eight of them."""

    flops: float
    """Operations a second in bfloat16, dense."""
    bandwidth: float
    """Bytes a second from its memory."""
    runs: tuple[MeasuredRun, ...]


SOURCE = "EasyR1 0.3.2"
"""Of all runs: assets/baselines.md of github.com/hiyouga/EasyR1, full fine-tuning on Geometry3k, vLLM, FSDP."""
GPUS: Mapping[str, Gpu] = {
    "h100": Gpu(  # SXM, 80 GB: nvidia.com/en-us/data-center/h100
        989e12,
        3.35e12,
        (
            MeasuredRun("Qwen2.5-VL-3B", 3.75e9, 1800, 0.081),
            MeasuredRun("Qwen2.5-VL-7B", 8.29e9, 1600, 0.160),
            MeasuredRun("Qwen2.5-VL-7B, larger micro-batches", 8.29e9, 2000, 0.232),
        ),
    ),
    "l20": Gpu(119.5e12, 0.864e12, (MeasuredRun("Qwen2.5-VL-7B", 8.29e9, 410, 0.265),)),
}
"""By the name that `--gpu` takes. A kind nobody measured has no place here, however well its peak is known."""


@dataclass(frozen=True)
class Seconds:
    """A time between two bounds."""

    low: float
    high: float

    def __add__(self, other: "Seconds") -> "Seconds":
        return Seconds(self.low + other.low, self.high + other.high)

    def times(self, factor: float) -> "Seconds":
        """So many of it."""
        return Seconds(factor * self.low, factor * self.high)


@dataclass(frozen=True)
class StepWork:
    """Work of one GPU in an optimizer step."""

    flops: dict[str, float]
    """Operations by phase, without those of sampling token by token."""
    sampled_bytes: float
    """Bytes that sampling reads from memory."""
    sampled_flops: float
    tokens: float
    """Tokens of prompts and completions, each completion with its own prompt, as throughput is told."""


@dataclass(frozen=True)
class TimeEstimate:
    """How long a step takes, by phase and by whole steps of others."""

    phases: dict[str, Seconds]
    whole: Seconds
    """By the throughput of measured steps."""
    runs: tuple[MeasuredRun, ...]
    steps: int | None
    by_vllm: bool
    """Whether vLLM samples, as in the measured runs."""

    @property
    def step(self) -> Seconds:
        """Between the lowest and the highest of both ways to estimate it."""
        counted = sum(self.phases.values(), Seconds(0, 0))
        return Seconds(min(counted.low, self.whole.low), max(counted.high, self.whole.high))


def named_gpu(name: str) -> Gpu:
    """A measured GPU by name. Raises UserError for others, with what can be done."""
    if found := GPUS.get(name.lower()):
        return found
    raise UserError(f"--gpu {name}: no measured run is known, only of {', '.join(GPUS)}; --probe measures a step here")


def estimate_time(recipe: Recipe, needs: MemoryEstimate, gpu: Gpu) -> TimeEstimate:
    """How long a step of a recipe takes on GPUs of a kind.

    Utilisation and throughput are those of the measured model that is nearest in size. Raises UserError if none is.
    """
    settings = grpo_config(recipe, Path(recipe.output_dir), 1)
    work = step_work(recipe, settings, needs)
    off, nearest = min((abs(math.log(run.parameters / needs.size.parameters)), run.parameters) for run in gpu.runs)
    if off > math.log(LIKE):
        known = ", ".join(dict.fromkeys(significant(run.parameters) for run in gpu.runs))
        raise UserError(
            f"--gpu: no model of about {significant(needs.size.parameters)} parameters was measured ({known})"
        )
    runs = tuple(run for run in gpu.runs if run.parameters == nearest)

    def at_measured(flops: float) -> Seconds:
        each = [flops / (gpu.flops * run.utilisation) for run in runs]
        return Seconds(min(each), max(each))

    phases = {name: at_measured(flops) for name, flops in work.flops.items()}
    sampling = max(work.sampled_bytes / gpu.bandwidth, work.sampled_flops / gpu.flops)
    phases["generation"] += Seconds(sampling, sampling)
    throughput = [work.tokens / run.tokens for run in runs]
    whole = Seconds(min(throughput), max(throughput)) + phases["reflection"]
    return TimeEstimate(phases, whole, runs, needs.steps, settings.use_vllm)


def step_work(recipe: Recipe, settings: GRPOConfig, needs: MemoryEstimate) -> StepWork:
    """Work of an optimizer step on each GPU: that of a round of generation, shared out over the steps it serves."""
    size, work = needs.size, needs.work
    rounds = settings.gradient_accumulation_steps / (settings.steps_per_generation * settings.num_iterations)
    read = read_flops(size, work.prompts, work.prompt)
    seen = seen_flops(size, work.prompts * work.patches)
    written = written_flops(size, work.rollouts, work.completion, work.prompt)
    learnt_from = work.rollouts / work.batch * work.prompts_in_update
    learning = 2 if recipe.model.lora else 3  # forward and backward; frozen weights pass gradients on and get none
    vision = 1 if "vision" in recipe.model.freeze else learning
    update = learning * (read_flops(size, learnt_from, work.prompt) + written)
    update += vision * seen_flops(size, learnt_from * work.patches)
    flops = {
        "generation": read + seen,
        "log-probabilities": log_prob_passes(settings) * (read + seen + written),
        "reflection": reflection_flops(recipe, needs),
        "update": settings.num_iterations * update,
    }
    width = 2 if settings.bf16 or settings.fp16 else size.weight_bytes
    cached = size.cache_numbers * work.rollouts * (work.prompt + work.completion / 2)
    sampled = work.completion * (cached + size.text_weights + size.vocabulary * size.text.hidden) * width
    return StepWork(
        {name: rounds * amount for name, amount in flops.items()},
        rounds * sampled,
        rounds * written,
        rounds * work.rollouts * (work.prompt + work.completion),
    )


def read_flops(size: Size, prompts: float, tokens: int) -> float:
    """Operations that prompts of so many tokens take in the language model; each token sees those before it."""
    return prompts * (2 * size.text_weights * tokens + pair_flops(size) * tokens**2 / 2)


def seen_flops(size: Size, patches: float) -> float:
    """Operations that patches take in the vision tower, whose attention is left out."""
    return 2 * size.vision_weights * patches


def written_flops(size: Size, rows: int, tokens: int, prompt: int) -> float:
    """Operations that completions of so many tokens behind prompts take, with the head."""
    weights = size.text_weights + size.vocabulary * size.text.hidden
    return rows * (2 * weights * tokens + pair_flops(size) * tokens * (prompt + tokens / 2))


def pair_flops(size: Size) -> float:
    """Operations of attention for a token that sees another one, in all layers."""
    return 4 * size.text.layers * size.text.hidden


def log_prob_passes(settings: GRPOConfig) -> int:
    """Passes that TRL 1.16 makes before the updates: of the reference, and of the policy if it may have moved since."""
    moved = settings.gradient_accumulation_steps % (settings.steps_per_generation * settings.num_iterations) != 0
    corrected = settings.use_vllm and settings.vllm_importance_sampling_correction
    return int(settings.beta > 0) + int(moved or corrected)


def reflection_flops(recipe: Recipe, needs: MemoryEstimate) -> float:
    """Operations of the judge's reading; none for a judge on a server.

    A description is taken to be a third of a completion, a reasoning two thirds; an image is read once for all
    questions on it.
    """
    size, work = needs.judge.size, needs.work
    if recipe.judge.model == "endpoint":
        return 0
    described, reasoned = work.completion // 3 + QUESTION_TOKENS, 2 * work.completion // 3 + QUESTION_TOKENS
    flops = 0.0
    if Aspect.CONSISTENCY in recipe.reward.aspects:
        shown = work.images * size.image_tokens
        questions = work.rollouts * (1 + recipe.reward.contrastive)
        flops += read_flops(size, work.prompts, shown) + seen_flops(size, work.prompts * work.images * size.patches)
        flops += read_flops(size, questions, described) + questions * pair_flops(size) * described * shown
    if Aspect.COHERENCE in recipe.reward.aspects:
        flops += read_flops(size, work.rollouts, reasoned)
    return flops


def time_lines(found: TimeEstimate, gpus: int, price: float | None) -> Iterator[str]:
    """The estimate as a person reads it, and the cost at a price for a GPU and an hour."""
    yield f"How long (an estimate, from {SOURCE} on 8 GPUs of this kind: {'; '.join(map(measured, found.runs))}):"
    for name, seconds in found.phases.items():
        yield f"  {name}: {between(seconds)} s"
    if not found.by_vllm:
        yield "  transformers samples, which is slower than this bound for generation: nobody's figures of it are known"
    yield f"  a step: {between(found.step)} s; by the throughput of whole steps there {between(found.whole)} s"
    if found.steps is None:
        yield "  the run: unknown, as its steps are; set grpo.max_steps or data.limit"
        return
    hours = found.step.times(found.steps / 3600)
    yield f"  the run: {between(hours)} h for {count(found.steps)} steps"
    if price is not None:
        yield f"  cost: {between(hours.times(price * gpus))} at {significant(price, 6)} a GPU and hour"


def probed_line(seconds: float, steps: int | None, gpus: int, price: float | None) -> str:
    """What a measured step says about the run, and about its cost on so many GPUs like this machine's."""
    if not steps:
        return f"a step takes {tenths(seconds)} s here"
    hours = steps * seconds / 3600
    cost = "" if price is None else f" and cost {significant(hours * gpus * price)} at {significant(price, 6)} an hour"
    return f"a step takes {tenths(seconds)} s here, so {steps} steps take {hundredths(hours)} h{cost}"


def measured(run: MeasuredRun) -> str:
    """A published run in a few words."""
    return f"{run.model} {count(run.tokens)} tokens/s, {whole_percent(run.utilisation)} of the peak in updates"


def between(found: Seconds) -> str:
    """Two bounds, or one number if both look alike: "95 to 120"."""
    low, high = (significant(value, 2) if value < 100 else count(value) for value in (found.low, found.high))
    return low if low == high else f"{low} to {high}"
