"""The drawn truth of step 1: what a picture shows is known of embedded sets, so that no judge need be asked."""

from collections.abc import Iterable
from pathlib import Path

from emor3.method.types import EmotionalThought, Sample
from emor3.tiny.folders import read_scenes
from emor3.tiny.language import names_scene, share_there
from emor3.tiny.world import Scene


class DrawnScenes:
    """The scenes of the pictures in drawn folders; nothing is known of any other picture."""

    def __init__(self, folders: Iterable[Path]) -> None:
        self.scenes = {_place(path): scene for folder in folders for path, scene in read_scenes(folder).items()}

    def exact(self, sample: Sample, thought: EmotionalThought) -> bool | None:
        """Whether step 1 names each factor of the picture and no other value of one."""
        scene = self._scene(sample)
        return None if scene is None else names_scene(thought.trigger, scene)

    def there(self, sample: Sample, thought: EmotionalThought) -> float | None:
        """Share of the factors named in step 1 that are in the picture; None if none is named."""
        scene = self._scene(sample)
        return None if scene is None else share_there(thought.trigger, scene)

    def _scene(self, sample: Sample) -> Scene | None:
        return self.scenes.get(_place(sample.images[0])) if sample.images else None


def _place(path: str) -> tuple[str, ...]:
    """A picture's path below the cache, which is elsewhere on the next machine: the domain's folder and the file."""
    return Path(path).parts[-3:]
