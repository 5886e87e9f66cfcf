"""Evaluate a checkpoint on labelled images with the prompt, parser and reflection of training and a fixed judge."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeAlias

from rich.progress import Progress

from emor3.data.folders import fixed_subset, load_samples, resolve_folder
from emor3.data.importers.benchmarks.published import origin
from emor3.data.prompt_lengths import check_lengths, warn_of_many_labels
from emor3.errors import UserError, one_line, printable
from emor3.evaluation.candidate import Candidate as Candidate
from emor3.evaluation.candidate import load_candidate as load_candidate
from emor3.evaluation.journal import BatchedJudge, check_same, is_whole, journal_in
from emor3.evaluation.settings import EvaluationSettings
from emor3.evaluation.summary import IMPORTED, Evaluation, results, summarise
from emor3.method.reflection import reflect
from emor3.method.rewards import predicted_label
from emor3.method.thinking import Thinking, parse, sample_prompt
from emor3.method.types import Aspect, EmotionalThought, Finding, Judge, Prediction, Sample
from emor3.models.engines.batches import Decoding, OnBatch, Once, always, in_batches
from emor3.models.generation import said_by
from emor3.printing import say
from emor3.progress import Bar, told
from emor3.runs.predictions import (
    EVALUATION,
    PREDICTIONS,
    RESULTS,
    VERSION,
    data_head,
    read_evaluation,
    write_predictions,
)
from emor3.runs.records import content_row, environment_stamp, read_json
from emor3.storage.files import file_digest
from emor3.storage.images import image_fault
from emor3.storage.outputs import write_json

BLANK = str(files("emor3") / "evaluation" / "blank.png")
"""The picture of the control without images: 224 x 224 pixels of one grey."""
CONTENT = "content_sha256"
"""Key of the checksum of a data set's rows and images."""


def evaluate(
    candidate: Candidate, data: Sequence[str], settings: EvaluationSettings, output: Path, *, resume: bool = False
) -> list[Evaluation]:
    """Evaluate a candidate on several data sets into an empty folder, with a progress bar on standard error.

    All are read before the first completion is made; the predictions on one are written before the next begins.
    Samples whose images cannot be read are named on standard error and in `evaluation.json`; all figures are without
    them. `resume` goes on after the last whole batch of an evaluation that was stopped in the folder, and ends with its
    files. Raises UserError for data that cannot be used, OtherEvaluationError if the folder holds another evaluation.
    """
    samples, unreadable = {}, {}
    for path in data:
        samples[path], unreadable[path] = readable(path, choose_samples(path, settings))
        check_prompts(candidate, samples[path], settings)  # refuses a bad template before anything is written
        warn_of_many_labels(candidate.processor, samples[path][0].labels.labels)
    output.mkdir(parents=True, exist_ok=True)
    head = evaluation_head(candidate, settings, samples, unreadable)
    if resume and (output / EVALUATION).is_file():
        recorded = read_json(output / EVALUATION)
        check_same(output, recorded, head)
        head = recorded  # with the environment in which it began
        if is_whole(output):
            say(f"{output} is finished, nothing is left to do")
            return [
                summarise(name, made, settings.thinking) for name, made in read_evaluation(output).predictions.items()
            ]
        (output / PREDICTIONS).unlink(missing_ok=True)  # written anew from what was made
    write_json(output / EVALUATION, head)
    evaluations = []
    with journal_in(output) as once:
        with Bar("answers", *Progress.get_default_columns()[1:], error=True, transient=True) as progress:
            for path, chosen in samples.items():
                total = len(chosen) * (1 + settings.samples)
                advance = partial(progress.advance, progress.add_task(printable(path), total=total))
                predictions = predict_samples(candidate, chosen, settings, advance, once)
                write_predictions(output, path, predictions)
                evaluations.append(summarise(path, predictions, settings.thinking))
        write_json(output / RESULTS, results(head, evaluations))
    return evaluations


def check_prompts(candidate: Candidate, samples: Sequence[Sample], settings: EvaluationSettings) -> None:
    """Raise UserError if a prompt and its completion do not fit into the candidate's context, or the engine's."""
    turns = ((sample, sample_prompt(sample, settings.template), settings.max_new_tokens) for sample in samples)
    whose = "the model's context" if settings.engine == "transformers" else "vLLM's room"
    check_lengths(candidate.engine.context, candidate.processor, turns, whose)


def readable(data: str, samples: Sequence[Sample]) -> tuple[list[Sample], dict[str, str]]:
    """The samples whose images can all be read, and the fault of each other one by id, also printed to standard error.

    Each image is opened once. Raises UserError if no sample is left.
    """
    opened: dict[str, str | None] = {}
    paths = dict.fromkeys(path for sample in samples for path in sample.images)
    for path in told(paths, data, "images checked"):
        opened[path] = image_fault(path)
    faults = {
        sample.id: fault for sample in samples if (fault := next(filter(None, map(opened.get, sample.images)), None))
    }
    for name, fault in faults.items():
        say(f"left out: {one_line(f'{data}, {name}: {fault}')}", error=True)
    if len(faults) == len(samples):
        raise UserError(f"{data}: none of the {len(samples)} samples has images that can be read")
    return [sample for sample in samples if sample.id not in faults], faults


def evaluation_head(
    candidate: Candidate,
    settings: EvaluationSettings,
    samples: Mapping[str, Sequence[Sample]],
    unreadable: Mapping[str, Mapping[str, str]],
) -> dict[str, Any]:
    """Content of `evaluation.json`; `unreadable` holds what is left out of each data set, by id, and why."""
    return {
        "version": VERSION,
        "model": candidate.path,
        "start": candidate.recipe.model.path if candidate.recipe else None,
        "judge": candidate.judge_path,
        "checkpoints": candidate.sums,
        "settings": settings.model_dump(),
        "environment": environment_stamp(),
        "data": [
            data_head(path, chosen, unreadable[path]) | {CONTENT: content_sum(chosen)} | _imported(path)
            for path, chosen in samples.items()
        ],
    }


def _imported(path: str) -> dict[str, Any]:
    """Set, label policy and checksum of a folder that `emor3 data import` made: others may have published on it."""
    known = origin(resolve_folder(path))
    return {} if known is None else {IMPORTED: known}


def content_sum(samples: Sequence[Sample]) -> str:
    """SHA-256 of what samples show and are labelled: rows and image files."""
    whole = hashlib.sha256()
    for sample in samples:
        row = [sample.id, sample.label, sample.group, sample.distribution, content_row(sample)]
        whole.update(json.dumps(row).encode())
        for path in sample.images:
            whole.update(file_digest(path))
    return whole.hexdigest()


def choose_samples(data: str, settings: EvaluationSettings) -> list[Sample]:
    """Samples of a data set that the settings ask for, in the manifest's order. Raises UserError as load_samples."""
    samples = load_samples(data, split=settings.split, labels=settings.labels, label_field=settings.label_field)
    return fixed_subset(samples, settings.limit)


Samples: TypeAlias = Sequence[Sample]


def predict_samples(
    candidate: Candidate,
    samples: Samples,
    settings: EvaluationSettings,
    on_batch: OnBatch = None,
    once: Once = always,
) -> list[Prediction]:
    """One judged completion for each of N samples, in order, with `settings.samples` more answers each."""
    judge = BatchedJudge(candidate.judge, candidate.processor, once)
    completions = complete(candidate, samples, settings, on_batch, once)
    predictions = judged(judge, samples, completions, settings.thinking)
    draws = sample_completions(candidate, samples, settings, on_batch, once)
    return [
        replace(prediction, sampled=answers_in(prediction.sample, texts, settings.thinking) if texts else None)
        for prediction, texts in zip(predictions, draws, strict=True)
    ]


def judged(judge: Judge, samples: Samples, completions: Sequence[str], thinking: Thinking) -> list[Prediction]:
    """The predictions that N completions are, one for each of N samples, with what the judge says of them."""
    thoughts = [parse(completion, thinking) for completion in completions]
    reflections = reflect(judge, list(zip(samples, thoughts, strict=True)), frozenset(Aspect))
    swapped = reflect_on_swapped(judge, samples, thoughts)
    return [
        Prediction(sample, completion, thought, predicted_label(thought, sample.labels), reflection, other)
        for sample, completion, thought, reflection, other in zip(
            samples, completions, thoughts, reflections, swapped, strict=True
        )
    ]


def answers_in(sample: Sample, completions: Sequence[str], thinking: Thinking) -> tuple[str | None, ...]:
    """The label that each of M completions on one sample names, None if it names none of the set."""
    return tuple(predicted_label(parse(completion, thinking), sample.labels) for completion in completions)


def complete(
    candidate: Candidate,
    samples: Samples,
    settings: EvaluationSettings,
    on_batch: OnBatch = None,
    once: Once = always,
) -> list[str]:
    """One completion for each of N samples, in order."""
    decoding = Decoding(settings.max_new_tokens, settings.temperature, settings.seed)
    return [text for (text,) in _completions(candidate, samples, settings, decoding, on_batch, once)]


def sample_completions(
    candidate: Candidate,
    samples: Samples,
    settings: EvaluationSettings,
    on_batch: OnBatch = None,
    once: Once = always,
) -> list[list[str]]:
    """For each of N samples `settings.samples` completions at temperature 1; none if none are asked for."""
    if not settings.samples:
        return [[] for _ in samples]
    decoding = Decoding(settings.max_new_tokens, 1.0, settings.seed + 1, settings.samples)
    return _completions(candidate, samples, settings, decoding, on_batch, once)


def _completions(
    candidate: Candidate,
    samples: Samples,
    settings: EvaluationSettings,
    decoding: Decoding,
    on_batch: OnBatch,
    once: Once,
) -> list[list[str]]:
    """M completions for each of N samples, in order; each batch is made once."""
    shown = [(BLANK,) * len(sample.images) if settings.blank else sample.images for sample in samples]
    requests = [(s, sample_prompt(sample, settings.template)) for s, sample in zip(shown, samples, strict=True)]

    def make(number: int, places: Sequence[int]) -> list[list[str]]:
        asked, own = [requests[place] for place in places], decoding.of_batch(number)
        texts = once([asked, asdict(own)], lambda: candidate.engine.complete(asked, own))
        if on_batch is not None:
            on_batch(len(places) * decoding.draws)
        return texts

    made = in_batches(candidate.engine.batches(requests, decoding, settings.batch_size), make)
    said = said_by(candidate.engine.processor, settings.thinking)
    return [list(map(said, texts)) for texts in made]


def reflect_on_swapped(
    judge: Judge, samples: Sequence[Sample], thoughts: Sequence[EmotionalThought]
) -> list[Finding | None]:
    """The control of consistency: each sample with step 1 of the next one that says something else, None without."""
    swapped = []
    for place, own in enumerate(thoughts):
        others = (thoughts[(place + step) % len(thoughts)] for step in range(1, len(thoughts)))
        other = next((o for o in others if o.trigger is not None and o.trigger != own.trigger), None)
        swapped.append(other or EmotionalThought(None, None, None, None, None))
    findings = reflect(judge, list(zip(samples, swapped, strict=True)), frozenset({Aspect.CONSISTENCY}))
    return [
        None if thought.trigger is None else found.consistency for thought, found in zip(swapped, findings, strict=True)
    ]
