"""Every image opens upright, as RGB and as a person sees it, or is refused by name."""

import ast
import base64
import io
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import emor3
from emor3.errors import UserError
from emor3.report.cards import thumbnail
from emor3.storage.images import FORMATS, open_image


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "I;16", "1"])
def test_a_picture_of_any_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    suffix = "jpg" if mode == "CMYK" else "png"
    Image.new(mode, (8, 6)).save(tmp_path / f"a.{suffix}")
    image = open_image(str(tmp_path / f"a.{suffix}"))
    assert (image.mode, image.size) == ("RGB", (8, 6))


def test_a_rotated_photograph_is_turned_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    Image.new("RGB", (8, 6)).save(tmp_path / "a.jpg", exif=exif)
    assert open_image(str(tmp_path / "a.jpg")).size == (6, 8)


@pytest.mark.parametrize("content", [b"", b"not a picture", b"\x89PNG\r\n\x1a\n"], ids=["empty", "text", "header"])
def test_a_file_that_is_no_picture_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.png cannot be read"):
        open_image(str(tmp_path / "a.png"))


def test_a_small_file_that_unpacks_to_a_huge_picture_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    Image.new("1", (9000, 9000)).save(tmp_path / "bomb.png")  # 81 million pixels
    assert (tmp_path / "bomb.png").stat().st_size < 100_000
    with pytest.raises(UserError, match=r"bomb\.png has 9000 x 9000 pixels"):
        open_image(str(tmp_path / "bomb.png"))


def test_a_truncated_jpeg_is_refused_by_name(tmp_path: Path) -> None:
    Image.effect_noise((64, 64), 50).save(tmp_path / "a.jpg")
    content = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"a\.jpg.*cannot be read"):
        open_image(str(tmp_path / "a.jpg"))


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_a_16_bit_picture_is_scaled_to_8_bits_and_not_clipped(tmp_path: Path, suffix: str) -> None:
    levels = np.array([[0, 256, 257], [25_700, 32_896, 65_535]], dtype=np.uint16)
    Image.fromarray(levels).save(tmp_path / f"a.{suffix}")
    seen = np.asarray(open_image(str(tmp_path / f"a.{suffix}")))
    assert seen[..., 0].tolist() == [[0, 0, 1], [100, 128, 255]]  # 257 steps of 65,535 are one of 255
    assert (seen[..., 0] == seen[..., 1]).all()


def test_floating_point_values_are_refused_since_their_range_is_unknown(tmp_path: Path) -> None:
    Image.fromarray(np.ones((4, 4), dtype=np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(UserError, match=r"a\.tif holds floating-point values"):
        open_image(str(tmp_path / "a.tif"))


@pytest.mark.parametrize("mode", ["RGBA", "P"])
def test_what_is_transparent_is_white_and_not_the_colour_hidden_there(tmp_path: Path, mode: str) -> None:
    picture = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    picture.putpixel((0, 0), (0, 0, 255, 255))
    (picture if mode == "RGBA" else picture.quantize(4)).save(tmp_path / "a.png")
    seen = open_image(str(tmp_path / "a.png"))
    assert (seen.getpixel((0, 0)), seen.getpixel((3, 3))) == ((0, 0, 255), (255, 255, 255))


@pytest.mark.parametrize("suffix", ["gif", "webp", "png"])
def test_an_animation_shows_its_first_frame(tmp_path: Path, suffix: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("white", "black")]
    frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:], duration=40)
    assert open_image(str(tmp_path / f"a.{suffix}")).getpixel((4, 4)) == (255, 255, 255)


def test_an_extension_that_lies_about_the_format_does_no_harm(tmp_path: Path) -> None:
    Image.new("RGB", (8, 6), "teal").save(tmp_path / "a.jpg", "PNG")
    assert open_image(str(tmp_path / "a.jpg")).getpixel((0, 0)) == (0, 128, 128)


@pytest.mark.parametrize("size", [(2000, 10), (10, 2000), (200, 1)])
def test_a_strip_is_refused_by_name(tmp_path: Path, size: tuple[Any, ...]) -> None:
    Image.new("RGB", size).save(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"a\.png is .* too long a strip: crop it"):
        open_image(str(tmp_path / "a.png"))


def test_a_picture_of_no_height_is_refused_by_name(tmp_path: Path) -> None:
    Image.new("RGB", (1, 1)).save(tmp_path / "a.bmp")
    content = bytearray((tmp_path / "a.bmp").read_bytes())
    content[22:26] = bytes(4)  # the height in the header of a BMP
    (tmp_path / "a.bmp").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.bmp"):
        open_image(str(tmp_path / "a.bmp"))


def test_a_folder_in_the_place_of_a_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        open_image(str(tmp_path))


def encoded(form: str | None) -> bytes:
    """A small noisy picture of a format, with what makes a format hard: a rotation, frames, transparency."""
    picture = Image.effect_noise((24, 16), 60)
    exif = Image.Exif()
    exif[0x0112] = 8
    options = {"JPEG": {"exif": exif}, "WEBP": {"exif": exif}, "PNG": {"exif": exif}}.get(form, {})
    if form == "GIF":
        options = {"save_all": True, "append_images": [picture.rotate(180)], "transparency": 3}
    file = io.BytesIO()
    (picture.convert("RGB") if form == "WEBP" else picture).save(file, form, **options)
    return file.getvalue()


FILES = {form: encoded(form) for form in ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP")}
harm = st.lists(st.tuples(st.floats(0, 1), st.binary(max_size=6)), min_size=1, max_size=4)


@settings(derandomize=True, database=None, deadline=None, max_examples=300)
@given(st.sampled_from(sorted(FILES)), harm, st.floats(0.02, 1.5))
@pytest.mark.filterwarnings("ignore")
def test_a_damaged_file_opens_or_is_refused_by_name(form: Any, harm: Any, length: Any) -> None:
    content = bytearray(FILES[form])
    for place, written in harm:
        start = int(place**3 * len(content))  # mostly the header
        content[start : start + len(written)] = written
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "damaged.jpg"
        path.write_bytes(content[: int(length * len(content)) + 1])
        refused = None
        try:
            assert open_image(str(path)).mode == "RGB"
        except UserError as error:
            refused = str(error)
        assert refused is None or "damaged.jpg" in refused


def test_the_report_shows_the_picture_that_the_model_sees(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.full((60, 40), 32_896, dtype=np.uint16)).save(tmp_path / "a.png", exif=exif)
    _, content = thumbnail(str(tmp_path / "a.png")).split(",")
    with Image.open(io.BytesIO(base64.b64decode(content))) as shown:
        seen = open_image(str(tmp_path / "a.png"))
        assert (shown.size, shown.getpixel((0, 0))) == (seen.size, seen.getpixel((0, 0))) == ((60, 40), (128, 128, 128))


def test_images_are_opened_in_one_place() -> None:
    opening = set()
    for path in Path(emor3.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and ast.unparse(node) in ("Image.open", "ImageOps.exif_transpose"):
                opening.add(path.stem)
    assert opening == {"images"}


def test_only_the_listed_formats_are_opened_whatever_their_names_say(tmp_path: Path) -> None:
    picture = Image.effect_noise((24, 16), 60).convert("RGB")
    opened, refused = set(), {}
    for form in sorted({form.upper() for form in Image.registered_extensions().values()} & set(Image.SAVE)):
        try:
            picture.save(tmp_path / "a.jpg", form)
        except (OSError, ValueError, KeyError):
            continue  # this machine cannot write it
        try:
            opened.add((form, open_image(tmp_path / "a.jpg").mode))
        except UserError as error:
            refused[form] = str(error)
    assert opened >= {(form, "RGB") for form in FORMATS}
    assert {form for form, _ in opened} <= {*FORMATS, "DIB", "MPO"}  # several JPEGs in one file
    assert "EPS" in refused
    assert all("a.jpg cannot be read (cannot identify image file: no JPEG" in told for told in refused.values())


def test_a_picture_that_holds_a_program_starts_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.jpg", "EPS")
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(UserError, match=r"a\.jpg cannot be read"):
        open_image(tmp_path / "a.jpg")
    assert not (tmp_path / "ran").exists()
