"""Checkpoints whose chat template opens `<think>`: the grammar is of what stands behind the thoughts."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from emor3.data.folders import load_samples
from emor3.evaluation.evaluate import complete, load_candidate
from emor3.evaluation.settings import EvaluationSettings
from emor3.judges.local import GenerateJudge, ScoreJudge
from emor3.method.thinking import parse
from emor3.method.types import Aspect, Problem, Question
from emor3.models.checkpoints import load, save
from emor3.models.generation import encode, said_by
from emor3.runs.recipe import load_recipe
from emor3.runs.records import read_jsonl
from emor3.training.run import train
from steps import writes

STEPS = "<step1>fog</step1><step2>tense</step2><step3>negative, high</step3>\\boxed{fear}"
THOUGHT = f"Is it fog? <step1>No.</step1> Yes.\n</think>\n\n{STEPS}"
ENDLESS = "Is it fog? Is it not? Is it?"
CLOSED = "<think>\n\n</think>\n\n"


@pytest.fixture(scope="module")
def opening(random_checkpoint: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of a checkpoint that is made to think, as published ones are: thoughts of earlier turns are left out."""
    model, processor = load(random_checkpoint)
    template = processor.chat_template.replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}")
    answered = "{% if message['role'] == 'assistant' %}<think>\n\n</think>\n\n{% endif %}"
    processor.chat_template = template.replace("{{ message['role'] }}\n", "{{ message['role'] }}\n" + answered)
    folder = tmp_path_factory.mktemp("opening")
    save(model, processor, folder)
    return str(folder)


def test_what_stands_behind_the_thoughts_is_read(opening: str, random_checkpoint: str) -> None:
    said = said_by(load(opening)[1], "steps")
    assert said(THOUGHT) == STEPS
    assert parse(said(THOUGHT)).problem is None
    assert parse(said(ENDLESS)).problem == Problem.EMPTY
    assert parse(said(f"{ENDLESS}</think>")).problem == Problem.EMPTY
    assert said_by(load(opening)[1], "free")("fog</think>\\boxed{fear}") == "<think>fog</think>\\boxed{fear}"
    assert said_by(load(random_checkpoint)[1], "steps")(THOUGHT) == THOUGHT  # which breaks the grammar, as ever


def test_a_judge_answers_without_thinking(opening: str, scenes: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, processor = load(opening)
    images = load_samples(scenes)[0].images
    question = Question(Aspect.CONSISTENCY, "Does fog describe it?", ("Yes", "No"), images=images)
    (reply,) = ScoreJudge(model, processor).answer([question])
    inputs = encode(processor, [(images, question.text)])
    tokens = processor.tokenizer(CLOSED.removeprefix("<think>\n"), add_special_tokens=False).input_ids
    assert processor.tokenizer.decode(inputs["input_ids"][0]).endswith("assistant\n<think>\n")
    closed = encode(processor, [(images, question.text)], thinks=False)["input_ids"][0]
    assert processor.tokenizer.decode(closed).endswith(f"assistant\n{CLOSED}")
    longer = torch.cat([inputs["input_ids"], torch.tensor([tokens])], 1)
    whole = {name: value for name, value in inputs.items() if value.shape != inputs["input_ids"].shape}
    whole |= {"input_ids": longer, "attention_mask": torch.ones_like(longer)}
    whole["mm_token_type_ids"] = torch.nn.functional.pad(inputs["mm_token_type_ids"], (0, len(tokens)))
    with torch.no_grad():
        logits = model(**whole).logits[0, -1]
    first = [processor.tokenizer(word, add_special_tokens=False).input_ids[0] for word in ("Yes", "No")]
    wanted = logits[first].softmax(0).tolist()
    assert reply.probabilities is not None
    assert list(reply.probabilities.values()) == pytest.approx(wanted, abs=1e-6)

    seen = []
    writes(monkeypatch, processor.tokenizer, lambda count: seen.append(count) or ["Yes"] * count)
    (written,) = GenerateJudge(model, processor).answer([question])
    assert (written.text, seen) == ("Yes", [1])


def test_an_evaluation_reads_and_keeps_what_stands_behind_the_thoughts(
    opening: str, scenes: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    candidate = load_candidate(opening)
    writes(monkeypatch, candidate.engine.processor.tokenizer, lambda count: [THOUGHT, ENDLESS][:count])
    samples = load_samples(scenes, split="test")[:2]
    assert complete(candidate, samples, EvaluationSettings(limit=2)) == [STEPS, ""]


@pytest.mark.slow
def test_training_pays_what_stands_behind_the_thoughts_and_counts_their_tokens(
    opening: str, scenes: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grpo: dict[str, Any] = {"max_steps": 1, "num_generations": 2, "per_device_train_batch_size": 4}
    grpo |= {"max_completion_length": 64, "learning_rate": 1e-3}
    recipe = {"output_dir": str(tmp_path / "run"), "model": {"path": opening}, "data": {"train": scenes}}
    recipe |= {"cold_start": {"samples": 2, "steps": 1, "batch_size": 2, "learning_rate": 1e-3}, "grpo": grpo}
    recipe["evaluation"] = {"every": 1, "samples": 2}
    (path := tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    tokenizer = load(opening)[1].tokenizer
    writes(monkeypatch, tokenizer, lambda count: [THOUGHT, ENDLESS] * (count // 2))
    run = train(load_recipe(path))
    rows = list(read_jsonl(run / "rollouts.jsonl"))
    assert [row["completion"] for row in rows] == [STEPS, ""] * 2
    assert [row["parts"]["format"] for row in rows] == [1.0, 0.0] * 2
    lengths = [len(tokenizer(text).input_ids) + 1 for text in (THOUGHT, ENDLESS)]  # and the end of the turn
    step = next(row for row in read_jsonl(run / "metrics.jsonl") if row["step"] == 1)
    assert step["completions/mean_length"] == sum(lengths) / 2
    assert [row["format"] for row in read_jsonl(run / "evaluations.jsonl")][-1] == 0.5
