"""Draw a few frames of a video clip, evenly spaced and the same ones every time; or one line that says what is wrong.

PyAV decodes (extra `video`), whose wheel brings FFmpeg. Sound is not read.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from emor3.errors import UserError, one_line
from emor3.storage.files import regular
from emor3.storage.images import MAX_IMAGE_PIXELS

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

CLIP_SUFFIXES = frozenset(
    {
        *(".mp4", ".m4v", ".mov", ".3gp", ".avi", ".mkv", ".webm", ".flv"),
        *(".mpg", ".mpeg", ".mts", ".m2ts", ".wmv", ".asf", ".ogv"),
    }
)
CONTAINERS = "mov,avi,matroska,flv,mpeg,mpegvideo,mpegts,asf,ogg"
"""What is opened, told by content and whatever the name. FFmpeg would follow a playlist named .mp4 to other places."""

FRAMES = 4
"""Frames drawn of a clip unless a person says otherwise."""
MOST_FRAMES = 100
"""That may be drawn of one: as many images as a row may have."""
QUALITY = 95
"""Of the JPEG files of frames, whose colours are kept at full size."""
LARGEST_FRAME = 4_000_000
"""Pixels of a frame; larger ones are scaled to them, as training does with larger images."""
LONGEST = 36_000
"""Frames of a clip, ten minutes at 60 a second: a label of a whole film is none of a clip."""


@dataclass(frozen=True)
class Frame:
    """One frame of a clip."""

    picture: Image.Image
    """RGB and upright."""
    time: float | None
    """Seconds from the clip's first frame, to the millisecond; None if the file does not tell."""


def is_clip(path: Path) -> bool:
    """Whether a file has the name of a video."""
    return path.suffix.lower() in CLIP_SUFFIXES


def check_frames(count: int) -> None:
    """Raise UserError for a number of frames that cannot be drawn."""
    if not 1 <= count <= MOST_FRAMES:
        raise UserError(f"--frames {count}: give a number from 1 to {MOST_FRAMES}, the images that one prompt may have")


def check_decoder() -> None:
    """Raise UserError if the package that decodes videos is not installed."""
    try:
        import av  # noqa: F401
    except ImportError:
        raise UserError("reading video clips needs PyAV: pip install 'emor3[video]'") from None


def middles(total: int, count: int) -> list[int]:
    """Places of `count` of `total` frames: of each of so many equal parts the one in its middle.

    >>> middles(10, 2), middles(4, 4), middles(9, 1)
    ([2, 7], [0, 1, 2, 3], [4])
    """
    return [(2 * part + 1) * total // (2 * count) for part in range(count)]


def draw_frames(path: Path, count: int = FRAMES) -> list[Frame]:
    """So many frames of a clip, in order of time: each from the middle of one of as many equal parts.

    Raises UserError, which names the clip, if it is no video, has no moving picture, fewer frames or far too many, or
    is damaged where it is read; and if the decoder is not installed.
    """
    check_frames(count)
    check_decoder()
    from av.error import FFmpegError

    try:
        open(path, "rb", opener=regular).close()  # FFmpeg would wait at a pipe
        total = _count(path)
        _check_length(path, total, count)
        frames = _decoded(path, middles(total, count))
        if isinstance(frames, int):  # packets without a picture, or two for one
            _check_length(path, frames, count)
            frames = _decoded(path, middles(frames, count))
    except FileNotFoundError:
        raise UserError(f"clip {path} does not exist: check its path") from None
    except (FFmpegError, OSError, ValueError, MemoryError) as error:
        why = one_line(getattr(error, "strerror", None) or str(error))
        raise UserError(f"clip {path} cannot be read as a video ({why}): repair, convert or remove it") from None
    if isinstance(frames, int):
        raise UserError(f"clip {path} has another number of frames whenever it is read: convert it")
    return frames


def write_frames(clip: Path, files: Sequence[Path]) -> list[float | None]:
    """Draw as many frames of a clip as there are files, write them there as JPEG, and return their times.

    Raises UserError as `draw_frames`.
    """
    frames = draw_frames(clip, len(files))
    for frame, file in zip(frames, files, strict=True):
        frame.picture.save(file, "JPEG", quality=QUALITY, subsampling=0)
    return [frame.time for frame in frames]


def too_few(total: int, count: int) -> str | None:
    """What is wrong with a clip of fewer frames than are to be drawn of it; None if it has enough."""
    has = f"{total} frame{'' if total == 1 else 's'}"
    return f"has {has}, too few to draw {count}: give a smaller --frames, or leave it out" if total < count else None


def _check_length(path: Path, total: int, count: int) -> None:
    if short := too_few(total, count):
        raise UserError(f"clip {path} {short}")
    if total > LONGEST:
        raise UserError(f"clip {path} has {total:,} frames of at most {LONGEST:,}: cut it where its label holds")


@contextmanager
def _opened(path: Path) -> "Iterator[tuple[InputContainer, VideoStream]]":
    """A file, whatever its name might say to FFmpeg, and its video stream. Raises UserError if there is none."""
    import av

    only = {"format_whitelist": CONTAINERS, "protocol_whitelist": "file"}
    with av.open(f"file:{path}", options=only) as container:
        if not container.streams.video:
            raise UserError(f"clip {path} has no video stream: it may be sound alone")
        stream = container.streams.video[0]
        if stream.codec_context is None:
            raise UserError(f"clip {path} is in a form that the decoder does not know: convert it")
        if stream.width * stream.height > MAX_IMAGE_PIXELS:
            raise UserError(f"clip {path} has frames of {stream.width} x {stream.height} pixels: resize it")
        yield container, stream


def _count(path: Path) -> int:
    """Packets of the video stream, nearly always one a frame; they are not decoded."""
    with _opened(path) as (container, stream):
        return sum(1 for packet in container.demux(stream) if packet.size)


def _decoded(path: Path, places: Sequence[int]) -> list[Frame] | int:
    """The frames at these places; if there are fewer than was thought, their number."""
    wanted, found, number = iter(places), list[Frame](), 0
    next_one = next(wanted)
    with _opened(path) as (container, stream):
        stream.thread_type = "AUTO"
        first: float | None = None
        for number, frame in enumerate(container.decode(stream), start=1):
            first = frame.time if first is None else first
            if number - 1 < next_one:
                continue
            time = None if frame.time is None or first is None else round(frame.time - first, 3)
            found.append(Frame(_picture(frame), time))
            if len(found) == len(places):
                return found
            next_one = next(wanted)
    return number


def _picture(frame: "VideoFrame") -> Image.Image:
    scale = min(1.0, (LARGEST_FRAME / (frame.width * frame.height)) ** 0.5)
    width, height = (max(1, int(side * scale)) for side in (frame.width, frame.height))
    picture = Image.fromarray(frame.to_ndarray(format="rgb24", width=width, height=height))
    # How the camera was held; quarter turns leave no corner to fill.
    return picture.rotate(frame.rotation, expand=True) if frame.rotation else picture
