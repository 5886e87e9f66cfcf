"""Small video clips, encoded from drawn frames."""

from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np
from PIL import Image

RATE = 10
"""Frames a second."""


def grey_frames(values: Sequence[int], size: tuple[int, int] = (64, 48)) -> list[Image.Image]:
    """A frame of one grey for each value from 0 to 255."""
    return [Image.new("RGB", size, (value,) * 3) for value in values]


def moving(seed: int, count: int = 12, size: tuple[int, int] = (64, 48)) -> list[Image.Image]:
    """A bright block that wanders over a background of its own: frames that differ, of clips that do."""
    rng = np.random.default_rng(seed)
    width, height = size
    coarse = rng.integers(0, 200, (height // 8, width // 8, 3)).astype(np.uint8)
    background = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
    frames = []
    for place in range(count):
        frame = background.copy()
        frame.paste((255, 255, 255), (x := place * (width - 16) // count, 8, x + 16, 24))
        frames.append(frame)
    return frames


def write_clip(path: Path, frames: Sequence[Image.Image], codec: str = "mpeg4", rate: int = RATE) -> Path:
    """A clip of these frames; returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height = frames[0].size
        stream.pix_fmt = "yuv420p"
        stream.bit_rate = 2_000_000
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_image(frame)))
        container.mux(stream.encode())
    return path


def write_sound(path: Path) -> Path:
    """A file with sound alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16_000)
        for place in range(4):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 16_000, place * 1024
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def turn(path: Path) -> None:
    """Note in an .mp4 that the camera was held on its side: a quarter turn in the matrix of its track."""
    content = bytearray(path.read_bytes())
    start = content.index(b"tkhd") + 4 + 40  # version, times, track, duration, layer, volume: 40 bytes
    rows = ((0, 1 << 16, 0), (-(1 << 16), 0, 0), (0, 0, 1 << 30))
    content[start : start + 36] = b"".join(value.to_bytes(4, "big", signed=True) for row in rows for value in row)
    path.write_bytes(content)


def clip_folders(root: Path, labels: Sequence[str] = ("calm", "tense"), each: int = 3, form: str = "{label}") -> None:
    """So many clips for each label, in its folder; no two are alike."""
    for place in range(each * len(labels)):
        label = labels[place % len(labels)]
        write_clip(root / form.format(label=label) / f"{place}.mp4", moving(place))


def frame_folder(folder: Path, count: int = 12) -> None:
    """A clip as a folder of its frames, 1.jpg to 12.jpg."""
    folder.mkdir(parents=True)
    for number in range(1, count + 1):
        Image.new("RGB", (32, 32), (number * 10,) * 3).save(folder / f"{number}.jpg", quality=95)
