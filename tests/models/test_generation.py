"""Completions are repeatable, and placeholders are never sampled."""

from typing import Any

import pytest
import torch
from transformers import PreTrainedModel, ProcessorMixin

from emor3.data.folders import load_samples
from emor3.models.checkpoints import load
from emor3.models.generation import encode, generate, vision_token_ids


@pytest.fixture(scope="module")
def loaded(random_checkpoint: str) -> tuple[PreTrainedModel, ProcessorMixin]:
    return load(random_checkpoint)


@pytest.fixture(scope="module")
def requests(scenes: str) -> list[tuple[tuple[str, ...], str]]:
    return [(sample.images, "What is this?") for sample in load_samples(scenes, split="test")]


def test_rows_with_and_without_an_image_share_a_batch_padded_on_the_left(
    loaded: tuple[PreTrainedModel, ProcessorMixin], requests: list[tuple[tuple[str, ...], str]]
) -> None:
    inputs = encode(loaded[1], [requests[0], ((), "Hello?")])
    assert inputs["attention_mask"][:, -1].tolist() == [1, 1]
    assert inputs["attention_mask"][1, 0] == 0
    assert len(inputs["image_grid_thw"]) == 1


def test_greedy_and_seeded_sampling_are_repeatable_and_leave_the_global_seed_alone(
    loaded: tuple[PreTrainedModel, ProcessorMixin], requests: list[tuple[tuple[str, ...], str]]
) -> None:
    def texts(**settings: Any) -> Any:
        return generate(*loaded, requests, max_new_tokens=6, **settings)

    state = torch.get_rng_state()
    assert texts() == texts()
    assert texts(temperature=1.0, seed=1) == texts(temperature=1.0, seed=1) != texts(temperature=1.0, seed=2)
    assert torch.equal(torch.get_rng_state(), state)


def test_placeholders_are_never_sampled_even_by_a_model_that_wants_nothing_else(
    random_checkpoint: str, requests: list[tuple[tuple[str, ...], str]]
) -> None:
    model, processor = load(random_checkpoint)
    placeholders = vision_token_ids(processor)
    assert len(placeholders) == 4  # image and video pads, vision start and end
    bias = torch.full((len(processor.tokenizer),), 0.0)
    bias[placeholders] = 100.0
    model.lm_head.register_forward_hook(lambda module, args, logits: logits + bias[: logits.shape[-1]])
    seen = []
    original = model.generate
    model.generate = lambda **kwargs: seen.append(original(**kwargs)) or seen[-1]
    generate(model, processor, requests, max_new_tokens=6, temperature=1.0)
    prompt = encode(processor, requests)["input_ids"].shape[1]
    assert not torch.isin(seen[0][:, prompt:], torch.tensor(placeholders)).any()


def test_a_penalty_that_a_checkpoint_brings_does_not_count_as_it_does_not_in_rollouts(
    random_checkpoint: str, requests: list[tuple[tuple[str, ...], str]]
) -> None:
    model, processor = load(random_checkpoint)
    plain = generate(model, processor, requests, max_new_tokens=8)
    model.generation_config.repetition_penalty = 50.0
    assert generate(model, processor, requests, max_new_tokens=8) == plain
