"""Perception, which only drawn pictures let us check without a judge: what step 1 names is what was drawn."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from emor3.method.types import Prediction
from emor3.tiny.folders import is_drawn, read_scenes
from emor3.tiny.language import names_scene
from emor3.tiny.world import Scene


def perceives(scenes: Mapping[str, Scene]) -> Callable[[Prediction], bool]:
    """Check of predictions on drawn pictures, by path: whether step 1 names exactly the factors that were drawn."""

    def names_what_was_drawn(prediction: Prediction) -> bool:
        return names_scene(prediction.thought.trigger, scenes[prediction.sample.image])

    return names_what_was_drawn


def scenes_of(folders: Iterable[Path]) -> dict[str, Scene] | None:
    """True scene of every picture of the folders, by path; None unless all of them are drawn."""
    scenes: dict[str, Scene] = {}
    for folder in folders:
        if not is_drawn(folder):
            return None
        scenes |= read_scenes(folder)
    return scenes
