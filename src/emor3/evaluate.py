"""Evaluate a checkpoint on labelled images with the prompt, parser and reflection of training and a fixed judge.

`predictions.jsonl` gets one row per completion, `results.json` the figures with intervals and what they rest on.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from transformers import PreTrainedModel, ProcessorMixin

from emor3 import metrics
from emor3.config import Recipe
from emor3.data import LabelSpec, load_samples
from emor3.errors import UserError
from emor3.generation import generate
from emor3.judges import ScoreJudge
from emor3.modeling import load
from emor3.records import (
    CONFIG,
    ENVIRONMENT,
    FINAL,
    append_jsonl,
    environment_stamp,
    finding_row,
    read_json,
    write_json,
)
from emor3.reflection import reflect
from emor3.taxonomy import match
from emor3.thinking import build_prompt, parse
from emor3.types import Aspect, EmotionalThought, Estimate, Judge, Prediction, Sample

PREDICTIONS, RESULTS = "predictions.jsonl", "results.json"


@dataclass(frozen=True)
class EvaluationSettings:
    """What is evaluated and how completions are made."""

    split: str | None = "test"
    labels: LabelSpec = None
    label_field: str = "label"
    limit: int | None = None
    """Evaluate that many samples of each data set, the same ones every time."""
    temperature: float = 0.0
    """0 is greedy."""
    seed: int = 0
    template: str = "steps"
    max_new_tokens: int = 256
    batch_size: int = 64


@dataclass(frozen=True)
class Evaluation:
    """Predictions on one data set and their figures."""

    data: str
    predictions: Sequence[Prediction]
    figures: Mapping[str, Estimate]
    majority: Mapping[str, Estimate]
    """The figures that can be had for always answering the most frequent label of these samples."""
    confusion: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Candidate:
    """A checkpoint under evaluation with the fixed judge of its reasoning, both loaded."""

    path: str
    model: PreTrainedModel
    processor: ProcessorMixin
    judge_path: str
    judge: Judge
    recipe: Recipe | None
    """Recipe of the run that the checkpoint lies in."""

    @property
    def template(self) -> str:
        """The prompt template it was trained with."""
        return "steps" if self.recipe is None else self.recipe.template


def load_candidate(path: str, judge_path: str | None = None) -> Candidate:
    """Load a checkpoint, or the final one of a run directory, and its judge.

    The judge stays the same before and after training: by default the model the run started from, and for a checkpoint
    outside a run the checkpoint itself. Raises UserError where either cannot be loaded.
    """
    run = _run_of(Path(path))
    recipe = None if run is None else Recipe.model_validate(read_json(run / CONFIG))
    source = str(run / FINAL) if run is not None and run.samefile(path) else path
    model, processor = load(source)
    judge_path = judge_path or (recipe.model.path if recipe else source)
    asked = (model, processor) if judge_path == source else load(judge_path)
    return Candidate(source, model, processor, judge_path, ScoreJudge(*asked), recipe)


def _run_of(path: Path) -> Path | None:
    """The run directory that a checkpoint is or lies in."""
    nearby = (path, path.parent, path.parent.parent)
    return next((folder for folder in nearby if (folder / ENVIRONMENT).is_file() and (folder / CONFIG).is_file()), None)


def evaluate(candidate: Candidate, data: Sequence[str], settings: EvaluationSettings) -> list[Evaluation]:
    """Evaluate a candidate on several data sets, with a progress bar on standard error.

    All are read before the first completion is made. Raises UserError for data that cannot be used.
    """
    samples = {path: choose_samples(path, settings) for path in data}
    evaluations = []
    with Progress(console=Console(stderr=True), transient=True) as progress:
        for path, chosen in samples.items():
            advance = partial(progress.advance, progress.add_task(path, total=len(chosen)))
            evaluations.append(summarise(path, predict_samples(candidate, chosen, settings, advance)))
    return evaluations


def choose_samples(data: str, settings: EvaluationSettings) -> list[Sample]:
    """Samples of a data set that the settings ask for, in the manifest's order. Raises UserError as load_samples."""
    samples = load_samples(data, split=settings.split, labels=settings.labels, label_field=settings.label_field)
    if settings.limit is None or settings.limit >= len(samples):
        return samples
    kept = sorted(Random(0).sample(range(len(samples)), settings.limit))
    return [samples[index] for index in kept]


def predict_samples(
    candidate: Candidate,
    samples: Sequence[Sample],
    settings: EvaluationSettings,
    on_batch: Callable[[int], None] | None = None,
) -> list[Prediction]:
    """One judged completion for each of N samples, in order. `on_batch` gets the number of samples just completed."""
    completions = generate(
        candidate.model,
        candidate.processor,
        [(sample.image, build_prompt(sample.labels, settings.template)) for sample in samples],
        max_new_tokens=settings.max_new_tokens,
        temperature=settings.temperature,
        seed=settings.seed,
        batch_size=settings.batch_size,
        on_batch=on_batch,
    )
    thoughts = [parse(completion) for completion in completions]
    reflections = reflect(candidate.judge, list(zip(samples, thoughts, strict=True)), frozenset(Aspect))
    return [
        Prediction(sample, completion, thought, read_answer(thought, sample), reflection)
        for sample, completion, thought, reflection in zip(samples, completions, thoughts, reflections, strict=True)
    ]


def read_answer(thought: EmotionalThought, sample: Sample) -> str | None:
    """The label of the sample's set that the answer names; None is the outcome "unparsed"."""
    return None if thought.answer is None else match(thought.answer, sample.labels)


def summarise(data: str, predictions: Sequence[Prediction]) -> Evaluation:
    """Figures of N predictions on one label set, beside those of the majority class. Raises UserError for none."""
    return Evaluation(
        data,
        predictions,
        figures=_classification(predictions) | _reasoning(predictions),
        majority=_classification(majority_class(predictions)),
        confusion=metrics.classify(predictions).confusion,
    )


def majority_class(predictions: Sequence[Prediction]) -> list[Prediction]:
    """What always answering the most frequent label of these N samples would give."""
    label = Counter(prediction.sample.label for prediction in predictions).most_common(1)[0][0]
    thought = EmotionalThought(None, None, None, label, None)
    return [Prediction(prediction.sample, "", thought, label) for prediction in predictions]


def _classification(predictions: Sequence[Prediction]) -> dict[str, Estimate]:
    result = metrics.classify(predictions)
    names = ("accuracy", "lenient_accuracy", "macro_f1", "balanced_accuracy", "polarity_accuracy", "unparsed")
    figures = {name: getattr(result, name) for name in names}
    return {name: estimate for name, estimate in figures.items() if estimate is not None}


def _reasoning(predictions: Sequence[Prediction]) -> dict[str, Estimate]:
    judged = {aspect.value: metrics.support_rate(predictions, aspect) for aspect in Aspect}
    return {"format": metrics.format_rate(predictions)} | {k: rate for k, rate in judged.items() if rate is not None}


def prediction_row(data: str, prediction: Prediction) -> dict[str, Any]:
    """One line of `predictions.jsonl`."""
    sample = prediction.sample
    row = {"data": data, "id": sample.id, "image": sample.image, "label": sample.label}
    return row | {"predicted": prediction.predicted, **reasoning_row(prediction)}


def reasoning_row(prediction: Prediction) -> dict[str, Any]:
    """A completion, its parts, and what the judge made of them, as JSON."""
    findings = {aspect.value: finding_row(getattr(prediction.reflection, aspect.value)) for aspect in Aspect}
    return {"completion": prediction.completion, **asdict(prediction.thought), **findings}


def results(candidate: Candidate, settings: EvaluationSettings, evaluations: Iterable[Evaluation]) -> dict[str, Any]:
    """Content of `results.json`."""
    return {
        "model": candidate.path,
        "judge": candidate.judge_path,
        "settings": asdict(settings),
        "environment": environment_stamp(),
        "data": [_evaluation_row(evaluation) for evaluation in evaluations],
    }


def _evaluation_row(evaluation: Evaluation) -> dict[str, Any]:
    samples = [prediction.sample for prediction in evaluation.predictions]
    labels = samples[0].labels
    return {
        "data": evaluation.data,
        "n": len(samples),
        "sample_ids_sha256": hashlib.sha256("\n".join(sample.id for sample in samples).encode()).hexdigest(),
        "label_set": {"name": labels.name, "labels": labels.labels},
        "figures": {name: asdict(estimate) for name, estimate in evaluation.figures.items()},
        "majority_class": {name: asdict(estimate) for name, estimate in evaluation.majority.items()},
        "confusion": evaluation.confusion,
    }


def fresh_folder(output: Path | None, kind: str) -> Path:
    """A folder to write to, absent or empty: the one asked for, or the next `runs/KIND-<n>`.

    Raises UserError where the one asked for already holds files.
    """
    if output is None:
        return next(path for n in count(1) if not (path := Path("runs") / f"{kind}-{n}").exists())
    if output.is_file() or (output.is_dir() and any(output.iterdir())):
        raise UserError(f"{output} already holds something: choose another --output")
    return output


def write_evaluation(output: Path, content: Mapping[str, Any], evaluations: Iterable[Evaluation]) -> None:
    """Write `predictions.jsonl`, then `results.json`, so that results never stand without their predictions."""
    output.mkdir(parents=True, exist_ok=True)
    for evaluation in evaluations:
        rows = (prediction_row(evaluation.data, prediction) for prediction in evaluation.predictions)
        append_jsonl(output / PREDICTIONS, rows)
    write_json(output / RESULTS, content)


FIGURES = {
    "accuracy": "accuracy",
    "lenient_accuracy": "lenient accuracy",
    "macro_f1": "macro-F1",
    "balanced_accuracy": "balanced accuracy",
    "polarity_accuracy": "polarity accuracy",
    "unparsed": "unparsed",
    "format": "format",
    "consistency": "consistency",
    "coherence": "coherence",
}
"""Figures in the order of every table, as a person reads them."""


def results_table(model: str, evaluations: Iterable[Evaluation]) -> Table:
    """Figures in percent with 95% intervals, beside those of the majority class."""
    table = Table("%", model, "majority class", box=box.SIMPLE)
    for evaluation in evaluations:
        table.add_row(f"{evaluation.data}, n = {len(evaluation.predictions)}")
        for name in (name for name in FIGURES if name in evaluation.figures):
            majority = percent(evaluation.majority.get(name))
            table.add_row(f"  {FIGURES[name]}", percent(evaluation.figures[name]), majority)
        table.add_section()
    return table


def percent(estimate: Estimate | None) -> str:
    """An estimate in percent with its interval: "61.3 [57.0, 65.5]"."""
    if estimate is None:
        return ""
    return f"{100 * estimate.value:.1f} [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"
