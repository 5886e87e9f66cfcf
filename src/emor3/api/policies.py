"""Predict and evaluate from Python: the settings of `emor3 predict` and `emor3 evaluate`, by their names."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from emor3.data.folders import LabelSpec
from emor3.errors import UserError
from emor3.evaluation import evaluate as evaluation
from emor3.evaluation import predict as prediction
from emor3.evaluation.candidate import Candidate
from emor3.evaluation.journal import evaluation_folder
from emor3.evaluation.predict import Outcome, Picture
from emor3.evaluation.summary import Evaluation
from emor3.storage.clips import FRAMES


def predict(
    policy: Candidate,
    images: Picture | Sequence[Picture],
    labels: LabelSpec = None,
    *,
    samples: int = 0,
    abstain_below: float = 0.5,
    batch_size: int = 16,
    frames: int = FRAMES,
    **settings: Any,
) -> Iterator[tuple[Picture, Outcome | UserError]]:
    """For each picture, in order, its outcome with the reasoning and what the judge says of it, or why it has none.

    Pictures are paths, bytes of image files, or as Pillow holds them; a folder is all images in it. Of a video clip so
    many `frames` are shown in one prompt. With `samples` M above 0, M completions are sampled: the first that names
    their majority counts, and the outcome abstains if that label has a smaller share than `abstain_below`. `labels` is
    a label set, a built-in name or a list; None is that of the policy's training. Further settings: temperature, seed,
    max_new_tokens, template.
    Raises UserError for settings that cannot be used.
    """
    if idle := settings.keys() & {"split", "label_field", "limit"}:
        raise UserError(f"{min(idle)} is a setting of evaluate: it does nothing in predict, leave it out")
    pictures: Sequence[Picture] = [images] if isinstance(images, Picture) else images
    chosen = policy.settings(samples=samples, batch_size=batch_size, **settings)
    label_set = prediction.choose_labels(policy, labels)
    return prediction.predict(policy, pictures, label_set, chosen, abstain_below, frames=frames)


def evaluate(
    policy: Candidate, data: str | Sequence[str], output: str | Path, *, resume: bool = False, **settings: Any
) -> list[Evaluation]:
    """Evaluate a policy on one or several data sets into an empty or new folder, as `emor3 evaluate` does.

    Returns predictions and figures of each data set. With `resume`, a stopped evaluation in the folder goes on after
    its last whole batch. Settings are those of `EvaluationSettings`: split, limit, samples, temperature and so on.
    Raises UserError for data, settings or a folder that cannot be used.
    """
    chosen = policy.settings(**settings)
    with evaluation_folder(Path(output), resume) as folder:
        return evaluation.evaluate(policy, [data] if isinstance(data, str) else data, chosen, folder, resume=resume)
