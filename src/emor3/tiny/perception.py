"""Perception, which only drawn pictures let us check without a judge: what step 1 names is what was drawn."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from emor3.method.types import EmotionalThought, Prediction, Sample
from emor3.stats.classification import is_correct
from emor3.stats.measures import Check
from emor3.tiny.folders import read_scenes
from emor3.tiny.language import names_scene, share_there
from emor3.tiny.world import Scene

EXACT = "step 1 exactly right"
"""As tables call it: each factor of the picture is named and no other value of one."""


class DrawnTruth:
    """Checks of step 1 against the scenes of drawn folders; nothing is known of any other picture."""

    def __init__(self, folders: Iterable[Path]) -> None:
        self.scenes = {_place(path): scene for folder in folders for path, scene in read_scenes(folder).items()}

    def describes(self, sample: Sample, thought: EmotionalThought) -> bool | None:
        """Whether step 1 names each factor of the picture and no other value of one."""
        scene = self._scene(sample)
        return None if scene is None else names_scene(thought.trigger, scene)

    def exact(self, prediction: Prediction) -> bool | None:
        """The same of a prediction, as figures check it."""
        return self.describes(prediction.sample, prediction.thought)

    def there(self, prediction: Prediction) -> float | None:
        """Share of the factors named in step 1 that are in the picture; None if none is named."""
        scene = self._scene(prediction.sample)
        return None if scene is None else share_there(prediction.thought.trigger, scene)

    def checks(self) -> Mapping[str, Check]:
        """Every check by its title, also among right answers: right for the right reason. Empty if none applies."""
        if not self.scenes:
            return {}
        return {
            EXACT: self.exact,
            "named factors that are there": self.there,
            f"{EXACT}, right answers": lambda p: self.exact(p) if is_correct(p) else None,
            "named factors that are there, right answers": lambda p: self.there(p) if is_correct(p) else None,
        }

    def _scene(self, sample: Sample) -> Scene | None:
        return self.scenes.get(_place(sample.images[0])) if sample.images else None


def _place(path: str) -> tuple[str, ...]:
    """A picture's path below the cache, which is elsewhere on the next machine: the domain's folder and the file."""
    return Path(path).parts[-3:]
