"""Checks of step 1 against the drawn truth of embedded test sets."""

from collections.abc import Mapping, Sequence

from emor3.data.folders import drawn_folders
from emor3.method.types import Prediction
from emor3.stats.classification import is_correct
from emor3.stats.measures import Check
from emor3.tiny.truth import DrawnScenes


class DrawnTruth:
    """Checks of step 1 against the scenes of embedded test sets; they do not apply to any other picture."""

    def __init__(self, tests: Sequence[str]) -> None:
        self.drawn = DrawnScenes(drawn_folders(tests))

    def exact(self, prediction: Prediction) -> bool | None:
        """Whether step 1 names each factor of the picture and no other value of one."""
        return self.drawn.exact(prediction.sample, prediction.thought)

    def there(self, prediction: Prediction) -> float | None:
        """Share of the factors named in step 1 that are in the picture; None if none is named."""
        return self.drawn.there(prediction.sample, prediction.thought)

    def checks(self) -> Mapping[str, Check]:
        """Every check by its title, also among right answers: right for the right reason. Empty if none applies."""
        if not self.drawn.scenes:
            return {}
        return {
            "step 1 exactly right": self.exact,
            "named factors that are there": self.there,
            "step 1 exactly right, right answers": lambda p: self.exact(p) if is_correct(p) else None,
            "named factors that are there, right answers": lambda p: self.there(p) if is_correct(p) else None,
        }
