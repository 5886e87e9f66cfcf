"""Each architecture we support goes the whole way on CPU: cold start, training, resume, evaluation, export."""

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from peft import get_peft_model
from PIL import Image
from safetensors.torch import load_file
from trl import GRPOConfig

from architectures import BUILDERS, HERE, write_checkpoint
from emor3.data.folders import load_samples
from emor3.evaluation.evaluate import evaluate, load_candidate
from emor3.evaluation.settings import EvaluationSettings
from emor3.method.thinking import sample_prompt
from emor3.models.architectures import PARTS, SHAREABLE_INPUTS
from emor3.models.checkpoints import load, part_parameters
from emor3.models.generation import chat, encode, unexpanded, vision_token_ids
from emor3.models.prefix_cache import next_token_logits
from emor3.models.settings import ModelBlock
from emor3.models.sharding import always_run_vision
from emor3.runs.predictions import read_evaluation
from emor3.runs.recipe import Recipe, load_recipe
from emor3.runs.records import read_jsonl
from emor3.tools.export import export
from emor3.training.dataset import prompt_dataset
from emor3.training.run import lora_config, train
from emor3.training.trainer import EmoTrainer
from rows import write_mixed
from steps import LEARNS

GRPO = {
    "max_steps": 2,
    "num_generations": 2,
    "per_device_train_batch_size": 4,
    "max_completion_length": 4,
    "learning_rate": 1e-2,
    "beta": 0.1,
    "save_steps": 1,
    "gradient_checkpointing": False,
    **LEARNS,
}


THOROUGH = pytest.mark.parametrize("checkpoint", BUILDERS, indirect=True)
"""For tests that take long: further architectures go through one path of them all (`test_families.py`)."""


@pytest.fixture(scope="module", params=HERE)
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp(request.param)
    write_checkpoint(request.param, folder)
    return str(folder)


def recipe_of(folder: Path, scenes: str, checkpoint: str, **model: Any) -> Recipe:
    path = folder / "recipe.yaml"
    content = {
        "output_dir": str(folder / "run"),
        "model": {"path": checkpoint, **model},
        "data": {"train": scenes},
        "cold_start": {"samples": 2, "steps": 1, "batch_size": 2, "learning_rate": 1e-2},
        "grpo": GRPO,
    }
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return load_recipe(path)


def weights_of(folder: Path) -> Any:
    return load_file(folder / "model.safetensors")


def same(one: Any, other: Any) -> Any:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("adding", [True, False])
def test_questions_are_encoded_as_training_encodes_them_with_one_start_of_text(
    checkpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, adding: bool
) -> None:
    _, processor = load(checkpoint)
    if not adding:  # as processors of some families are declared
        monkeypatch.setattr(type(processor), "text_kwargs", {"add_special_tokens": False}, raising=False)
    picture = tmp_path / "a.png"
    Image.new("RGB", (64, 64), "teal").save(picture)
    asked = encode(processor, [((str(picture),), "What is felt?"), ((), "Joy?")])
    message = chat("What is felt?", 1)
    message[0]["content"][0]["image"] = Image.open(picture)
    trained = processor.apply_chat_template(message, add_generation_prompt=True, tokenize=True, return_dict=True)
    ids, mask = asked["input_ids"][0], asked["attention_mask"][0]
    assert ids[mask.bool()].tolist() == trained["input_ids"][0]
    assert asked["pixel_values"].shape[1:] == np.array(trained["pixel_values"]).shape[1:]


def test_vllm_gets_one_placeholder_where_the_processor_puts_the_tokens_of_an_image(
    checkpoint: str, tmp_path: Path
) -> None:
    _, processor = load(checkpoint)
    picture = tmp_path / "a.png"
    Image.new("RGB", (64, 64), "teal").save(picture)
    whole = encode(processor, [((str(picture),), "What is felt?")])["input_ids"][0].tolist()
    (short,) = unexpanded(processor, [chat("What is felt?", 1)])
    marks = {getattr(processor, "boi_token", None), processor.image_token}  # in Gemma 3 the one, in others the other
    (place,) = (place for place, token in enumerate(processor.tokenizer.convert_ids_to_tokens(short)) if token in marks)
    before, after = short[:place], short[place + 1 :]
    assert (whole[: len(before)], whole[-len(after) :]) == (before, after)


def test_mixed_questions_read_once_score_as_each_alone(checkpoint: str, mixed: str) -> None:
    model, processor = load(checkpoint)
    samples = load_samples(mixed, split="test")
    asked = [(sample.images, f"What is felt, {sample.id}?") for sample in samples] * 2
    asked += [((), "What is felt? " * 12), (asked[1][0], "Joy?")]  # very unlike lengths, longer than Gemma's window
    with torch.no_grad():
        together = next_token_logits(model, encode(processor, asked), [images for images, _ in asked])
        alone = torch.cat([model(**encode(processor, [one]), logits_to_keep=1).logits[:, -1] for one in asked])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)


def test_a_forward_on_texts_alone_trains_the_same_weights_as_one_on_images_and_is_what_it_was(
    checkpoint: str, mixed: str
) -> None:
    model, processor = load(checkpoint)
    image = load_samples(mixed)[0].images
    model(**encode(processor, [(image, "What is felt?")])).logits.sum().backward()
    trained = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    model.zero_grad()
    texts = encode(processor, [((), "What is felt?"), ((), "Joy or fear?")])
    before = model(**texts).logits
    always_run_vision(model, processor)
    after = model(**texts).logits
    assert torch.equal(before, after)
    after.sum().backward()
    assert {name for name, parameter in model.named_parameters() if parameter.grad is not None} == trained
    seeing = [parameter for part in PARTS for parameter in part_parameters(model, part)]
    assert not any(parameter.grad.any() for parameter in seeing if parameter.grad is not None)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("checkpoint", "checkpointing"),
    [(name, False) for name in HERE] + [(name, True) for name in BUILDERS],
    indirect=["checkpoint"],
)
def test_a_mixed_batch_has_the_log_probabilities_and_gradients_of_its_rows(
    checkpoint: str, tmp_path: Path, checkpointing: bool
) -> None:
    if "onevision" in checkpoint:
        pytest.skip("TRL cannot train it on rows with several images, which is refused")
    model, processor = load(checkpoint)
    samples = load_samples(write_mixed(tmp_path), split="train")
    wide = next(path for sample in samples for path in sample.images if path.endswith("train-blue.png"))
    Image.new("RGB", (160, 64), "navy").save(wide)  # of several tiles, in families that cut images
    trainer = EmoTrainer(
        model=model,
        args=GRPOConfig(
            output_dir=str(tmp_path / "run"),
            num_generations=2,
            per_device_train_batch_size=8,
            max_completion_length=5,
            beta=0.1,
            gradient_checkpointing=checkpointing,
            report_to="none",
            use_cpu=True,
            bf16=False,
            generation_kwargs={"suppress_tokens": vision_token_ids(processor)},
            remove_unused_columns=False,
        ),
        reward_funcs=[lambda completions, **_: [1.0] * len(completions)],
        train_dataset=prompt_dataset(samples, "steps", range(4)),
        processing_class=processor,
    )
    batch = trainer._generate_and_score_completions([trainer.train_dataset[place // 2] for place in range(8)])
    assert batch["num_images"] == [1, 1, 2, 2, 0, 0, 1, 1]
    ids, mask = (torch.cat([batch[f"prompt_{name}"], batch[f"completion_{name}"]], 1) for name in ("ids", "mask"))
    length = batch["completion_ids"].shape[1]
    told = SHAREABLE_INPUTS | {"num_images", "num_tiles", "spatial_shapes"}
    shown = {name: value for name, value in batch.items() if name in told}
    together = trainer._get_per_token_logps_and_entropies(model, ids, mask, length, 8, **shown)[0]
    (together * batch["completion_mask"]).sum().backward()
    learnt = {name: parameter for name, parameter in model.named_parameters() if parameter.grad is not None}
    gradient = {name: parameter.grad.clone() for name, parameter in learnt.items()}
    assert all(value.isfinite().all() for value in gradient.values())
    model.zero_grad()
    for row, sample in enumerate(sample for sample in samples for _ in range(2)):
        prompt = encode(processor, [(sample.images, sample_prompt(sample, "steps"))])
        completion = batch["completion_ids"][row][batch["completion_mask"][row].bool()]
        asked = prompt["input_ids"].shape
        rest = {"input_ids": completion[None], "attention_mask": torch.ones_like(completion)[None]}
        inputs = {
            name: torch.cat([value, rest.get(name, 0 * completion[None])], 1) if value.shape == asked else value
            for name, value in prompt.items()
        }
        logits = model(**inputs, logits_to_keep=len(completion) + 1).logits[0, :-1]
        alone = logits.log_softmax(-1).gather(-1, completion[:, None])[:, 0]
        torch.testing.assert_close(together[row][: len(completion)], alone, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(batch["ref_per_token_logps"][row][: len(completion)], alone, atol=1e-5, rtol=1e-5)
        alone.sum().backward()
    largest = max(float(value.abs().max()) for value in gradient.values())
    assert largest > 0.1
    apart = max(float((parameter.grad - gradient[name]).abs().max()) for name, parameter in learnt.items())
    assert apart < max(1e-4, 1e-5 * largest)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("checkpoint", "lora"),
    [
        *((name, lora) for name in BUILDERS for lora in (None, {"r": 2, "alpha": 4})),
        *((name, None) for name in HERE if name == "fast_vlm"),  # with all weights of its batch normalisation
    ],
    indirect=["checkpoint"],
    ids=lambda value: value if isinstance(value, str) else "lora" if value else "full",
)
def test_an_architecture_trains_resumes_with_the_same_weights_evaluates_and_exports(
    tmp_path: Path, scenes: str, checkpoint: str, lora: Any
) -> None:
    go_the_whole_way(tmp_path, scenes, checkpoint, lora=lora)


@pytest.mark.slow
def test_adapters_on_four_bits_go_the_same_way(
    tmp_path: Path, scenes: str, random_checkpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "emor3.training.run.check_quantizable", lambda: None
    )  # asks for a GPU, because of the next line:
    monkeypatch.setattr("bitsandbytes.nn.modules.has_avx512bf16", lambda: False)  # packed weights give no gradients
    go_the_whole_way(tmp_path, scenes, random_checkpoint, lora={"r": 2, "alpha": 4}, quantize="4bit")


def go_the_whole_way(tmp_path: Path, scenes: str, checkpoint: str, **tuned: Any) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir()
    run = train(recipe_of(whole, scenes, checkpoint, **tuned))
    final = weights_of(run / "final")
    assert not same(final, weights_of(run / "cold_start"))
    assert next(row for row in read_jsonl(run / "metrics.jsonl") if row["step"] == 2)["kl"] > 0  # against the start
    assert vision_moved(run / "cold_start", run / "final")  # so pictures reach the loss

    killed.mkdir()
    shutil.copytree(run, killed / "run")
    for folder in ("final", "checkpoints/checkpoint-2"):
        shutil.rmtree(killed / "run" / folder)
    resumed = train(recipe_of(killed, scenes, checkpoint, **tuned), resume=True)
    assert same(weights_of(resumed / "final"), final)

    settings = EvaluationSettings(limit=2, max_new_tokens=4)
    evaluate(load_candidate(str(run)), [scenes], settings, tmp_path / "evaluation")
    exported = export(run, tmp_path / "exported", read_evaluation(tmp_path / "evaluation"))
    assert same(weights_of(exported), final)
    merged = export(run / "checkpoints" / "checkpoint-2", tmp_path / "from_checkpoint")
    torch.testing.assert_close(weights_of(merged), final)


def vision_moved(before: Path, after: Path) -> bool:
    """Whether any weight of the vision tower changed."""
    return not torch.equal(*(flat(part_parameters(load(str(folder))[0], "vision")) for folder in (before, after)))


def flat(parameters: list[torch.nn.Parameter]) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in parameters])


@pytest.mark.slow
@THOROUGH
@pytest.mark.parametrize("freeze", [["vision"], ["projector"], ["vision", "projector"]], ids="+".join)
def test_frozen_parts_stay_as_they_were_and_the_others_learn(
    tmp_path: Path, scenes: str, checkpoint: str, freeze: list[Any]
) -> None:
    recipe = recipe_of(tmp_path, scenes, checkpoint, freeze=freeze)
    run = train(recipe.model_copy(update={"grpo": None}))
    before, after = (load(folder)[0] for folder in (checkpoint, str(run / "final")))
    for part in ("vision", "projector"):
        same = torch.equal(flat(part_parameters(before, part)), flat(part_parameters(after, part)))
        assert same == (part in freeze), part
    words = (model.get_input_embeddings().weight for model in (before, after))
    assert not torch.equal(*words)


@pytest.mark.parametrize("freeze", [[], ["vision"], ["projector"], ["vision", "projector"]], ids="+".join)
def test_frozen_parts_get_no_adapters(checkpoint: str, freeze: list[Any]) -> None:
    block = ModelBlock(path=checkpoint, freeze=freeze, lora={"r": 2})
    model = load(checkpoint)[0]
    of_part = {
        part: [n for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and re.fullmatch(PARTS[part], n)]
        for part in PARTS
    }
    adapted = get_peft_model(model, lora_config(block))
    adapters = (name for name, _ in adapted.named_modules() if name.endswith(".lora_A"))
    names = {name.removeprefix("base_model.model.").removesuffix(".lora_A") for name in adapters}
    for part, linear in of_part.items():
        assert names & set(linear) == (set() if part in freeze else set(linear)), part
    assert any(re.search(r"(language|text)_model.*q_proj", name) for name in names)
