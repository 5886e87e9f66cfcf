"""EMO-R3 at the true size: a model of Qwen2.5-VL-3B's shape with random weights, the real tokenizer, real photographs.

    python benchmarks/true_size.py FILES DATA --output docs/performance/true_size.json

FILES is a folder with a published checkpoint's configuration, tokenizer, processor, template and generation settings
(its weights are not read), DATA a data folder with training rows. The script trains with reflection, resumes for one
more step, exports the policy, and writes seconds and peak memory of each part beside what `emor3 plan` says. Each part
runs in a process of its own, so that its peak is its own.

On a GPU add `--steps 22 --images 8 --completions 8 --tokens 150 --ways lora full trl-lora trl-full`: TRL then trains
the same policy without reflection; `--attention flex_attention --checkpointing` has our packed rows attend by blocks.
`--layers 2 --width 64` tries all of it on a CPU. Linux.

Weights are random, so sampled tokens are thrown away after the time was spent, and completions that keep the format
stand in their place: otherwise no question could be asked. TRL keeps its own, which are as long.
"""

import argparse
import json
import multiprocessing
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import torch
from transformers import AutoModelForImageTextToText, PrinterCallback
from trl import GRPOTrainer

from emor3.data.folders import load_samples
from emor3.judges.local import ScoreJudge
from emor3.models.generation import vision_token_ids
from emor3.models.loading import PROCESSOR_TEXTS, load_config
from emor3.runs.directory import CHECKPOINTS, METRICS
from emor3.runs.recipe import Recipe, build_recipe
from emor3.runs.records import environment_stamp, read_jsonl
from emor3.stats.format import byte_size, count, hundredths, markdown_table, tenths, whole_percent
from emor3.storage.outputs import write_json
from emor3.tools.capacity import Machine, MemoryEstimate, estimate_memory
from emor3.tools.duration import step_work
from emor3.tools.export import export
from emor3.training import trainer as training
from emor3.training.dataset import chosen_samples, prompt_dataset, training_order
from emor3.training.run import load_policy, lora_config, train
from emor3.training.scorer import BatchScorer, part_rewards
from emor3.training.trainer import EmoTrainer, Stopwatch
from emor3.training.trl_config import grpo_config

FILES = ("generation_config.json", "merges.txt", *PROCESSOR_TEXTS)
"""Of a published checkpoint, beside its configuration and weights."""
WEIGHTS = "model*.safetensors*"
WAYS = ("lora", "full", "trl-lora", "trl-full")
WARM_UP = 2
"""Steps that are left out of medians, if there are more."""
SPARE = 1.15
"""Memory that must be free, as a factor on what the plan says."""
PLANNED = {"generate": "rollout", "reflect": "reflection", "log_probs": "update", "update": "update"}
"""Part of the plan's memory that a phase of training is held against."""
OUTSIDE = "between phases"


# The checkpoint.


def write_checkpoint(files: Path, folder: Path, **shape: Any) -> int:
    """A checkpoint with random bfloat16 weights and the other files of `files`, as published; its parameters."""
    write_files(files, folder, **shape)
    return write_weights(folder)


def write_files(
    files: Path, folder: Path, *, config: Path | None = None, layers: int | None = None, width: int | None = None
) -> None:
    """All of a checkpoint but its weights; with fewer layers or a smaller width if asked."""
    folder.mkdir(parents=True)
    for name in FILES:
        if (files / name).is_file():
            shutil.copyfile(files / name, folder / name)
    content = json.loads((config or files / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(resized(content, layers, width), indent=1), encoding="utf-8")


def write_weights(folder: Path) -> int:
    """Random bfloat16 weights for the configuration in a folder; their number."""
    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        config = load_config(str(folder))
        model = AutoModelForImageTextToText.from_config(config, dtype=torch.bfloat16, trust_remote_code=False)
    scratch = folder / "weights"
    model.save_pretrained(scratch)  # whose settings are in another form than the published ones
    for path in scratch.glob(WEIGHTS):
        path.rename(folder / path.name)
    shutil.rmtree(scratch)
    return int(model.num_parameters())


def resized(config: dict[str, Any], layers: int | None, width: int | None) -> dict[str, Any]:
    """The configuration with fewer layers and a smaller width in the same geometry: patches, windows, vocabulary."""
    text, vision = config.get("text_config", config), config["vision_config"]
    if layers is not None:
        vision["depth"] = max(1, vision["depth"] * layers // text["num_hidden_layers"])
        text["num_hidden_layers"] = layers
        whole = [place for place in vision["fullatt_block_indexes"] if place < vision["depth"]]
        vision["fullatt_block_indexes"] = whole or [vision["depth"] - 1]
    if width is not None:
        share = width / text["hidden_size"]
        for part in (text, vision):
            part["hidden_size"] = round(part["hidden_size"] * share)
            part["intermediate_size"] = round(part["intermediate_size"] * share)
        vision["out_hidden_size"] = width
        vision["num_heads"] = next(n for n in (16, 8, 4, 2, 1) if vision["hidden_size"] % (4 * n) == 0)
        text["num_attention_heads"] = next(n for n in (16, 8, 4, 2) if width % (16 * n) == 0)
        half = width // text["num_attention_heads"] // 2
        rope = text.get("rope_scaling") or text["rope_parameters"]
        rope["mrope_section"] = [half // 4, half * 3 // 8, half * 3 // 8]
    return config


# What is measured.


def reset_peak() -> None:
    """Begin to measure anew."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")  # the kernel's mark of the most resident memory


def peak() -> int:
    """Most bytes since `reset_peak`: allocated on the GPU, or resident in this process."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    return 1024 * int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])


def free_memory() -> int:
    """Bytes that can be had on the GPU, or on this machine."""
    if torch.cuda.is_available():
        return int(torch.cuda.mem_get_info()[0])
    return 1024 * int(Path("/proc/meminfo").read_text().split("MemAvailable:")[1].split()[0])


def watch_phases(peaks: dict[str, int]) -> None:
    """Keep the peak of each phase of training, and of what lies between them, as loading and the optimizer's step.

    An inner phase does not count in the outer one, as with its time.
    """
    whole: Callable[..., Any] = Stopwatch.phase
    inside: list[str] = []

    def note() -> None:
        name = inside[-1] if inside else OUTSIDE
        peaks[name] = max(peaks.get(name, 0), peak())
        reset_peak()

    @contextmanager
    def phase(self: Stopwatch, name: str) -> Iterator[None]:
        note()
        inside.append(name)
        try:
            with whole(self, name):
                yield
        finally:
            note()
            inside.pop()

    Stopwatch.phase = phase


def measured(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What some work says, with its seconds and its peak beside what libraries took before it."""
    reset_peak()
    before, start = peak(), time.perf_counter()
    found = work()
    most = max(peak(), *found.get("peak_bytes_by_phase", {}).values(), 0)
    return {**found, "seconds": time.perf_counter() - start, "peak_bytes": most, "bytes_before": before}


# The parts, each for a process of its own.


def made(folder: Path) -> dict[str, Any]:
    """The checkpoint."""
    return measured(lambda: {"parameters": write_weights(folder)})


def learnt(recipe: Recipe, by_trl: bool, resume: bool, tokens: int) -> dict[str, Any]:
    """Training, or what a resumed run still lacks."""

    def work() -> dict[str, Any]:
        peaks: dict[str, int] = {}
        watch_phases(peaks)
        if by_trl:
            steps = plain_trl(recipe, tokens)
        else:
            keep_the_format(tokens)
            steps = list(read_jsonl(train(recipe, resume=resume) / METRICS))
        steps = [step for step in steps if "step_time" in step]
        steps = steps[-1:] if resume else steps[WARM_UP if len(steps) > WARM_UP else 0 :]
        names = [name for name in steps[-1] if name.startswith("time/")]
        phases = {name.removeprefix("time/"): median(step[name] for step in steps) for name in names}
        step = median(step["step_time"] for step in steps)
        return {"steps": len(steps), "step_seconds": step, "phases": phases, "peak_bytes_by_phase": peaks}

    return measured(work)


def given(source: Path, output: Path) -> dict[str, Any]:
    """The export of a policy, adapters merged into their base and read again."""
    return measured(lambda: {"folder": str(export(source, output))})


def plain_trl(recipe: Recipe, tokens: int) -> list[dict[str, Any]]:
    """TRL's own trainer on the same prompts, with accuracy and format as rewards; what it logs of each step."""
    model, processor = load_policy(recipe, recipe.model.path, None)
    chosen = chosen_samples(recipe)
    config = grpo_config(recipe, Path(recipe.output_dir), len(chosen))
    config.save_strategy = "no"
    config.generation_kwargs = {"suppress_tokens": vision_token_ids(processor), "min_new_tokens": tokens}
    reward = recipe.reward.model_copy(update={"reflective": 0.0})
    judge = ScoreJudge(model, processor)  # which nobody asks
    parts, config.reward_weights = part_rewards(
        BatchScorer(recipe.thinking, reward, config.num_generations, lambda: judge)
    )
    order = training_order(len(chosen), config.max_steps * config.generation_batch_size, recipe.seed)
    trainer = GRPOTrainer(
        model=model,
        args=config,
        reward_funcs=list(parts),
        train_dataset=prompt_dataset(chosen, recipe.prompt_template, order, processor),
        processing_class=processor,
        peft_config=lora_config(recipe.model),
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return list(trainer.state.log_history)


def keep_the_format(length: int) -> None:
    """Replace what is sampled by completions of as many tokens that keep the format, no two of a group alike."""
    sample = training.shared_rollouts

    def replaced(prompts: list[Any], trainer: EmoTrainer) -> dict[str, Any]:
        trainer.generation_config.min_new_tokens = length
        sampled = sample(prompts, trainer)
        labels = trainer.train_dataset[0]["sample"].labels.labels
        tokenizer = trainer.processing_class.tokenizer
        ids = [completion(tokenizer, place, length, labels) for place in range(len(prompts))]
        return sampled | {"completion_ids": ids}

    training.shared_rollouts = replaced


def completion(tokenizer: Any, place: int, length: int, labels: tuple[str, ...]) -> list[int]:
    """Ids of one completion in the format, filled up in step 1 to `length` tokens."""
    start = tokenizer(f"<step1>number {place}").input_ids
    end = "</step1><step2>I feel it.</step2><step3>positive, high</step3>\\boxed{" + labels[place % len(labels)] + "}"
    rest = [*tokenizer(end).input_ids, tokenizer.eos_token_id]
    filler = tokenizer(" dog").input_ids
    return [*start, *(filler * length)[: length - len(start) - len(rest)], *rest]


# All together.


def recipe_of(options: argparse.Namespace, checkpoint: Path, run: Path, way: str, steps: int) -> Recipe:
    """The recipe of a way to train, for so many steps at a constant rate, so that a run may go on."""
    batch = options.images * options.completions
    return build_recipe(
        {
            "output_dir": str(run),
            "model": {
                "path": str(checkpoint),
                "dtype": "bfloat16",
                "max_pixels": options.pixels,
                "attention": None if way.startswith("trl") else options.attention,
                "lora": {"r": 16} if way.endswith("lora") else None,
                "freeze": ["vision"],
            },
            "data": {"train": str(options.data)},
            "judge": {"calibration": 0},
            "grpo": {
                "max_steps": steps,
                "save_steps": 1 if steps <= WARM_UP else steps,
                "save_total_limit": 1,
                "lr_scheduler_type": "constant",
                "num_generations": options.completions,
                "per_device_train_batch_size": batch,
                "max_completion_length": options.tokens,
                "gradient_accumulation_steps": 1,
                "gradient_checkpointing": options.checkpointing,
                "beta": 0.01,
            },
        },
        (),
        "the benchmark",
    )


def plan_of(recipe: Recipe, checkpoint: Path) -> tuple[MemoryEstimate, float]:
    """What `emor3 plan` says of a recipe, and the operations of a step as it counts them."""
    needs = estimate_memory(recipe, load_config(str(checkpoint)), Machine(1, free_memory()))
    work = step_work(recipe, grpo_config(recipe, Path(recipe.output_dir), 1), needs)
    return needs, sum(work.flops.values()) + work.sampled_flops


def alone(work: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """The result of some work in a process that does nothing else."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


def compared(options: argparse.Namespace, folder: Path, do: Callable[..., dict[str, Any]] = alone) -> dict[str, Any]:
    """All parts of all ways, with the plan's numbers beside them; `do` runs a part."""
    checkpoint = folder / "checkpoint"
    write_files(options.files, checkpoint, config=options.config, layers=options.layers, width=options.width)
    found: dict[str, Any] = {}
    for way in options.ways:
        run = folder / way
        recipe = recipe_of(options, checkpoint, run, way, options.steps)
        needs, flops = plan_of(recipe, checkpoint)
        if (free := free_memory()) < SPARE * needs.peak:
            raise SystemExit(f"{way}: {byte_size(free)} are free, the plan says {byte_size(needs.peak)}: not run")
        if "made" not in found:
            found["made"] = do(made, checkpoint)
        parts = {"trained": do(learnt, recipe, way.startswith("trl"), False, options.tokens)}
        if not way.startswith("trl"):
            longer = recipe_of(options, checkpoint, run, way, options.steps + 1)
            parts["resumed"] = do(learnt, longer, False, True, options.tokens)
            newest = max((run / CHECKPOINTS).iterdir(), key=lambda path: int(path.name.split("-")[1]))
            parts["exported"] = do(given, newest, folder / f"{way} exported")
        rows = options.images * options.completions
        seconds = parts["trained"]["step_seconds"]
        found[way] = parts | {
            "plan": {"fixed": sum(needs.fixed.values()), **needs.phases, "peak": needs.peak},
            "tokens_per_second": rows * (needs.work.prompt + options.tokens) / seconds,
            "flops": flops,
            "utilisation": flops / seconds / (1e12 * options.peak_tflops) if torch.cuda.is_available() else None,
        }
        shutil.rmtree(folder / f"{way} exported", ignore_errors=True)
        shutil.rmtree(run, ignore_errors=True)
    return found


def tables(found: dict[str, Any], ways: list[str]) -> str:
    """Parts and phases as Markdown: seconds, peak without what libraries took before, and the plan's."""
    rows = []
    for way in ways:
        plan = found[way]["plan"]
        trained = found[way]["trained"]
        for phase, most in trained["peak_bytes_by_phase"].items():
            said = byte_size(plan["fixed"] + plan.get(PLANNED.get(phase, ""), 0))
            seconds = tenths(trained["phases"][phase]) if phase in trained["phases"] else ""
            rows.append((way, phase, seconds, byte_size(most - trained["bytes_before"]), said))
        for name in ("trained", "resumed", "exported"):
            if name in found[way]:
                part = found[way][name]
                said = byte_size(plan["peak"]) if name != "exported" else ""
                rows.append(
                    (way, name, tenths(part["seconds"]), byte_size(part["peak_bytes"] - part["bytes_before"]), said)
                )
        share = found[way]["utilisation"]
        used = "" if share is None else f", {whole_percent(share)} of the peak"
        per_second = f"{hundredths(found[way]['tokens_per_second'])} tokens/s"
        rows.append((way, f"a step: {per_second}{used}", tenths(trained["step_seconds"]), "", ""))
    return markdown_table(("way", "part", "seconds", "peak memory", "plan"), rows)


def options_of(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line. Ends the script for folders that lack what is needed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, help="folder with the files of a published checkpoint")
    parser.add_argument("data", type=Path, help="data folder")
    parser.add_argument("--config", type=Path, help="config.json of the shape, if FILES has none")
    parser.add_argument("--layers", type=int, help="so many layers of the language model")
    parser.add_argument("--width", type=int, help="width of the residual stream, a multiple of 32")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=["lora"])
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--images", type=int, default=1)
    parser.add_argument("--completions", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=48, help="of each completion; the format takes about 40")
    parser.add_argument("--pixels", type=int, default=50_176, help="of an image at most")
    parser.add_argument("--checkpointing", action="store_true")
    parser.add_argument("--attention", choices=["eager", "sdpa", "flex_attention"], help="model.attention")
    parser.add_argument("--peak-tflops", type=float, default=989.0, help="of the GPU in bf16, dense (H100, H200: 989)")
    parser.add_argument("--work", type=Path, help="folder for checkpoints and runs: about 25 GB at the true size")
    parser.add_argument("--output", type=Path, default=Path("true_size.json"))
    options = parser.parse_args(arguments)
    if not (options.files / "tokenizer.json").is_file():
        parser.error(f"{options.files} has no tokenizer.json")
    if not (options.config or options.files / "config.json").is_file():
        parser.error(f"{options.config or options.files / 'config.json'} is no file: give --config")
    if options.width is not None and options.width % 32:
        parser.error(f"--width {options.width} is no multiple of 32")
    if options.tokens < 40:
        parser.error(f"--tokens {options.tokens}: the format takes about 40")
    load_samples(str(options.data), split="train")
    return options


def main(arguments: list[str] | None = None) -> None:
    """Measure and write."""
    options = options_of(arguments)
    with tempfile.TemporaryDirectory(dir=options.work) as folder:
        found = compared(options, Path(folder))
    given_as = {name: str(value) if isinstance(value, Path) else value for name, value in vars(options).items()}
    machine = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {os.cpu_count()} cores"
    write_json(options.output, {"machine": machine, "settings": given_as, "environment": environment_stamp()} | found)
    print(f"{count(found['made']['parameters'])} parameters on {machine}")
    print(tables(found, options.ways))


if __name__ == "__main__":
    main()
