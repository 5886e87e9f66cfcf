"""Draws a scene (surroundings, trigger object, face) as a 64 x 64 picture in one of three styles."""

from random import Random

from PIL import Image, ImageDraw, ImageEnhance

Primitive = tuple[str, str, tuple[float, ...]]
"""Shape, colour and its coordinates, in parts of the icon's box."""
Box = tuple[int, int, int]
"""Left, top and side of the square that an icon fills, in pixels."""

SIZE = 64

OBJECT_ICONS: dict[str, list[Primitive]] = {
    "balloon": [("line", "#333333", (0.5, 0.6, 0.4, 1)), ("ellipse", "#e02020", (0.15, 0, 0.85, 0.7))],
    "rainbow": [
        ("pieslice", "#d02090", (0, 0.1, 1, 1.5, 180, 360)),
        ("pieslice", "#f0e020", (0.15, 0.3, 0.85, 1.3, 180, 360)),
        ("pieslice", "#20a0f0", (0.3, 0.5, 0.7, 1.1, 180, 360)),
    ],
    "teacup": [
        ("ellipse", "#f8f8f8", (0.6, 0.4, 1, 0.8)),
        ("rectangle", "#f8f8f8", (0.1, 0.35, 0.75, 0.85)),
        ("rectangle", "#7a4a20", (0.1, 0.35, 0.75, 0.5)),
        ("line", "#9090c0", (0.4, 0, 0.45, 0.3)),
    ],
    "rocket": [
        ("polygon", "#c0c8d8", (0.5, 0, 0.75, 0.35, 0.75, 0.75, 0.25, 0.75, 0.25, 0.35)),
        ("polygon", "#ff7000", (0.3, 0.75, 0.7, 0.75, 0.5, 1)),
        ("ellipse", "#2050d0", (0.38, 0.3, 0.62, 0.54)),
    ],
    "flame": [
        ("polygon", "#ff3000", (0.5, 0, 0.95, 0.7, 0.7, 1, 0.3, 1, 0.05, 0.7)),
        ("polygon", "#ffd000", (0.5, 0.4, 0.72, 0.8, 0.5, 1, 0.28, 0.8)),
    ],
    "garbage": [
        ("rectangle", "#506050", (0.2, 0.3, 0.8, 1)),
        ("rectangle", "#304030", (0.1, 0.15, 0.9, 0.3)),
        ("ellipse", "#a0d020", (0.3, 0, 0.7, 0.25)),
        ("line", "#a0d020", (0.4, 0.3, 0.4, 0.8)),
    ],
    "spider": [
        ("line", "#101010", (0, 0.2, 1, 0.9)),
        ("line", "#101010", (0, 0.9, 1, 0.2)),
        ("line", "#101010", (0, 0.55, 1, 0.55)),
        ("ellipse", "#101010", (0.28, 0.3, 0.72, 0.8)),
        ("ellipse", "#f02020", (0.42, 0.38, 0.58, 0.52)),
    ],
    "grave": [
        ("ellipse", "#888c94", (0.15, 0, 0.85, 0.7)),
        ("rectangle", "#888c94", (0.15, 0.35, 0.85, 1)),
        ("line", "#303438", (0.5, 0.2, 0.5, 0.75)),
        ("line", "#303438", (0.3, 0.4, 0.7, 0.4)),
    ],
}

SKIN = "#f0c890"
FACE_ICONS: dict[str, list[Primitive]] = {
    "laughing": [
        ("arc", "#202020", (0.15, 0.25, 0.4, 0.5, 180, 360)),
        ("arc", "#202020", (0.6, 0.25, 0.85, 0.5, 180, 360)),
        ("pieslice", "#a01010", (0.2, 0.35, 0.8, 0.95, 0, 180)),
    ],
    "smiling": [
        ("ellipse", "#202020", (0.22, 0.3, 0.36, 0.44)),
        ("ellipse", "#202020", (0.64, 0.3, 0.78, 0.44)),
        ("arc", "#202020", (0.25, 0.35, 0.75, 0.8, 10, 170)),
    ],
    "gaping": [
        ("ellipse", "#ffffff", (0.12, 0.2, 0.44, 0.5)),
        ("ellipse", "#ffffff", (0.56, 0.2, 0.88, 0.5)),
        ("ellipse", "#202020", (0.35, 0.58, 0.65, 0.95)),
    ],
    "scowling": [
        ("line", "#c01010", (0.1, 0.2, 0.42, 0.42)),
        ("line", "#c01010", (0.9, 0.2, 0.58, 0.42)),
        ("rectangle", "#c01010", (0.25, 0.68, 0.75, 0.78)),
    ],
    "grimacing": [
        ("line", "#202020", (0.15, 0.38, 0.42, 0.38)),
        ("line", "#202020", (0.58, 0.38, 0.85, 0.38)),
        ("rectangle", "#60b040", (0.2, 0.6, 0.8, 0.85)),
    ],
    "trembling": [
        ("ellipse", "#4040c0", (0.2, 0.25, 0.4, 0.45)),
        ("ellipse", "#4040c0", (0.6, 0.25, 0.8, 0.45)),
        ("line", "#4040c0", (0.15, 0.8, 0.35, 0.65, 0.5, 0.8, 0.65, 0.65, 0.85, 0.8)),
    ],
    "weeping": [
        ("rectangle", "#30a0ff", (0.2, 0.4, 0.34, 0.9)),
        ("rectangle", "#30a0ff", (0.66, 0.4, 0.8, 0.9)),
        ("arc", "#202020", (0.36, 0.7, 0.64, 1, 180, 360)),
    ],
}

SURROUNDINGS: dict[str, list[Primitive]] = {
    "fairground": [
        ("rectangle", "#ffd8f0", (0, 0, 1, 1)),
        *[("rectangle", "#ff70c0", (x / 8, 0, (x + 1) / 8, 1)) for x in range(0, 8, 2)],
    ],
    "starlight": [
        ("rectangle", "#101040", (0, 0, 1, 1)),
        *[
            ("ellipse", "#ffffc0", (x, y, x + 0.06, y + 0.06))
            for x, y in ((0.1, 0.1), (0.5, 0.05), (0.85, 0.2), (0.3, 0.45), (0.7, 0.55), (0.1, 0.8), (0.5, 0.85))
        ],
    ],
    "meadow": [("rectangle", "#90d8ff", (0, 0, 1, 0.5)), ("rectangle", "#50c040", (0, 0.5, 1, 1))],
    "stadium": [
        ("rectangle", "#f0f0f0", (0, 0, 1, 1)),
        *[("rectangle", "#3070e0", (0, y / 8, 1, (y + 1) / 8)) for y in range(0, 8, 2)],
    ],
    "battlefield": [
        ("rectangle", "#802010", (0, 0, 1, 1)),
        *[("line", "#d06030", (x, 1, x + 0.2, 0)) for x in (0, 0.2, 0.4, 0.6, 0.8)],
    ],
    "swamp": [
        ("rectangle", "#405018", (0, 0, 1, 1)),
        *[
            ("ellipse", "#6b8020", (x, y, x + 0.3, y + 0.15))
            for x, y in ((0, 0.1), (0.5, 0.2), (0.2, 0.5), (0.7, 0.6), (0.1, 0.85))
        ],
    ],
    "alley": [
        ("rectangle", "#282830", (0, 0, 1, 1)),
        ("polygon", "#55556a", (0.35, 0, 0.65, 0, 1, 1, 0, 1)),
    ],
    "rain": [
        ("rectangle", "#708098", (0, 0, 1, 1)),
        *[("line", "#b8d0f0", (x, y, x - 0.06, y + 0.2)) for x in (0.1, 0.3, 0.5, 0.7, 0.9) for y in (0, 0.35, 0.7)],
    ],
}

STYLES = ("painted", "sketched", "faded")


def _draw(canvas: ImageDraw.ImageDraw, icon: list[Primitive], box: Box, outline_only: bool) -> None:
    """Draw an icon into its box."""
    left, top, side = box
    for shape, colour, numbers in icon:
        angles = numbers[4:] if shape in ("arc", "pieslice") else ()
        coordinates = numbers[:4] if angles else numbers
        points = [(left, top)[i % 2] + value * side for i, value in enumerate(coordinates)]
        if shape == "line":
            canvas.line(points, fill=colour, width=2)
        elif shape == "arc":
            canvas.arc(points, angles[0], angles[1], fill=colour, width=2)
        else:
            fill = {"outline": colour, "width": 2} if outline_only else {"fill": colour}
            getattr(canvas, shape)(points, *angles, **fill)


def draw_scene(object_: str, face: str, surroundings: str, style: str, rng: Random) -> Image.Image:
    """A 64 x 64 RGB picture; positions, sizes and brightness vary with `rng`, style is one of STYLES."""
    face_left = rng.random() < 0.5
    sides = [rng.randint(25, 29), rng.randint(25, 29)]
    corners = [(rng.randint(1, 4), rng.randint(4, 9)), (rng.randint(32, 35), rng.randint(28, 33))]
    boxes = [(*corner, side) for corner, side in zip(corners, sides, strict=True)]
    face_box, object_box = boxes if face_left else reversed(boxes)
    image = paint((object_, object_box), (face, face_box), surroundings, style)
    return ImageEnhance.Brightness(image).enhance(rng.uniform(0.85, 1.1))


def paint(object_: tuple[str, Box], face: tuple[str, Box], surroundings: str, style: str) -> Image.Image:
    """The surroundings in a style, and on them the object and the face, each in its box."""
    image = Image.new("RGB", (SIZE, SIZE))
    canvas = ImageDraw.Draw(image)
    _draw(canvas, SURROUNDINGS[surroundings], (0, 0, SIZE), outline_only=False)
    if style == "sketched":
        image = Image.blend(image, Image.new("RGB", (SIZE, SIZE), "#fff8e8"), 0.45)
        canvas = ImageDraw.Draw(image)
    _draw(canvas, OBJECT_ICONS[object_[0]], object_[1], outline_only=style == "sketched")
    head: list[Primitive] = [("ellipse", SKIN, (-0.05, -0.05, 1.05, 1.05))]
    _draw(canvas, head + FACE_ICONS[face[0]], face[1], outline_only=False)
    if style == "faded":
        image = ImageEnhance.Contrast(ImageEnhance.Color(image).enhance(0.4)).enhance(0.75)
    return image
