"""Frames are drawn from the middles of equal parts of a clip, the same ones every time; what is no clip is told."""

import sys
from pathlib import Path
from random import Random

import pytest

from clips import grey_frames, moving, turn, write_clip, write_sound
from emor3.data.rows import MAX_IMAGES
from emor3.errors import UserError
from emor3.storage import clips
from emor3.storage.clips import draw_frames, middles

NEAR = 4
"""Steps of grey that a codec may move a flat frame."""


def greys(frames: list[clips.Frame]) -> list[int]:
    return [frame.picture.getpixel((32, 24))[0] for frame in frames]


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.mp4", "libx264"), ("a.mp4", "mpeg4"), ("a.avi", "mpeg4"), ("a.mkv", "ffv1"), ("a.webm", "libvpx-vp9")],
)
def test_the_frames_are_those_in_the_middles_of_equal_parts(tmp_path: Path, name: str, codec: str) -> None:
    path = write_clip(tmp_path / name, grey_frames(range(0, 240, 20)), codec)
    frames = draw_frames(path, 3)  # of 12 frames, of each 4 the third: 2, 6 and 10
    assert greys(frames) == pytest.approx([40, 120, 200], abs=NEAR)
    assert [frame.time for frame in frames] == pytest.approx([0.2, 0.6, 1.0], abs=0.001)  # at 10 frames a second
    assert [frame.picture.size for frame in frames] == [(64, 48)] * 3


def test_the_same_clip_gives_the_same_pixels(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", moving(1, 40), "libx264")
    first, again = draw_frames(path, 5), draw_frames(path, 5)
    assert [frame.picture.tobytes() for frame in first] == [frame.picture.tobytes() for frame in again]
    assert len({frame.picture.tobytes() for frame in first}) == 5


@pytest.mark.parametrize(("total", "count"), [(1, 1), (4, 4), (100, 7), (7, 3)])
def test_middles_are_distinct_in_order_and_as_far_from_one_end_as_from_the_other(total: int, count: int) -> None:
    places = middles(total, count)
    assert sorted(set(places)) == places
    assert abs(places[0] - (total - 1 - places[-1])) <= 1


def test_a_clip_whose_packets_are_more_than_its_frames_is_counted_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_clip(tmp_path / "a.mp4", grey_frames(range(0, 240, 20)))
    monkeypatch.setattr(clips, "_count", lambda path: 24)  # as of a video whose frames come in two halves
    assert greys(draw_frames(path, 3)) == pytest.approx([40, 120, 200], abs=NEAR)


def test_a_clip_of_a_camera_held_on_its_side_stands_upright(tmp_path: Path) -> None:
    frames = grey_frames([0] * 3)
    for frame in frames:
        frame.paste((255, 255, 255), (0, 0, 64, 12))  # bright above
    path = write_clip(tmp_path / "a.mp4", frames)
    turn(path)  # its rows run down the right side: by ISO 14496-12 the matrix turns clockwise
    picture = draw_frames(path, 1)[0].picture
    assert picture.size == (48, 64)
    assert picture.getpixel((45, 32))[0] > 200 > 50 > picture.getpixel((5, 32))[0]


def test_larger_frames_than_training_looks_at_are_scaled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clips, "LARGEST_FRAME", 768)  # a quarter of 64 x 48
    assert draw_frames(write_clip(tmp_path / "a.mp4", moving(0)), 1)[0].picture.size == (32, 24)


def fault(path: Path, count: int = 4) -> str:
    with pytest.raises(UserError) as caught:
        draw_frames(path, count)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_no_clip_is_told_in_one_line(tmp_path: Path) -> None:
    page = tmp_path / "page.mp4"
    page.write_text("<html>not found</html>")
    assert "page.mp4 cannot be read as a video (Invalid data found" in fault(page)
    assert "gone.mp4 does not exist" in fault(tmp_path / "gone.mp4")
    assert "sound.mp4 has no video stream: it may be sound alone" in fault(write_sound(tmp_path / "sound.mp4"))
    short = write_clip(tmp_path / "short.mp4", moving(0, 3))
    assert "short.mp4 has 3 frames, too few to draw 4: give a smaller --frames" in fault(short)
    assert fault(short, 0) == "--frames 0: give a number from 1 to 100, the images that one prompt may have"
    assert fault(short, 101).startswith("--frames 101: give a number from 1 to 100")
    assert clips.MOST_FRAMES == MAX_IMAGES


def test_a_clip_cut_short_is_told(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", moving(0, 40))
    path.write_bytes(path.read_bytes()[:900])
    assert "a.mp4 cannot be read as a video" in fault(path)


def test_a_whole_film_is_no_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clips, "LONGEST", 11)
    assert "a.mp4 has 12 frames of at most 11: cut it" in fault(write_clip(tmp_path / "a.mp4", moving(0)))


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.mp4", "mpeg4"), ("a.avi", "mpeg4"), ("a.mkv", "mpeg4"), ("a.mpg", "mpeg2video"), ("a.flv", "flv1")],
)
def test_a_spoilt_clip_is_drawn_or_told_in_one_line(
    tmp_path: Path, name: str, codec: str, capfd: pytest.CaptureFixture[str]
) -> None:
    path = write_clip(tmp_path / name, moving(0, 20), codec, 25)
    content, told, rng = path.read_bytes(), list[str](), Random(0)
    for _ in range(25):
        spoilt = bytearray(content)
        for _ in range(rng.choice((1, 3, 20))):
            spoilt[rng.randrange(rng.choice((200, len(content))))] = rng.randrange(256)
        path.write_bytes(spoilt[: rng.randrange(len(content)) if rng.random() < 0.2 else None])
        try:
            assert len(draw_frames(path)) == 4
        except UserError as error:
            told.append(str(error))
    assert 3 <= len(told) < 25  # some bytes of a video may be anything
    assert all(f"clip {path} " in line and "\n" not in line for line in told)
    assert capfd.readouterr() == ("", "")


def test_a_name_that_means_something_to_ffmpeg_is_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_clip(tmp_path / "a.mp4", moving(0)).rename(tmp_path / "data:a%d.mp4")
    monkeypatch.chdir(tmp_path)
    assert len(draw_frames(Path("data:a%d.mp4"))) == 4


def test_a_playlist_named_as_a_clip_leads_nowhere(tmp_path: Path) -> None:
    """FFmpeg reads a list of files by its content; it may name any file or address."""
    clip = write_clip(tmp_path / "private.avi", moving(0))
    listed = tmp_path / "a.mp4"
    listed.write_text(f"ffconcat version 1.0\nfile {clip.name}\n")
    assert "cannot be read as a video" in fault(listed)
    listed.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{clip.name}\n#EXT-X-ENDLIST\n")
    assert "cannot be read as a video" in fault(listed)


def test_without_the_decoder_the_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_clip(tmp_path / "a.mp4", moving(0))
    monkeypatch.setitem(sys.modules, "av", None)
    assert fault(path) == "reading video clips needs PyAV: pip install 'emor3[video]'"
