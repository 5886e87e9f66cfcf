"""What the exports share: their options, images in place, what else a description is asked on, and the README."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from emor3.data.manifest import copy_file, link
from emor3.method.types import Sample

IMAGES = "images"
"""Where an exported folder keeps its images: a link to the data folder, or copies."""
README = "README.md"


@dataclass(frozen=True)
class ExportOptions:
    """What a person may choose of an export, and the two places."""

    source: Path
    """The data folder, in which all images of the samples lie."""
    out: Path
    """The folder that will stand at the end, absolute. A `write` fills a draft of it, and names this one in rows."""
    template: str = "steps"
    """Prompt template: a shipped one or a file."""
    distractors: int = 2
    """Other samples that each row names, for hosts that score one completion at a time."""
    seed: int = 0
    copy: bool = False
    """Copy the images instead of linking to their folder."""


@dataclass(frozen=True)
class Written:
    """What a host's `write` left in the folder, for its README and for the command."""

    files: Mapping[str, str]
    """Split -> file of its rows, relative to the folder."""
    command: str
    """The exact command that reads them, of several lines if need be."""
    notes: Sequence[str] = ()
    """What the host cannot do, or needs: one sentence or more each."""
    on_hub: bool = False
    """Whether the `datasets` library reads the rows: the README then begins with what it looks for."""


def by_split(samples: Sequence[Sample]) -> dict[str, list[Sample]]:
    """split -> its samples, in order."""
    found: dict[str, list[Sample]] = {}
    for sample in samples:
        found.setdefault(sample.split, []).append(sample)
    return found


def place_images(samples: Sequence[Sample], folder: Path, options: ExportOptions) -> None:
    """Put all images where `image_path` names them: one link to the data folder, or copies."""
    paths = dict.fromkeys(path for sample in samples for path in sample.images)
    if options.copy:
        for path in paths:
            copy_file(Path(path), folder / image_name(path, options))
    elif paths:
        link(folder / IMAGES, options.source)


def image_name(path: str, options: ExportOptions) -> str:
    """An image of a sample, relative to the exported folder."""
    return f"{IMAGES}/{Path(path).relative_to(options.source).as_posix()}"


def image_path(path: str, options: ExportOptions) -> str:
    """An image of a sample where it will lie, absolute."""
    return str(options.out / image_name(path, options))


def readme(title: str, written: Written) -> Iterator[str]:
    """Lines of the README of an exported folder."""
    if written.on_hub:
        yield from ("---", "configs:", "- config_name: default", "  data_files:")
        for split, file in written.files.items():
            yield from (f"  - split: {split}", f"    path: {file}")
        yield from ("---", "")
    yield from (f"# Data for {title}", "", "```bash", written.command, "```", "")
    yield from (f"- {note}" for note in written.notes)
