"""Draws hard pictures of scenes: small icons that may cross, bars, low contrast, pixel noise, and a coloured border.

How hard a picture is differs from scene to scene. The border's colour means nothing; a domain ties it to the label.
"""

from random import Random

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance

from emor3.tiny.drawing import SIZE, Box, draw_scene, paint
from emor3.tiny.world import Scene

BORDERS = ("#ff0000", "#ff9000", "#ffff00", "#00d000", "#00d0d0", "#0040ff", "#a000e0", "#ff60c0")
"""Colours of the border, by the number of the cue."""
BORDER = 3
"""Width in pixels."""

SMALLEST, LARGEST = 21, 29
"""Side of an icon in pixels."""
DRIFT = 11
"""Pixels that an icon drifts at most from its corner towards the other one, which it may cross."""
BARS, BAR_WIDTH = 2, (3, 6)
LEAST_CONTRAST = 0.35
MOST_NOISE = 130.0
"""Standard deviation of a pixel's noise, of 255."""
VERSION = 2
"""Raised whenever hard pictures change, so that none are taken from a cache of older ones."""


def draw_picture(scene: Scene, style: str, cue: int | None, rng: Random) -> Image.Image:
    """The scene drawn in a style: a hard picture if it has a cue, else an easy one."""
    if cue is None:
        return draw_scene(scene.object, scene.face, scene.surroundings, style, rng)
    return draw_hard_scene(scene, style, cue, rng)


def draw_hard_scene(scene: Scene, style: str, cue: int, rng: Random) -> Image.Image:
    """A 64 x 64 RGB picture; `rng` draws how hard it is (0 to 1), and from that each of the difficulties."""
    hardness = rng.random()
    boxes = [_box(upper_left, hardness, rng) for upper_left in (True, False)]
    rng.shuffle(boxes)
    image = paint((scene.object, boxes[0]), (scene.face, boxes[1]), scene.surroundings, style)
    canvas = ImageDraw.Draw(image)
    for _ in range(BARS):
        _bar(canvas, rng.random() < hardness / 2, rng)
    image = ImageEnhance.Contrast(image).enhance(1 - (1 - LEAST_CONTRAST) * hardness * rng.random())
    image = ImageEnhance.Brightness(image).enhance(rng.uniform(0.85, 1.1))
    side = SIZE - 1
    ImageDraw.Draw(image).rectangle((0, 0, side, side), outline=BORDERS[cue], width=BORDER)
    return _with_noise(image, MOST_NOISE * hardness * rng.random(), rng.getrandbits(32))


def _box(upper_left: bool, hardness: float, rng: Random) -> Box:
    """A box near the upper left or the lower right corner: the harder, the smaller and the further from it."""
    side = LARGEST - round((LARGEST - SMALLEST) * hardness * rng.random())
    left, top = (BORDER + rng.randint(0, 2 + round(DRIFT * hardness)) for _ in range(2))
    return (left, top, side) if upper_left else (SIZE - side - left, SIZE - side - top, side)


def _bar(canvas: ImageDraw.ImageDraw, drawn: bool, rng: Random) -> None:
    """A grey bar across the picture. The dice are thrown also if it is not drawn."""
    start, width, upright = rng.randint(0, SIZE), rng.randint(*BAR_WIDTH), rng.random() < 0.5
    band = (start, 0, start + width, SIZE) if upright else (0, start, SIZE, start + width)
    if drawn:
        canvas.rectangle(band, fill="#808080")


def _with_noise(image: Image.Image, deviation: float, seed: int) -> Image.Image:
    noise = np.random.RandomState(seed).standard_normal((SIZE, SIZE, 3))
    return Image.fromarray(np.clip(np.asarray(image) + deviation * noise, 0, 255).astype(np.uint8))
