"""What a harness answered, as predictions and as the files of an evaluation: all figures then are `emor3.stats`' own.

Every row that goes out carries a mark, and every answer that comes back has it: the sample's id, its label and a digest
of its prompt, so that answers to other data, labels or words are refused.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from emor3.data.folders import in_split, load_samples
from emor3.errors import UserError
from emor3.evaluation.evaluate import CONTENT, content_sum
from emor3.evaluation.settings import EvaluationSettings
from emor3.method.rewards import predicted_label
from emor3.method.thinking import Thinking, parse, sample_prompt, thinking_of
from emor3.method.types import Prediction, Sample
from emor3.printing import say
from emor3.runs.predictions import EVALUATION, PREDICTIONS, VERSION, data_head, prediction_row
from emor3.runs.records import append_jsonl, environment_stamp
from emor3.storage.outputs import write_json


@dataclass(frozen=True)
class Answer:
    """All that a harness recorded of one sample."""

    mark: Mapping[str, str]
    """As `mark` makes it."""
    texts: tuple[str, ...]
    """Completions: the judged one, or M sampled ones."""
    findings: Mapping[str, Any] = field(default_factory=dict)
    """Aspect -> finding as `finding_row` writes it, if a judge was asked."""


@dataclass(frozen=True)
class HarnessRun:
    """The answers of one model to one task, read from what a harness wrote."""

    harness: str
    path: Path
    model: str
    answers: Sequence[Answer]
    judge: str | None = None


def import_settings(split: str, labels: str | None, label_field: str, template: str | None) -> EvaluationSettings:
    """What was asked, as `emor3 evaluate` takes it: `split` "all" for all rows."""
    template = template or "steps"
    return EvaluationSettings(
        split=None if split == "all" else split,
        labels=labels,
        label_field=label_field,
        template=template,
        thinking=thinking_of(template),
    )


def mark(sample: Sample, template: str) -> dict[str, str]:
    """What an answer is known by: id, label, and the first 16 digits of the SHA-256 of its prompt."""
    digest = sha256(sample_prompt(sample, template).encode(errors="surrogatepass")).hexdigest()
    return {"id": sample.id, "label": sample.label, "prompt": digest[:16]}


def predict(sample: Sample, texts: Sequence[str], thinking: Thinking) -> Prediction:
    """The prediction of M completions: the first is the judged one, and if there are more, all are sampled answers."""
    thoughts = [parse(text, thinking) for text in texts]
    labels = tuple(predicted_label(thought, sample.labels) for thought in thoughts)
    return Prediction(sample, texts[0], thoughts[0], labels[0], sampled=labels if len(texts) > 1 else None)


def write_evaluation(run: HarnessRun, data: str, settings: EvaluationSettings, folder: Path) -> None:
    """Write `evaluation.json` and `predictions.jsonl` of a run on a data folder; samples it left out are named.

    Raises UserError if the answers are to other samples, labels or prompts than those of the folder and the settings.
    """
    samples = list(load_samples(data, split=settings.split, labels=settings.labels, label_field=settings.label_field))
    answers = _by_id(run)
    _check(run, samples, answers, data, settings)
    missing = {sample.id: f"no answer in {run.path}" for sample in samples if sample.id not in answers}
    if missing:
        say(f"left out: {len(missing)} of {len(samples)} samples of {data} have no answer in {run.path}", error=True)
    answered = [sample for sample in samples if sample.id in answers]
    head = {
        "version": VERSION,
        "model": run.model,
        "start": None,
        "judge": run.judge or f"none ({run.harness})",
        "checkpoints": {},
        "settings": settings.model_dump(),
        "environment": environment_stamp(),
        "imported": {"harness": run.harness, "from": str(run.path)},
        "data": [data_head(data, answered, missing) | {CONTENT: content_sum(answered)}],
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / EVALUATION, head)
    append_jsonl(folder / PREDICTIONS, (_row(data, s, answers[s.id], settings.thinking) for s in answered))


def _row(data: str, sample: Sample, answer: Answer, thinking: Thinking) -> dict[str, Any]:
    return prediction_row(data, predict(sample, answer.texts, thinking)) | dict(answer.findings)


def _by_id(run: HarnessRun) -> dict[str, Answer]:
    found: dict[str, Answer] = {}
    for answer in run.answers:
        if found.setdefault(answer.mark["id"], answer) is not answer:
            raise UserError(f"{run.path}: two answers to sample {answer.mark['id']!r}: give the file of one run")
    if not found:
        raise UserError(f"{run.path}: no answers in it: give what {run.harness} wrote after a whole run")
    return found


def _check(
    run: HarnessRun,
    samples: Sequence[Sample],
    answers: Mapping[str, Answer],
    data: str,
    settings: EvaluationSettings,
) -> None:
    expected = {sample.id: mark(sample, settings.template) for sample in samples}
    where = f"{data}{in_split(settings.split)}"
    if stray := [name for name in answers if name not in expected]:
        raise UserError(
            f"{run.path}: {len(stray)} of {len(answers)} answers are to samples that {where} does not hold (the first "
            f"is {stray[0]!r}): give the folder and --split that were asked"
        )
    for name, answer in answers.items():
        for part, option in (("label", "--labels and --label-field"), ("prompt", "--template and --labels")):
            if answer.mark[part] != expected[name][part]:
                raise UserError(
                    f"{run.path}: sample {name!r} was asked with {part} {answer.mark[part]!r}, and {where} gives "
                    f"{expected[name][part]!r}: give the folder, {option} that were asked"
                )
