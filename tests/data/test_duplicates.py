"""Near copies are found by their low frequencies, whatever their size and compression; blank pictures resemble none."""

import io
import random
from typing import Any

import numpy as np
import pytest
from PIL import Image

from emor3.data.copies.hashes import BAND_BITS, BANDS, DISTANCE, near_pairs, perceptual_hash


def photograph(seed: int) -> Image.Image:
    """Smooth random shapes in colour, 480 x 360, as a photograph has most of its weight in low frequencies."""
    noise = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((480, 360), Image.Resampling.BICUBIC)


def recompressed(image: Any, scale: float, quality: int) -> Image.Image:
    file = io.BytesIO()
    image.resize((int(image.width * scale), int(image.height * scale))).save(file, "JPEG", quality=quality)
    return Image.open(file)


def distance(one: Any, other: Any) -> Any:
    return (perceptual_hash(one) ^ perceptual_hash(other)).bit_count()


@pytest.mark.parametrize(("scale", "quality"), [(1, 90), (0.66, 40), (2, 75)])
def test_a_resized_and_recompressed_copy_is_near_and_another_picture_is_not(scale: float, quality: int) -> None:
    for seed in range(5):
        assert distance(photograph(seed), recompressed(photograph(seed), scale, quality)) <= DISTANCE
        assert distance(photograph(seed), photograph(seed + 50)) > 4 * DISTANCE


def test_a_blank_picture_has_no_hash() -> None:
    assert perceptual_hash(Image.new("RGB", (40, 40), "white")) is None


def test_pairs_are_exactly_those_within_the_distance() -> None:
    rng = random.Random(0)
    hashes = [rng.getrandbits(255) for _ in range(40)]
    for bits in (1, 8, 16, 17, 30):
        flipped = hashes[bits]
        for bit in rng.sample(range(BANDS * BAND_BITS), bits):
            flipped ^= 1 << bit
        hashes.append(flipped)
    expected = {
        (one, other)
        for other in range(len(hashes))
        for one in range(other)
        if (hashes[one] ^ hashes[other]).bit_count() <= DISTANCE
    }
    assert expected == {(1, 40), (8, 41), (16, 42)}
    assert sorted(near_pairs(hashes)) == sorted(expected)


def test_equal_hashes_are_paired_with_the_first_and_missing_ones_with_none() -> None:
    value = random.Random(1).getrandbits(255)
    assert list(near_pairs([None, value, None, value, value])) == [(1, 3), (1, 4)]
