"""Public sets of clips, in the layouts that their authors' code reads: the MER challenges and DFEW."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from emor3.data.importers.clips.finding import Clips
from emor3.data.importers.clips.own import ARRAYS, named_clips
from emor3.data.importers.items import Dropped, Found, Options, WrongLayoutError
from emor3.data.importers.sources import listing
from emor3.data.importers.tables import TableRow, separated
from emor3.method.labels import LabelSet

MER6 = LabelSet(
    "mer6",
    ("angry", "happy", "neutral", "sad", "surprise", "worried"),
    polarity={"angry": -1, "happy": 1, "sad": -1, "worried": -1},
)
MER_TABLES = {
    "train-label.csv": "train",
    "label-disdim.csv": "train",
    "track1_train_disdim.csv": "train",
    "track1_test_dis.csv": "test",
}
"""Table of MER2023, MER2024 and MER2025 -> the split that it labels; test labels are not given to everyone."""
MER_CLIPS = ("train", "video-labeled", "video", ".")

DFEW7 = {1: "joy", 2: "sadness", 3: "neutral", 4: "anger", 5: "surprise", 6: "disgust", 7: "fear"}
DFEW_FOLDS = tuple(f"fold{fold}" for fold in range(1, 6))
DFEW_TABLES = ("EmoLabel_DataSplit/{}(single-labeled)/set_{}.csv", "label/single_{}set_{}.csv")
DFEW_CLIPS = (
    *("Clip/original", "Clip/clip_224x224_avi", "Clip/clip_224x224", "Clip/clip_224x224_16f"),
    "data",
)
"""Where clips lie, whole scenes before cut-out faces, videos before frames."""


def mer(source: Path, options: Options) -> Found:
    """`train-label.csv`, `label-disdim.csv` or `track1_train_disdim.csv` (name, discrete, valence), and the clips.

    The clips of the training table are split by us unless there is a table of test labels. The .npz files that the
    baselines make of them are not read: they are pickled, and call every unlabelled clip neutral.
    """
    named = {name: split for name, split in MER_TABLES.items() if (source / name).is_file()}
    if not named:
        made = [path.name for path in source.iterdir() if path.suffix == ARRAYS] if source.is_dir() else []
        also = f" ({made[0]} is pickled, and is not loaded)" if made else ""
        raise WrongLayoutError(f"none of {', '.join(MER_TABLES)}{also}; {listing(source)}")
    clips = Clips(source, [source / place for place in MER_CLIPS])
    for name, split in named.items():
        rows = _of_split(source / name, split if "test" in named.values() else None)
        yield from named_clips(rows, source, clips, replace(options, columns={"clip": "name", "label": "discrete"}))


def dfew(source: Path, options: Options) -> Found:
    """`video_name,label` (1 to 7) of one of five folds of the clips with a single label; names lack leading zeros."""
    fold = re.sub("[^0-9]", "", options.policy)
    pairs = [{split: source / name.format(split, fold) for split in ("train", "test")} for name in DFEW_TABLES]
    found = next((pair for pair in pairs if all(path.is_file() for path in pair.values())), None)
    if found is None:
        wanted = " nor ".join(pair["train"].relative_to(source).as_posix() for pair in pairs)
        raise WrongLayoutError(f"neither {wanted}; {listing(source)}")
    clips = Clips(source, [source / place for place in DFEW_CLIPS])
    for split, path in found.items():
        yield from named_clips(_of_split(path, split), source, clips, replace(options, label_names=DFEW7))


def _of_split(path: Path, split: str | None) -> Iterator[TableRow | Dropped]:
    """Rows of a CSV file, which are all of one split if it is known."""
    for row in separated(path, ("name", "discrete", "video_name", "label")):
        yield row if isinstance(row, Dropped) else (row[0], split, row[2])
