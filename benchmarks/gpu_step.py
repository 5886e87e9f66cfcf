"""Twenty steps of EMO-R3 on a model of Qwen2.5-VL-3B's shape with random weights: step split, tokens, FLOPs, memory.

Run on one GPU: `python benchmarks/gpu_step.py --output docs/performance/gpu.json` (full and LoRA fine-tuning, each in a
process of its own). Weights are random, so sampled tokens are thrown away after the time was spent and completions that
keep the format stand in their place: otherwise no question could be asked. `--size tiny` tries the script on a CPU.
"""

import argparse
import json
import multiprocessing
import resource
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import torch
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration
from transformers.models.qwen2_5_vl.processing_qwen2_5_vl import Qwen2_5_VLProcessor
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from emor3.method.labels import MIKELS8
from emor3.models.checkpoints import EMBEDDED, load, save
from emor3.runs.directory import METRICS
from emor3.runs.recipe import build_recipe
from emor3.runs.records import environment_stamp, read_jsonl
from emor3.storage.outputs import write_json
from emor3.training import trainer as training
from emor3.training.run import train
from emor3.training.trainer import EmoTrainer

SIDE = 448
"""Pixels: 32 x 32 patches of 14, merged 2 x 2 to 256 visual tokens."""
TEXT = {"hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36, "num_attention_heads": 16}
TEXT |= {"num_key_value_heads": 2, "vocab_size": 151936, "max_position_embeddings": 128000}
TEXT |= {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]}}
VISION = {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "patch_size": 14}
VISION |= {
    "spatial_merge_size": 2,
    "window_size": 112,
    "out_hidden_size": 2048,
    "fullatt_block_indexes": [7, 15, 23, 31],
}
PHASES = ("generate", "reflect", "log_probs", "update")
WARM_UP = 2
"""Steps that are left out."""


def write_checkpoint(folder: Path, size: str) -> None:
    """A checkpoint with random weights and the embedded model's tokenizer; or, if tiny, the embedded one itself."""
    tiny, processor = load(EMBEDDED)
    if size == "tiny":
        return save(tiny, processor, folder)
    tokenizer = processor.tokenizer
    ids = {name: tokenizer.convert_tokens_to_ids(f"<|{name}|>") for name in ("image_pad", "video_pad", "im_end")}
    config = Qwen2_5_VLConfig(
        text_config=TEXT | {"bos_token_id": None, "eos_token_id": ids["im_end"]},
        vision_config=VISION,
        image_token_id=ids["image_pad"],
        video_token_id=ids["video_pad"],
        vision_start_token_id=tokenizer.convert_tokens_to_ids("<|vision_start|>"),
        vision_end_token_id=tokenizer.convert_tokens_to_ids("<|vision_end|>"),
        tie_word_embeddings=True,
    )
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = Qwen2_5_VLForConditionalGeneration(config).to(torch.bfloat16)
    model.generation_config.eos_token_id = ids["im_end"]
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    images = Qwen2VLImageProcessorPil(size={"shortest_edge": SIDE**2, "longest_edge": SIDE**2})
    template = processor.chat_template
    save(model, Qwen2_5_VLProcessor(image_processor=images, tokenizer=tokenizer, chat_template=template), folder)


def keep_the_format(length: int) -> None:
    """Replace what is sampled by completions of as many tokens that keep the format, no two of a group alike."""
    sample = training.shared_rollouts

    def replaced(prompts: list[Any], trainer: EmoTrainer) -> dict[str, Any]:
        trainer.generation_config.min_new_tokens = length
        sampled = sample(prompts, trainer)
        tokenizer = trainer.processing_class.tokenizer
        return sampled | {"completion_ids": [completion(tokenizer, place, length) for place in range(len(prompts))]}

    training.shared_rollouts = replaced


def completion(tokenizer: object, place: int, length: int) -> list[int]:
    """Ids of one completion in the format, filled up in step 1 to `length` tokens."""
    label = MIKELS8.labels[place % len(MIKELS8.labels)]
    start = tokenizer(f"<step1>number {place}:").input_ids  # type: ignore[operator]
    end = "</step1><step2>I feel something.</step2><step3>positive, high arousal</step3>\\boxed{" + label + "}"
    rest = [*tokenizer(end).input_ids, tokenizer.eos_token_id]  # type: ignore[operator, attr-defined]
    filler = tokenizer(" dog").input_ids  # type: ignore[operator]
    return [*start, *(filler * length)[: length - len(start) - len(rest)], *rest]


def measure(checkpoint: str, tuning: str, options: argparse.Namespace) -> None:
    """Train and write what it took to `options.output`, next to what is there."""
    length, on_gpu = options.tokens, torch.cuda.is_available()
    keep_the_format(length)
    images, group = options.images, options.completions
    with tempfile.TemporaryDirectory() as folder:
        recipe = build_recipe(
            {
                "output_dir": f"{folder}/run",
                "model": {"path": checkpoint, "lora": {"r": 16} if tuning == "lora" else None},
                "data": {"train": "embedded:scenes8"},
                "judge": {"calibration": 0},
                "grpo": {
                    "max_steps": options.steps,
                    "save_steps": options.steps + 1,
                    "num_generations": group,
                    "per_device_train_batch_size": images * group,
                    "max_completion_length": length,
                    "beta": 0.01,
                    "gradient_checkpointing": False,
                },
            },
            (),
            "the benchmark",
        )
        train(recipe)
        steps = list(read_jsonl(Path(folder) / "run" / METRICS))[WARM_UP:]
    split = {phase: median(step[f"time/{phase}"] for step in steps) for phase in PHASES}
    seconds = sum(split.values())
    model, _ = load(checkpoint)
    prompt = median(step["num_tokens"] for step in steps[:1]) / (images * group * (WARM_UP + 1)) - length
    work = images * prompt + images * group * length
    # Per position and parameter: 2 to sample, 2 for the reference, 6 for forward and backward (LoRA: 4, no gradient of
    # the frozen weights). The judge's questions are left out, and so is attention: a lower bound of what was computed.
    flops = (2 + 2 + (4 if tuning == "lora" else 6)) * model.get_decoder().num_parameters() * work
    peak = torch.cuda.max_memory_allocated() if on_gpu else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    found = {
        "device": torch.cuda.get_device_name() if on_gpu else "CPU",
        "settings": {name: value for name, value in vars(options).items() if name != "output"},
        "seconds": {**split, "all": seconds},
        "sampled_tokens_per_second": images * group * length / split["generate"],
        "trained_tokens_per_second": images * group * length / seconds,
        "tflops": flops / seconds / 1e12,
        "utilisation": flops / seconds / 1e12 / options.peak_tflops if on_gpu else None,
        "peak_gib": peak / 2**30,
        "environment": environment_stamp(),
    }
    output = Path(options.output)
    write_json(output, (json.loads(output.read_text()) if output.is_file() else {}) | {tuning: found})
    print(json.dumps({tuning: {name: value for name, value in found.items() if name != "environment"}}, indent=1))


def main() -> None:
    """Measure both ways of fine-tuning."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=("3b", "tiny"), default="3b")
    parser.add_argument("--steps", type=int, default=20 + WARM_UP)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--completions", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=150)
    parser.add_argument("--peak-tflops", type=float, default=989.0, help="of the GPU in bf16, dense (H100, H200: 989)")
    parser.add_argument("--output", default="gpu.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_checkpoint(Path(folder), options.size)
        for tuning in ("full", "lora"):
            process = multiprocessing.get_context("spawn").Process(target=measure, args=(folder, tuning, options))
            process.start()
            process.join()
            if process.exitcode:
                raise SystemExit(f"{tuning} failed: its error is printed above")


if __name__ == "__main__":
    main()
