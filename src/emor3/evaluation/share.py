"""Hand results to others: the TSV files that VLMEvalKit reads, and a block for a model card.

`data.tsv` holds the benchmark (index, image in base64, question, one column per option, answer), `predictions.tsv` the
same rows without images and with the model's answer, `model_card.md` the figures with their intervals. A row of a TSV
file has one image; its text, if it has one, becomes the hint. Texts are cells as `emor3.storage.cells` makes them.
"""

import base64
from collections.abc import Sequence
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from emor3.errors import UserError, one_line
from emor3.evaluation.summary import reasoning_figures
from emor3.method.types import Estimate, Prediction
from emor3.runs.predictions import SavedEvaluation
from emor3.stats.classification import classify
from emor3.stats.figures import FIGURES
from emor3.stats.format import markdown_table, percent
from emor3.storage.cells import table_text
from emor3.storage.files import regular
from emor3.storage.outputs import write_whole

QUESTION = "Which emotion would this image evoke in a human viewer?"


def write_shared(evaluation: SavedEvaluation, output: Path) -> list[Path]:
    """Write all files for an evaluation; returns their paths. Raises UserError if a set has over 26 labels."""
    written = []
    for place, (data, predictions) in enumerate(evaluation.predictions.items()):
        suffix = "" if len(evaluation.predictions) == 1 else f"_{place + 1}"
        predictions = [prediction for prediction in predictions if len(prediction.sample.images) == 1]
        if not predictions:
            continue
        rows = [benchmark_row(index, data, prediction) for index, prediction in enumerate(predictions)]
        answered = [{**row, "prediction": _letter(p, p.predicted)} for row, p in zip(rows, predictions, strict=True)]
        pictured = [{**row, "image": _base64(p.sample.image)} for row, p in zip(rows, predictions, strict=True)]
        for name, table in ((f"data{suffix}.tsv", pictured), (f"predictions{suffix}.tsv", answered)):
            write_whole(output / name, table_text(table, "\t"))
            written.append(output / name)
    card = output / "model_card.md"
    write_whole(card, model_card_block(evaluation))
    return [*written, card]


def left_out(evaluation: SavedEvaluation) -> list[str]:
    """A line for each data set with rows that have no place in a TSV file, whose questions have one image each."""
    lines = []
    for data, predictions in evaluation.predictions.items():
        others = [prediction.sample.id for prediction in predictions if len(prediction.sample.images) != 1]
        if others:
            lines.append(f"{data}: {len(others)} rows with several images or none are left out of the TSV files")
    return lines


def benchmark_row(index: int, data: str, prediction: Prediction) -> dict[str, Any]:
    """One multiple-choice question of the benchmark."""
    sample = prediction.sample
    if len(sample.labels.labels) > len(ascii_uppercase):
        raise UserError(f"{data}: a multiple-choice file has options A to Z, {sample.labels.name} has more labels")
    options = dict(zip(ascii_uppercase, sample.labels.labels, strict=False))
    row = {"index": index, "question": QUESTION, **options, "answer": _letter(prediction, sample.label), "split": data}
    return row if sample.text is None else {**row, "hint": sample.text}


def _letter(prediction: Prediction, label: str | None) -> str:
    return "" if label is None else ascii_uppercase[prediction.sample.labels.labels.index(label)]


def _base64(image: str) -> str:
    try:
        with open(image, "rb", opener=regular) as file:
            return base64.b64encode(file.read()).decode("ascii")
    except OSError as error:
        raise UserError(
            f"image {image} cannot be read ({error.strerror}): the data must be where it was evaluated"
        ) from None


def model_card_block(evaluation: SavedEvaluation) -> str:
    """The figures as a model card states them: metadata that hubs read, then a table with intervals and n."""
    stated = card_figures(evaluation)
    results = card_results(evaluation, stated)
    metadata = ModelCardData(model_name=Path(evaluation.model).name, eval_results=results).to_yaml()
    return f"---\n{metadata}\n---\n\n{card_table(evaluation, stated)}"


CardFigures = Sequence[tuple[str, str, Estimate]]
"""Data set, figure and estimate of each figure that a model card states."""


def card_figures(evaluation: SavedEvaluation) -> CardFigures:
    """The figures of an evaluation that a model card states, computed from its predictions."""
    stated = []
    for data, predictions in evaluation.predictions.items():
        found = classify(predictions).figures | reasoning_figures(predictions, evaluation.thinking)
        stated += [(data, name, found[name]) for name, row in FIGURES.items() if row.on_card and name in found]
    return stated


def card_results(evaluation: SavedEvaluation, stated: CardFigures) -> list[EvalResult]:
    """The figures as metadata that hubs read."""
    return [
        EvalResult(
            task_type="image-text-to-text",
            dataset_type=data,
            dataset_name=data,
            dataset_split=str(evaluation.head["settings"]["split"]),
            metric_type=name,
            metric_name=FIGURES[name].title,
            metric_value=round(100 * estimate.value, 2),
        )
        for data, name, estimate in stated
    ]


def card_table(evaluation: SavedEvaluation, stated: CardFigures) -> str:
    """The figures as a Markdown table with intervals and n, and who judged."""
    rows = []
    for data, name, estimate in stated:
        cells = (data, FIGURES[name].title, percent(estimate), str(estimate.n), evaluation.checksum(data)[:12])
        rows.append([one_line(cell).replace("|", "/") for cell in cells])
    table = markdown_table(("data", "figure", "% [95% interval]", "n", "samples (sha256)"), rows)
    judge = f"Judge of consistency, coherence and agreement: `{evaluation.head['judge']}`, fixed."
    return f"{table}\n{judge}\n"
