"""verifiers: a taskset whose reward is ours, which an exported package names (`emor3 data export --for verifiers`).

verifiers scores one trace at a time; those of a worker that come within moments are scored as one batch. A judge that
fails raises, and the trace has an error and no reward.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from emor3.hosts.rows import image_paths, unpack
from emor3.hosts.scoring import batching
from emor3.hosts.versions import VERIFIERS, check_trainer
from emor3.storage.images import data_uri, open_image

check_trainer(VERIFIERS)  # before the import, which an old one has not

import verifiers.v1 as vf  # noqa: E402


class EmotionData(vf.TaskData):
    """One picture to reason about."""

    emor3: str
    """The packed row."""


class EmotionTaskConfig(vf.TaskConfig):
    """What scoring needs."""

    settings: str | None = None
    """File with the blocks thinking, reward and judge; by default the one that EMOR3_REWARD names."""


class EmotionTask(vf.Task[EmotionData, vf.State, EmotionTaskConfig]):
    """Scores the last reply of a trace."""

    @vf.reward
    async def emor3(self, trace: vf.Trace) -> float:
        """The total of the reward; its parts stand in the trace's metrics."""
        found = await batching(self.config.settings).score(self.data.emor3, trace.last_reply)
        total = found.pop("total")
        trace.record_metrics(found)
        return total


class EmotionConfig(vf.TasksetConfig):
    """Which rows are loaded."""

    task: EmotionTaskConfig = EmotionTaskConfig()
    split: str = "train"
    """Split of the data."""


class EmotionTaskset(vf.Taskset[EmotionTask, EmotionConfig]):
    """The rows of an exported folder; a package of one names the folder in FOLDER."""

    FOLDER = Path()

    def load(self) -> Iterator[EmotionTask]:
        """Tasks in the order of the file. Raises UserError for a row or an image that cannot be read."""
        with open(self.FOLDER / f"{self.config.split}.jsonl", encoding="utf-8") as lines:
            for number, line in enumerate(lines):
                row = json.loads(line)
                content = unpack(row.get("emor3"), f"row {number}")
                prompt = _message(image_paths(content, f"row {number}"), row["prompt"])
                data = EmotionData(id=content["id"], prompt=[prompt], emor3=row["emor3"])
                yield EmotionTask(data, self.config.task)


def _message(images: list[str], text: str) -> Any:
    pictures = [
        vf.ImageUrlContentPart(image_url=vf.ImageUrlSource(url=data_uri(open_image(path), "PNG"))) for path in images
    ]
    return vf.UserMessage(content=[*pictures, vf.TextContentPart(text=text)])
