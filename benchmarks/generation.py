"""Where the time of generation goes: CPU seconds of a rollout by part. Writes DIR/generation.md.

Run: python benchmarks/generation.py [DIR] [--rounds 5] [--max-tokens 150] [--pixels 4096]
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from transformers import Cache, LogitsProcessorList

from emor3.models import prefix_cache
from emor3.models.architectures import language_model
from emor3.printing import say
from emor3.stats.format import count, markdown_table, tenths, thousandths, whole_percent
from emor3.storage.outputs import write_whole
from emor3.tools.bench.meter import Meter
from emor3.tools.bench.ways import OURS_BARE, BenchSettings, make_trainer
from emor3.training.trainer import EmoTrainer, Stopwatch, shared_rollouts
from growth import Collector

PREFILL = "prompts read (prefill)"
REST = "the rest: generate's loop, inputs of each forward, completions as lists"


@dataclass(frozen=True)
class Rollout:
    """One batch."""

    parts: dict[str, float]
    """CPU seconds by part."""
    lengths: list[int]
    """Tokens of each completion."""


@contextmanager
def watched(watch: Stopwatch, trainer: EmoTrainer) -> Iterator[None]:
    """Inside, the time of a rollout counts by its parts; an inner part does not count in the outer one."""
    layers = language_model(trainer.model.base_model).layers
    places = [
        ("prompts as tokens, images as pixels", trainer, "_tokenize_prompts"),
        (PREFILL, prefix_cache, "prefill"),
        ("forward: embeddings, positions, masks, norms, head", trainer.model, "forward"),
        *[("forward: attention", layer.self_attn, "forward") for layer in layers],
        *[("forward: MLPs", layer.mlp, "forward") for layer in layers],
        ("forward: growth of the cache", Cache, "update"),
        ("suppressed tokens, temperature, softmax", LogitsProcessorList, "__call__"),
        ("tokens drawn", torch, "multinomial"),
    ]

    reading = False

    def timed(name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def done(*args: Any, **kwargs: Any) -> Any:
            nonlocal reading
            if reading:
                return work(*args, **kwargs)  # the parts of a prefill are its own
            reading = name == PREFILL
            try:
                with watch.phase(name):
                    return work(*args, **kwargs)
            finally:
                reading = False

        return done

    with ExitStack() as stack:
        for name, owner, attribute in places:
            stack.enter_context(patch.object(owner, attribute, timed(name, getattr(owner, attribute))))
        yield


def measure(settings: BenchSettings) -> list[Rollout]:
    """Rollouts of every step of a training, after one to warm up."""
    found: list[Rollout] = []

    def rolled(prompts: list[Any], trainer: EmoTrainer) -> dict[str, Any]:
        watch = Stopwatch(time.process_time)
        with watched(watch, trainer), watch.phase(REST):
            sampled = shared_rollouts(prompts, trainer)
        found.append(Rollout(watch.read(), list(map(len, sampled["completion_ids"]))))
        return sampled

    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(OURS_BARE, settings, folder, Meter(Collector(), settings.seed))
        trainer.rollout_func = rolled
        trainer.train()
    return found[1:]


def to_markdown(rollouts: list[Rollout], settings: Mapping[str, Any]) -> str:
    """Seconds and shares by part, and how long completions are."""
    names = sorted({name for rollout in rollouts for name in rollout.parts})
    parts = {name: statistics.median(rollout.parts.get(name, 0.0) for rollout in rollouts) for name in names}
    total = sum(parts.values())
    rows = [
        (name, thousandths(parts[name]), whole_percent(parts[name] / total))
        for name in sorted(parts, key=lambda name: -parts[name])
    ]
    lengths = [length for rollout in rollouts for length in rollout.lengths]
    said = ", ".join(f"{name} {value}" for name, value in settings.items())
    return "\n".join(
        [
            "# Generation",
            "",
            f"Written by `python benchmarks/generation.py`: {said}; medians of {len(rollouts)} rollouts, CPU seconds.",
            "",
            markdown_table(("part", "CPU s", "share"), rows),
            f"Completions have {tenths(statistics.mean(lengths))} tokens on average and {count(max(lengths))} at most; "
            "transformers computes every row until the longest one ends.",
            "",
        ]
    )


def main(arguments: list[str] | None = None) -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("docs/performance"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--completions", type=int, default=8)
    parser.add_argument("--max-tokens", type=int, default=150)
    parser.add_argument("--pixels", type=int, default=64**2)
    options = vars(parser.parse_args(arguments))
    folder = options.pop("folder")
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    page = to_markdown(measure(BenchSettings(**options)), options)
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / "generation.md", page)
    say(page.removesuffix("\n"))


if __name__ == "__main__":
    main()
