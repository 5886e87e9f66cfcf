"""A prompt and its completion must fit into the model's context, which is known before anything is made."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from transformers import PreTrainedModel, ProcessorMixin

from architectures import write_checkpoint
from emor3.data import prompt_lengths as lengths
from emor3.data.prompt_lengths import check_context
from emor3.errors import UserError
from emor3.method.labels import MIKELS8
from emor3.method.types import Sample
from emor3.models.checkpoints import load
from emor3.models.generation import encode
from emor3.models.processors import load_processor


@pytest.fixture(scope="module")
def loaded(random_checkpoint: str) -> tuple[PreTrainedModel, ProcessorMixin]:
    return load(random_checkpoint)


@pytest.fixture
def sample(tmp_path: Path) -> Sample:
    Image.new("RGB", (120, 80)).save(tmp_path / "a.png")
    return Sample("a", (str(tmp_path / "a.png"),), "joy", MIKELS8)


def test_prompt_and_completion_may_fill_the_context_and_not_one_token_more(
    loaded: tuple[PreTrainedModel, ProcessorMixin], sample: Sample
) -> None:
    model, processor = loaded
    limit = model.config.text_config.max_position_embeddings
    length = encode(processor, [(sample.images, "What is felt?")])["input_ids"].shape[1]
    check_context(model, processor, [(sample, "What is felt?", limit - length)])
    told = f"sample 'a': {length} tokens of prompt and {limit - length + 1} of completion are {limit + 1}, .* {limit}:"
    with pytest.raises(UserError, match=told):
        check_context(model, processor, [(sample, "What is felt?", limit - length + 1)])


def test_a_long_text_is_too_long_by_its_tokens(loaded: tuple[PreTrainedModel, ProcessorMixin], sample: Sample) -> None:
    model, processor = loaded
    with pytest.raises(UserError, match="more than the model's context of"):
        check_context(model, processor, [(sample, "rain " * 2100, 8)])


def test_no_image_is_opened_for_a_prompt_that_fits_in_any_case(
    loaded: tuple[PreTrainedModel, ProcessorMixin], sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []
    monkeypatch.setattr(Image, "open", lambda *args, **_: opened.append(args))
    check_context(*loaded, [(sample, "What is felt?", 64)])
    assert opened == []


@pytest.mark.parametrize("size", [(64, 64), (640, 480), (1, 199), (3000, 16), (4000, 4000)])
def test_the_bound_of_an_image_holds_for_strips_too(
    loaded: tuple[PreTrainedModel, ProcessorMixin], size: tuple[Any, ...]
) -> None:
    _, processor = loaded
    assert lengths.token_counter(processor, "")(size) <= lengths._most_image_tokens(processor)


def test_no_image_is_cut_into_more_tiles_than_the_bound_says(tmp_path: Path) -> None:
    write_checkpoint("idefics3", tmp_path)
    processor = load_processor(str(tmp_path))
    count, most = lengths.token_counter(processor, ""), lengths._most_image_tokens(processor)
    assert count((64, 64)) == most
    assert count((200, 50)) < most


def test_an_image_that_cannot_be_read_is_left_to_whoever_opens_it(
    loaded: tuple[PreTrainedModel, ProcessorMixin], sample: Sample
) -> None:
    gone = Sample("b", ("gone.png",), "joy", MIKELS8)
    check_context(*loaded, [(gone, "What is felt?", 2000)])
