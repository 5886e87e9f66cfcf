"""Cold-Start-Emo: the boxed label alone is learnt, from the image, for as many steps as the recipe says."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import ProcessorMixin
from trl import SFTTrainer

from emor3.data.folders import load_samples
from emor3.errors import UserError
from emor3.method.types import Sample
from emor3.models.checkpoints import load
from emor3.runs.recipe import ColdStartBlock
from emor3.training.cold_start import cold_start, supervised_dataset


@pytest.fixture(scope="module")
def samples(scenes: str) -> list[Sample]:
    return load_samples(scenes, split="train")


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[tuple[dict[str, torch.Tensor], SFTTrainer]]:
    """What the loss is computed from, step by step, and the trainer that does it."""
    seen = []
    original = SFTTrainer.compute_loss

    def compute_loss(self: Any, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append(({name: value.clone() for name, value in inputs.items()}, self))
        return original(self, model, inputs, *args, **kwargs)

    monkeypatch.setattr(SFTTrainer, "compute_loss", compute_loss)
    return seen


def supervised(processor: ProcessorMixin, inputs: Any) -> list[Any]:
    """Text of the tokens that carry a loss, one string per row."""
    return [processor.tokenizer.decode(row[row != -100]) for row in inputs["labels"]]


def settings(**changes: Any) -> ColdStartBlock:
    return ColdStartBlock(**{"samples": 4, "steps": 2, "batch_size": 3, "learning_rate": 1e-3} | changes)


def test_only_the_boxed_label_carries_a_loss_and_the_image_is_shown(
    random_checkpoint: str, samples: list[Sample], batches: list[tuple[dict[str, torch.Tensor], SFTTrainer]]
) -> None:
    model, processor = load(random_checkpoint)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    tuned, _ = cold_start(model, processor, samples, settings(), "steps", 0, None)
    assert len(batches) == 2  # steps
    possible = {f"\\boxed{{{label}}}" for label in samples[0].labels.labels}
    for inputs, trainer in batches:
        ends = [text.partition("<|im_end|>") for text in supervised(processor, inputs)]
        assert {answer for answer, _, _ in ends} <= possible
        assert all(end == "<|im_end|>" and not rest.strip() for _, end, rest in ends)
        # 64 x 64 pixels in patches of 8, merged 2 x 2, are 16 tokens of each image.
        assert (inputs["input_ids"] == model.config.image_token_id).sum(1).tolist() == [16] * len(ends)
        assert inputs["pixel_values"].shape[0] == 64 * len(ends)
        assert (trainer.args.learning_rate, trainer.args.seed) == (1e-3, 0)
    assert len(batches[0][0]["input_ids"]) == 3
    assert not torch.equal(tuned.state_dict()["lm_head.weight"], before["lm_head.weight"])


def test_the_whole_reasoning_is_learnt_where_it_is_the_target(
    random_checkpoint: str, samples: list[Sample], batches: list[tuple[dict[str, torch.Tensor], SFTTrainer]]
) -> None:
    model, processor = load(random_checkpoint)
    cold_start(model, processor, samples, settings(steps=1, targets="reasoning"), "steps", 0, None)
    texts = supervised(processor, batches[0][0])
    assert {text.partition("<|im_end|>")[0] for text in texts} <= {sample.reasoning for sample in samples}


def test_the_prompt_goes_with_the_target_unless_the_recipe_names_one(samples: list[Sample]) -> None:
    def prompt(**changes: Any) -> Any:
        return supervised_dataset(samples, [0], settings(**changes), "steps")[0]["prompt"][0]["content"]

    assert prompt() == prompt(template="direct")
    assert prompt(targets="reasoning") == prompt(template="steps") != prompt()


@pytest.mark.slow
def test_samples_are_drawn_with_the_seed_and_none_is_drawn_twice(
    random_checkpoint: str, samples: list[Sample], batches: list[tuple[dict[str, torch.Tensor], SFTTrainer]]
) -> None:
    model, processor = load(random_checkpoint)
    drawn = []
    for seed in (0, 0, 1):
        batches.clear()
        cold_start(model, processor, samples, settings(steps=1, batch_size=4), "steps", seed, None)
        images = batches[0][0]["pixel_values"].view(4, -1)
        drawn.append(sorted(images.sum(1).tolist()))
    assert drawn[0] == drawn[1] != drawn[2]
    assert len(set(drawn[0])) == 4


def test_a_sample_without_reasoning_cannot_be_learnt_from_and_says_so(
    random_checkpoint: str, samples: list[Sample]
) -> None:
    bare = [replace(sample, reasoning=None) for sample in samples]
    with pytest.raises(UserError, match="has no 'reasoning' to learn from"):
        supervised_dataset(bare, range(len(bare)), settings(targets="reasoning"), "steps")
