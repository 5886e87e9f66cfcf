"""Open an image: upright, RGB, first frame, within limits; or one line that says what is wrong."""

import base64
import io
import struct
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from emor3.errors import UserError, one_line
from emor3.storage.files import regular

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
"""What is opened, told by content and whatever the name. Pillow would run Ghostscript on an EPS file named .jpg."""

MAX_IMAGE_PIXELS = 64_000_000
"""Larger files are refused before they are decoded: a small file can unpack to gigabytes."""

MAX_ASPECT_RATIO = 200
"""Longer strips are refused, as by image processors: they hold nothing to see."""

SOURCE = "emor3_source"
"""Where the `info` of an opened image, which its copies share, has the path of its file."""

ORIENTATION = 0x0112
"""EXIF tag of how the camera was held."""

FAULTS = (OSError, ValueError, SyntaxError, ArithmeticError, LookupError, TypeError, EOFError, struct.error, zlib.error)
"""What Pillow raises for damaged files, beside the bombs that it refuses itself."""


def open_known(file: str | Path | BinaryIO) -> Image.Image:
    """A file of one of the `FORMATS` with its header read and no more, the only call of `Image.open`.

    Raises what Pillow does for others and for damaged ones (`FAULTS`, and bombs that it refuses itself).
    """
    try:
        return Image.open(file, formats=FORMATS)
    except UnidentifiedImageError:
        raise UnidentifiedImageError("cannot identify image file: no JPEG, PNG, WebP, GIF, BMP or TIFF") from None


def open_image(path: str | Path, at_least: int | None = None) -> Image.Image:
    """The picture as RGB, upright, on white if it is transparent; of an animation the first frame.

    A JPEG may be decoded smaller, yet no side below `at_least` pixels, which is faster for a thumbnail.
    Raises UserError naming the file if it is missing, too large, a strip, of floating-point values or broken.
    """
    try:
        with open(path, "rb", opener=regular) as file, open_known(file) as image:
            if image.width * image.height > MAX_IMAGE_PIXELS:
                raise UserError(f"image {path} has {image.width} x {image.height} pixels: resize it below 64 million")
            if max(image.size) >= MAX_ASPECT_RATIO * min(image.size):
                raise UserError(f"image {path} is {image.width} x {image.height} pixels, too long a strip: crop it")
            if image.mode == "F":
                raise UserError(f"image {path} holds floating-point values of no known range: save it with 8 bits")
            if at_least is not None:
                image.draft("RGB", (at_least, at_least))
            ImageOps.exif_transpose(image, in_place=True)  # a copy of a large picture is another 200 MB
            opened = _to_rgb(image)
    except FileNotFoundError:
        raise UserError(f"image {path} does not exist: check its path") from None
    except (*FAULTS, Image.DecompressionBombError) as error:
        raise UserError(f"image {path} cannot be read ({one_line(str(error))}): repair, convert or remove it") from None
    opened.info[SOURCE] = str(path)
    return opened


def image_size(path: str | Path) -> tuple[int, int]:
    """Width and height of the picture upright, from the head of its file. Raises UserError if that is damaged."""
    try:
        with open(path, "rb", opener=regular) as file, open_known(file) as image:
            turned = image.getexif().get(ORIENTATION) in (5, 6, 7, 8)
            return (image.height, image.width) if turned else image.size
    except (*FAULTS, Image.DecompressionBombError) as error:
        raise UserError(f"image {path} cannot be read ({one_line(str(error))}): repair, convert or remove it") from None


def data_uri(picture: Image.Image, form: str, **options: Any) -> str:
    """A picture inside an address, for a page that refers to no file and for a server that reads none of ours.

    >>> data_uri(Image.new("L", (1, 1)), "PNG")[:30]
    'data:image/png;base64,iVBORw0K'
    """
    file = io.BytesIO()
    picture.save(file, form, **options)
    return f"data:image/{form.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"


def save_picture(picture: Image.Image, path: Path) -> None:
    """Write a picture held in memory to a file that `open_image` reads back, or refuses if it cannot be written."""
    try:
        ImageOps.exif_transpose(picture).save(path, "TIFF")  # of all modes that a picture may have, lossless
    except FAULTS:
        path.write_bytes(b"")


def image_fault(path: str) -> str | None:
    """Why an image cannot be opened; None if it can."""
    try:
        open_image(path)
    except UserError as error:
        return str(error)
    return None


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits, which Pillow would clip: 65,535 = 255 * 257
        image = Image.fromarray((np.asarray(image).clip(0, 65_535) // 257).astype(np.uint8))
    elif image.has_transparency_data:  # if it is clear, a pixel may hold any colour
        seen = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", seen.size, "white"), seen)
    return image.convert("RGB")
