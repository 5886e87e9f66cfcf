"""Prompts computed once for their G completions give what TRL computes for every copy."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import set_seed
from trl import GRPOTrainer

from emor3.data.folders import load_samples
from emor3.errors import UserError
from emor3.models.checkpoints import EMBEDDED, load, vision_is_frozen
from emor3.models.prefix_cache import distinct
from emor3.models.processors import images_once
from emor3.storage.images import open_image
from emor3.training.trainer import EmoTrainer
from steps import trainer_of

RANDOM_ADAPTERS = LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False)
"""New ones would be zero, and with them the gradient of one half."""


@pytest.fixture(scope="module")
def make_trainer(scenes: str, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., GRPOTrainer]:
    def make(cls: Any, adapters: LoraConfig | None = None, **settings: Any) -> Any:
        defaults = {"num_generations": 4, "per_device_train_batch_size": 12, "max_completion_length": 12, "beta": 0.1}
        return trainer_of(
            cls,
            tmp_path_factory.mktemp("trl"),
            scenes,
            EMBEDDED,
            [lambda completions, **_: [float(len(c[0]["content"])) for c in completions]],
            adapters,
            **defaults | {"gradient_checkpointing": False} | settings,
        )

    return make


def step_of(trainer: Any) -> Any:
    """The scored batch of three prompts with four completions each, from one seed."""
    trainer.model.train()
    rows = [trainer.train_dataset[place] for place in range(3)]
    set_seed(7)
    return trainer._generate_and_score_completions([row for row in rows for _ in range(4)])


def shuffled(batch: Any) -> dict[str, Any]:
    """The rows in an order that separates copies, as TRL shuffles them before the update."""
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    patches = batch["pixel_values"].view(12, -1, batch["pixel_values"].shape[-1])
    rows = {k: v[order] for k, v in batch.items() if isinstance(v, torch.Tensor) and v.ndim and len(v) == 12}
    return {**batch, **rows, "pixel_values": patches[order].flatten(0, 1)}


@pytest.mark.parametrize("temperature", [1.0, 0.01])
def test_completions_are_token_for_token_those_of_separate_prompts(
    make_trainer: Callable[..., GRPOTrainer], temperature: float
) -> None:
    separate, shared = (step_of(make_trainer(cls, temperature=temperature)) for cls in (GRPOTrainer, EmoTrainer))
    assert torch.equal(shared["completion_ids"], separate["completion_ids"])
    assert len(set(map(tuple, shared["completion_ids"].tolist()))) > 1


@pytest.mark.slow
@pytest.mark.parametrize("at_once", [12, 6])  # 6: a chunk ends inside a group of copies
def test_reference_log_probabilities_are_those_of_separate_prompts(
    make_trainer: Callable[..., GRPOTrainer], at_once: int
) -> None:
    settings = {"per_device_train_batch_size": at_once, "steps_per_generation": 12 // at_once}
    separate, shared = (step_of(make_trainer(cls, **settings)) for cls in (GRPOTrainer, EmoTrainer))
    wanted = separate["ref_per_token_logps"]
    torch.testing.assert_close(shared["ref_per_token_logps"], wanted, atol=1e-4, rtol=0)
    assert wanted.abs().max() > 0.1


def loss_of(trainer: Any) -> Any:
    """Loss on the shuffled batch. The layers train; TRL is told otherwise, as it would count on a running loop."""
    batch = shuffled(step_of(trainer))
    trainer.model.training = False
    return trainer.compute_loss(trainer.model, batch)


@pytest.mark.parametrize(
    ("checkpointing", "adapters"),
    [
        pytest.param(False, None, id="full"),
        pytest.param(True, RANDOM_ADAPTERS, id="lora, checkpointed"),
        pytest.param(False, RANDOM_ADAPTERS, marks=pytest.mark.slow, id="lora"),
        pytest.param(True, None, marks=pytest.mark.slow, id="full, checkpointed"),
    ],
)
def test_loss_and_gradients_are_those_of_separate_prompts_in_any_order(
    make_trainer: Callable[..., GRPOTrainer], checkpointing: bool, adapters: LoraConfig | None
) -> None:
    found = []
    for cls in (GRPOTrainer, EmoTrainer):
        set_seed(0)  # of the adapters
        trainer = make_trainer(cls, adapters, gradient_checkpointing=checkpointing)
        loss = loss_of(trainer)
        loss.backward()
        found.append((loss.detach(), {n: p.grad for n, p in trainer.model.named_parameters() if p.requires_grad}))
    torch.testing.assert_close(found[1][0], found[0][0], atol=1e-6, rtol=1e-5)
    assert any(grad.abs().max() > 1e-3 for grad in found[0][1].values())
    rounding = 1e-5 if adapters is None else 5e-5  # random adapters add to every sum
    for name, grad in found[0][1].items():
        torch.testing.assert_close(found[1][1][name], grad, atol=rounding, rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"importance_sampling_level": "sequence", "num_iterations": 2},
        {"mask_truncated_completions": True, "max_completion_length": 37},
        {"top_entropy_quantile": 0.3},
    ],
    ids=["ratios of sequences", "truncated ones left out", "the least certain tokens alone"],
)
def test_packed_rows_give_the_same_gradients_under_settings_of_the_loss(
    make_trainer: Callable[..., GRPOTrainer], settings: dict[str, Any]
) -> None:
    found = []
    for cls in (GRPOTrainer, EmoTrainer):
        trainer = make_trainer(cls, gradient_checkpointing=True, **settings)
        trainer.worthwhile = math.inf
        batch = step_of(trainer)
        if "mask_truncated_completions" in settings:
            assert 0 < int(batch["completion_mask"].any(1).sum()) < 12  # some of the completions are left out
        loss_of(trainer).backward()
        found.append({name: p.grad for name, p in trainer.model.named_parameters() if p.requires_grad})
    assert any(grad.abs().max() > 1e-3 for grad in found[0].values())
    for name, grad in found[0].items():
        torch.testing.assert_close(found[1][name], grad, atol=1e-5, rtol=1e-3)


def test_the_balancing_loss_of_experts_is_computed_in_trls_way(
    make_trainer: Callable[..., GRPOTrainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_trainer(EmoTrainer, gradient_checkpointing=True)
    batch = step_of(trainer)
    taken = []

    def trls(self: Any, compute_aux_loss: bool, **_: Any) -> tuple[None, None, None]:
        taken.append(compute_aux_loss)
        return None, None, None

    monkeypatch.setattr(GRPOTrainer, "_get_per_token_logps_and_entropies", trls)
    monkeypatch.setattr(EmoTrainer, "worthwhile", math.inf)
    inputs = [torch.cat([batch[f"prompt_{what}"], batch[f"completion_{what}"]], 1) for what in ("ids", "mask")]
    shown = {name: batch[name] for name in ("pixel_values", "image_grid_thw", "num_images")}
    of_experts = trainer._get_per_token_logps_and_entropies(trainer.model, *inputs, 12, compute_aux_loss=True, **shown)
    assert (of_experts, taken) == ((None, None, None), [True])  # packed rows would count a prompt's routes once


@pytest.mark.parametrize(("held", "most"), [(6, 2), (12, 1)], ids=["two in a row fit", "none fit"])
def test_packed_rows_that_memory_does_not_hold_are_split_for_good_and_that_is_said_once(
    make_trainer: Callable[..., GRPOTrainer], capsys: pytest.CaptureFixture[str], held: int, most: int
) -> None:
    losses, tried = [], []

    def fail(_: Any, __: Any, inputs: dict[str, Any]) -> None:
        if "shift_labels" in inputs:  # a row for each prompt first, then two, then TRL's way
            tried.append(len(inputs["input_ids"]))
            if tried[-1] < held:
                raise torch.OutOfMemoryError("CUDA out of memory")

    for worthwhile in (0.0, math.inf):
        trainer = make_trainer(EmoTrainer, gradient_checkpointing=True)
        trainer.worthwhile = worthwhile
        trainer.model.register_forward_pre_hook(fail, with_kwargs=True)
        losses.append(loss_of(trainer))
    assert (tried, trainer.most_in_a_row) == ([3, 6], most)
    torch.testing.assert_close(losses[1], losses[0], atol=1e-6, rtol=1e-5)
    loss_of(trainer)
    assert tried == [3, 6] + [6] * (most == 2)
    assert capsys.readouterr().out.count("memory does not hold packed rows of 4 completions") == 1


@pytest.mark.parametrize("checkpointing", [False, True], ids=["by a cache", "in packed rows"])
def test_each_image_is_encoded_once_for_rollouts_reference_and_update(
    make_trainer: Callable[..., GRPOTrainer], checkpointing: bool
) -> None:
    trainer = make_trainer(EmoTrainer, gradient_checkpointing=checkpointing)
    encoded = []
    for model in (trainer.model, trainer.ref_model):
        model.model.visual.register_forward_pre_hook(
            lambda _, args, kwargs: encoded.append(len(kwargs["grid_thw"])), with_kwargs=True
        )
    loss_of(trainer)
    assert encoded == [3, 3, 3]  # rollouts, reference, update: three distinct prompts, twelve completions


@pytest.mark.slow
@pytest.mark.parametrize("checkpointing", [False, True])
def test_with_frozen_vision_an_image_is_encoded_once_a_round_and_the_language_model_learns_the_same(
    make_trainer: Callable[..., GRPOTrainer], checkpointing: bool
) -> None:
    found, encoded = [], []
    for once in (False, True):
        trainer = make_trainer(EmoTrainer, gradient_checkpointing=checkpointing)
        trainer.model.model.visual.requires_grad_(False)
        assert vision_is_frozen(trainer.model)
        if once:
            trainer.encode_images_once(trainer.model)
            for model in (trainer.model, trainer.ref_model):
                model.model.visual.register_forward_pre_hook(
                    lambda _, args, kwargs: encoded.append(len(kwargs["grid_thw"])), with_kwargs=True
                )
        loss = loss_of(trainer)
        loss.backward()
        found.append((loss.detach(), {n: p.grad for n, p in trainer.model.named_parameters() if p.requires_grad}))
    assert encoded == [3]  # in the rollouts; the reference and the update know them
    torch.testing.assert_close(found[1][0], found[0][0], atol=1e-6, rtol=1e-5)
    assert any(grad.abs().max() > 1e-3 for grad in found[0][1].values())
    for name, grad in found[0][1].items():
        torch.testing.assert_close(found[1][1][name], grad, atol=1e-5, rtol=1e-3)


def test_several_images_in_a_row_are_refused_where_trl_would_lose_count_of_their_tiles() -> None:
    counts = {"batch_num_images": torch.tensor([1, 2])}  # LLaVA-OneVision's
    with pytest.raises(UserError, match="rows with several images: keep one in each row"):
        EmoTrainer._get_per_token_logps_and_entropies(None, None, None, None, 1, **counts)


def test_vision_changes_where_its_weights_or_adapters_on_it_learn() -> None:
    model, _ = load(EMBEDDED)
    assert not vision_is_frozen(model)
    adapters = {"r": 2, "target_modules": "all-linear"}
    assert not vision_is_frozen(get_peft_model(load(EMBEDDED)[0], LoraConfig(**adapters)))
    language_only = LoraConfig(**adapters, exclude_modules=r"(.*\.)?visual\..*")
    assert vision_is_frozen(get_peft_model(load(EMBEDDED)[0], language_only))


def test_distinct_rows_are_found_in_any_order_and_by_every_part() -> None:
    a, b = torch.tensor([1, 2]), torch.tensor([1, 3])
    assert distinct([(a, a), (b, a), (a.clone(), a), (a, b), (b, a)]) == ([0, 1, 3], [0, 1, 0, 2, 1])
    assert distinct([]) == ([], [])


def test_an_image_given_several_times_or_again_is_prepared_once_and_leaves_no_trace(scenes: str) -> None:
    _, processor = load(EMBEDDED)
    one, other = (open_image(sample.image) for sample in load_samples(scenes, split="test")[:2])
    images, text = [[one], [other], [one]], ["<|vision_start|><|image_pad|><|vision_end|>"] * 3
    wanted = processor(images=images, text=text, return_tensors="pt")
    prepared = []
    convert = type(processor.image_processor)._preprocess
    with images_once(processor), pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            type(processor.image_processor),
            "_preprocess",
            lambda self, images, *args, **kwargs: (
                prepared.append(len(images)) or convert(self, images, *args, **kwargs)
            ),
        )
        found = processor(images=images, text=text, return_tensors="pt")
        again = processor(images=images[:2], text=text[:2], return_tensors="pt")
    assert prepared == [2]
    assert torch.equal(again["pixel_values"], wanted["pixel_values"][: len(again["pixel_values"])])
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert "preprocess" not in vars(processor.image_processor)
