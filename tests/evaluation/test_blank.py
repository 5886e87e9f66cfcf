"""The control without images: the policy is shown one grey picture, and nothing else changes."""

from collections.abc import Sequence
from typing import Any

from emor3.evaluation.candidate import Candidate
from emor3.evaluation.evaluate import BLANK, complete
from emor3.evaluation.journal import check_same
from emor3.evaluation.settings import EvaluationSettings
from emor3.method.labels import EKMAN6
from emor3.method.types import Sample
from emor3.models.processors import load_processor
from emor3.storage.images import open_image


class Engine:
    """Answers with the paths that it is shown."""

    def __init__(self, processor: Any) -> None:
        self.processor = processor

    def batches(self, requests: Sequence[Any], decoding: Any, size: int) -> list[list[int]]:
        return [[place] for place in range(len(requests))]

    def complete(self, requests: Sequence[Any], decoding: Any) -> list[list[str]]:
        return [[f"{len(images)}: {' '.join(images)} {prompt[:4]}"] for images, prompt in requests]


def test_each_image_is_replaced_by_one_grey_picture_and_texts_stay(random_checkpoint: str) -> None:
    samples = [
        Sample("a", ("1.png",), "joy", EKMAN6),
        Sample("b", ("1.png", "2.png"), "joy", EKMAN6),
        Sample("c", (), "joy", EKMAN6, text="Rain."),
    ]
    candidate: Any = type(
        "Seen", (Candidate,), {"__init__": lambda self: None, "engine": Engine(load_processor(random_checkpoint))}
    )()
    blind = complete(candidate, samples, EvaluationSettings(blank=True))
    assert blind == [f"1: {BLANK} Look", f"2: {BLANK} {BLANK} Look", "0:  Text"]
    assert complete(candidate, samples[:1], EvaluationSettings()) == ["1: 1.png Look"]
    assert open_image(BLANK).getcolors() == [(224 * 224, (128, 128, 128))]


def test_an_evaluation_begun_before_there_was_this_setting_goes_on(tmp_path: Any) -> None:
    settings = EvaluationSettings().model_dump()
    data = {"data": "d", "sample_ids": ["a"], "imported": {"set": "mvei"}}
    before = {"settings": {k: v for k, v in settings.items() if k != "blank"}, "data": [{"data": "d"}]}
    check_same(tmp_path, before, {"settings": settings, "data": [data]})  # raises if it is another
