"""Batches hold rows of like length and few padded tokens, and change no answer."""

from itertools import chain
from pathlib import Path

import pytest
from PIL import Image

from architectures import HERE, write_checkpoint
from emor3.models.checkpoints import load
from emor3.models.engines.batches import MOST_TOKENS, Decoding, plan
from emor3.models.generation import Request, encode, generate, request_lengths
from emor3.models.processors import load_processor


def test_one_long_prompt_pads_few_others_and_every_place_comes_once() -> None:
    lengths = [200] * 63 + [16_000]
    batches = Decoding(max_new_tokens=100).plan(lengths, batch_size=64)
    # 64 rows padded to 16,100 would be 1,030,400 tokens; 4 of them are 64,400, within 65,536, and 60 of 300 18,000.
    assert batches == [[63, 0, 1, 2], list(range(3, 63))]
    for count in (1, 2, 7):
        assert sorted(chain.from_iterable(plan(lengths, count))) == list(range(64))
        assert max(map(len, plan(lengths, count))) <= count


def test_batches_are_bounded_by_padded_tokens_with_those_to_come_and_all_draws() -> None:
    # 65,536 tokens: 32 rows of 1,948 + 100 = 2,048, and with 4 draws of each 8 prompts of them.
    assert MOST_TOKENS == 32 * 2048
    assert [len(places) for places in Decoding(100).plan([1948] * 40, batch_size=64)] == [32, 8]
    assert [len(places) for places in Decoding(100, draws=4).plan([1948] * 9, batch_size=64)] == [8, 1]
    assert [len(places) for places in Decoding(100, draws=8).plan([10] * 9, batch_size=16)] == [2, 2, 2, 2, 1]


@pytest.fixture
def pictures(tmp_path: Path) -> list[Request]:
    sizes = [(64, 64), (300, 120), (96, 200), (64, 64)]
    for place, size in enumerate(sizes):
        Image.effect_noise(size, 20 + place).convert("RGB").save(tmp_path / f"{place}.png")
    return [((str(tmp_path / f"{place}.png"),), "What is felt? " * (place + 1)) for place in range(len(sizes))]


def test_answers_come_in_the_order_of_the_requests_whatever_shares_their_batch(
    random_checkpoint: str, pictures: list[Request]
) -> None:
    model, processor = load(random_checkpoint)
    asked = [*pictures, ((), "Hello?")]
    alone = [generate(model, processor, [request], max_new_tokens=5)[0] for request in asked]
    for count in (2, 64):
        assert generate(model, processor, asked, max_new_tokens=5, batch_size=count) == alone


@pytest.mark.parametrize("family", HERE)
def test_the_length_of_a_prompt_is_known_without_opening_its_image(
    family: str, pictures: list[Request], tmp_path: Path
) -> None:
    write_checkpoint(family, tmp_path / family)
    processor = load_processor(str(tmp_path / family))
    large = str(tmp_path / "large.png")  # above 4 million pixels: opened at 2,041 x 1,960 by those that cut it
    Image.new("RGB", (2150, 2065)).save(large)
    asked = [*pictures[:3], ((large,), "What is felt?"), ((), "Hello?")]
    encoded = [int(encode(processor, [request])["attention_mask"].sum()) for request in asked]
    assert request_lengths(processor, asked) == encoded
    several: Request = ((*pictures[1][0], *pictures[2][0]), "What is felt?")
    # LLaVA-OneVision cuts an image into tiles only if it stands alone: no prompt is longer than was said.
    assert request_lengths(processor, [several])[0] >= int(encode(processor, [several])["attention_mask"].sum())
