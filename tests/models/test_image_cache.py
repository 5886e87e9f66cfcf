"""Frozen vision: each image of a round is encoded once, and nothing that is computed from it changes."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import ProcessorMixin

from architectures import BUILDERS, write_checkpoint
from emor3.data.folders import load_samples
from emor3.models.architectures import images_encoded
from emor3.models.checkpoints import load
from emor3.models.generation import encode
from emor3.models.image_cache import EncodedImages

TILED = "llava_onevision"
FRAMES = {"idefics3": 5}
"""What the vision tower sees of a square image, if not the image alone: four tiles, and the whole of it."""


@pytest.fixture(scope="module", params=[name for name in BUILDERS if name != TILED])
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ProcessorMixin, int]:
    folder = tmp_path_factory.mktemp(request.param)
    write_checkpoint(request.param, folder)
    return str(folder), load(str(folder))[1], FRAMES.get(request.param, 1)


def encoded_by(model: Any) -> list[int]:
    """Counts of images that pass through the vision tower, call by call."""
    counts = []

    def count(_: Any, args: Any, kwargs: Any) -> None:
        counts.append(images_encoded(args, kwargs))

    model.get_encoder(modality="image").register_forward_pre_hook(count, with_kwargs=True)
    return counts


def inputs_of(processor: ProcessorMixin, scenes: str, places: list[int]) -> Any:
    samples = load_samples(scenes, split="train")
    return encode(processor, [(samples[place].images, "What is it?") for place in places])


def test_an_image_that_was_seen_is_not_encoded_again_and_the_model_says_the_same(
    loaded: tuple[str, ProcessorMixin, int], scenes: str
) -> None:
    folder, processor, frames = loaded
    plain, sharing, other = (load(folder)[0] for _ in range(3))
    memo = EncodedImages()
    memo.share(sharing)
    memo.share(other)
    counts, others = encoded_by(sharing), encoded_by(other)
    with torch.no_grad():
        for model, places in ((sharing, [0, 1]), (sharing, [1, 2, 0]), (other, [2, 1])):
            inputs = inputs_of(processor, scenes, places)
            torch.testing.assert_close(model(**inputs).logits, plain(**inputs).logits, atol=1e-5, rtol=1e-4)
    assert counts == [2 * frames, frames]  # images 0 and 1, then only 2
    assert others == []  # all known from the other model


def test_a_rank_whose_images_are_known_encodes_one_again_while_another_rank_has_a_new_one(
    loaded: tuple[str, ProcessorMixin, int], scenes: str
) -> None:
    folder, processor, frames = loaded
    sharing, told = load(folder)[0], []

    def on_any_rank(new: bool) -> bool:
        told.append(new)
        return True  # the other rank has one

    EncodedImages(on_any_rank).share(sharing)
    counts = encoded_by(sharing)
    with torch.no_grad():
        first, again = (sharing(**inputs_of(processor, scenes, [0, 1])).logits for _ in range(2))
    assert told == [True, False]
    assert counts == [2 * frames, frames]  # both, then the first once more
    assert torch.equal(again, first)


def test_a_new_round_knows_no_image(loaded: tuple[str, ProcessorMixin, int], scenes: str) -> None:
    folder, processor, frames = loaded
    model = load(folder)[0]
    memo = EncodedImages()
    memo.share(model)
    counts = encoded_by(model)
    with torch.no_grad():
        for _ in range(2):
            model(**inputs_of(processor, scenes, [0]))
            memo.forget()
    assert counts == [frames, frames]


def test_the_language_model_learns_from_remembered_images_what_it_learns_from_fresh_ones(
    loaded: tuple[str, ProcessorMixin, int], scenes: str
) -> None:
    folder, processor, _ = loaded
    plain, sharing = (load(folder)[0] for _ in range(2))
    memo = EncodedImages()
    memo.share(sharing)
    inputs = inputs_of(processor, scenes, [0, 1])
    with torch.no_grad():
        sharing(**inputs)
    for model in (plain, sharing):
        model(**inputs).logits.square().mean().backward()
    weights, same = plain.get_output_embeddings().weight, sharing.get_output_embeddings().weight
    assert weights.grad.abs().max() > 0
    torch.testing.assert_close(same.grad, weights.grad, atol=1e-6, rtol=1e-4)


def test_a_model_that_cuts_images_into_tiles_encodes_them_each_time(tmp_path: Path, scenes: str) -> None:
    write_checkpoint(TILED, tmp_path)
    model, processor = load(str(tmp_path))
    EncodedImages().share(model)
    counts = encoded_by(model)
    with torch.no_grad():
        for _ in range(2):
            model(**inputs_of(processor, scenes, [0]))
    assert counts == [2, 2]  # the whole picture and one tile


def test_tiles_are_cut_as_the_rows_say_which_images_belong_together(tmp_path: Path, scenes: str) -> None:
    write_checkpoint(TILED, tmp_path)
    samples = load_samples(scenes, split="train")
    together = (*samples[0].images, *samples[1].images)
    assert encode(load(str(tmp_path))[1], [(together, "What is it?")])["batch_num_images"].tolist() == [2]
