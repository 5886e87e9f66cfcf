"""Evaluate a checkpoint on labelled images with the prompt, parser and reflection of training and a fixed judge."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from pydantic import ValidationError
from rich.progress import Progress
from transformers import PreTrainedModel, ProcessorMixin

from emor3.data.folders import fixed_subset, load_samples
from emor3.data.prompt_lengths import check_context, warn_of_many_labels
from emor3.errors import UserError, one_line, printable
from emor3.evaluation.adapters import holds_adapters, load_merged
from emor3.evaluation.settings import EvaluationSettings
from emor3.evaluation.summary import Evaluation, results, summarise
from emor3.judges.local import ScoreJudge
from emor3.method.decoding import weigh
from emor3.method.reflection import reflect
from emor3.method.rewards import predicted_label
from emor3.method.thinking import Thinking, parse, sample_prompt
from emor3.method.types import Aspect, EmotionalThought, Finding, Judge, Prediction, Sample
from emor3.models.checkpoints import load
from emor3.models.generation import complete_samples
from emor3.printing import say
from emor3.progress import Bar, told
from emor3.runs.directory import FINAL, read_recipe, run_of
from emor3.runs.predictions import EVALUATION, RESULTS, VERSION, data_head, write_predictions
from emor3.runs.recipe import Recipe
from emor3.runs.records import environment_stamp
from emor3.scoring.own import OwnJudge
from emor3.settings import describe_fault
from emor3.storage.images import image_fault
from emor3.storage.outputs import write_json


@dataclass(frozen=True)
class Candidate:
    """A checkpoint under evaluation with the fixed judge of its reasoning, both loaded."""

    path: str
    model: PreTrainedModel
    processor: ProcessorMixin
    judge_path: str
    """Its checkpoint, or the class of a judge of one's own, as records name it."""
    judge: Judge
    recipe: Recipe | None
    """Recipe of the run that the checkpoint lies in."""

    @property
    def thinking(self) -> Thinking:
        """The way of thinking it was trained in."""
        return "steps" if self.recipe is None else self.recipe.thinking

    @property
    def template(self) -> str:
        """The prompt template it was trained with."""
        return "steps" if self.recipe is None else self.recipe.prompt_template

    def settings(self, **given: Any) -> EvaluationSettings:
        """Settings of an evaluation or a prediction by name, with its prompt and its way of thinking.

        Raises UserError for settings that cannot be used.
        """
        prompt = {"template": given.pop("template", None) or self.template, "thinking": self.thinking}
        try:
            return EvaluationSettings.model_validate(prompt | given)
        except ValidationError as error:
            raise UserError(f"settings of the evaluation: {describe_fault(error, EvaluationSettings)}") from None


def load_candidate(path: str | Path, judge: str | Judge | None = None) -> Candidate:
    """Load a policy with the judge of its reasoning: a checkpoint (adapters with their base), or a run's final one.

    The judge is a checkpoint, or one of your own (`emor3.scoring.own`), and stays the same before and after training:
    by default the model the run started from, and for a checkpoint outside a run the checkpoint itself.
    Raises UserError if either cannot be loaded.
    """
    path = str(path)
    run = run_of(Path(path))
    recipe = None if run is None else read_recipe(run)
    source = str(run / FINAL) if run is not None and run.samefile(path) else path
    model, processor = load_any(source)
    if judge is not None and not isinstance(judge, str):
        own = OwnJudge(judge)
        return Candidate(source, model, processor, own.name, own, recipe)
    judge_path = judge or (recipe.model.path if recipe else source)
    asked = (model, processor) if judge_path == source else load_any(judge_path)
    return Candidate(source, model, processor, judge_path, ScoreJudge(*asked), recipe)


def load_any(path: str) -> tuple[PreTrainedModel, ProcessorMixin]:
    """Model and processor of a checkpoint, its adapters merged if it holds only these."""
    if not holds_adapters(Path(path)):
        return load(path)
    run = run_of(Path(path))
    return load_merged(Path(path), run, None if run is None else read_recipe(run))


def evaluate(candidate: Candidate, data: Sequence[str], settings: EvaluationSettings, output: Path) -> list[Evaluation]:
    """Evaluate a candidate on several data sets into an empty folder, with a progress bar on standard error.

    All are read before the first completion is made; the predictions on one are written before the next begins.
    Samples whose images cannot be read are named on standard error and in `evaluation.json`; all figures are without
    them. Raises UserError for data that cannot be used.
    """
    samples, unreadable = {}, {}
    for path in data:
        samples[path], unreadable[path] = readable(path, choose_samples(path, settings))
        check_prompts(candidate, samples[path], settings)  # refuses a bad template before anything is written
        warn_of_many_labels(candidate.processor, samples[path][0].labels.labels)
    output.mkdir(parents=True, exist_ok=True)
    head = evaluation_head(candidate, settings, samples, unreadable)
    write_json(output / EVALUATION, head)
    evaluations = []
    with Bar("answers", *Progress.get_default_columns()[1:], error=True, transient=True) as progress:
        for path, chosen in samples.items():
            total = len(chosen) * (1 + settings.samples)
            advance = partial(progress.advance, progress.add_task(printable(path), total=total))
            predictions = predict_samples(candidate, chosen, settings, advance)
            write_predictions(output, path, predictions)
            evaluations.append(summarise(path, predictions, settings.thinking))
    write_json(output / RESULTS, results(head, evaluations))
    return evaluations


def check_prompts(candidate: Candidate, samples: Sequence[Sample], settings: EvaluationSettings) -> None:
    """Raise UserError if a prompt and its completion do not fit into the candidate's context."""
    turns = ((sample, sample_prompt(sample, settings.template), settings.max_new_tokens) for sample in samples)
    check_context(candidate.model, candidate.processor, turns)


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
        "settings": settings.model_dump(),
        "environment": environment_stamp(),
        "data": [data_head(path, chosen, unreadable[path]) for path, chosen in samples.items()],
    }


def choose_samples(data: str, settings: EvaluationSettings) -> list[Sample]:
    """Samples of a data set that the settings ask for, in the manifest's order. Raises UserError as load_samples."""
    samples = load_samples(data, split=settings.split, labels=settings.labels, label_field=settings.label_field)
    return fixed_subset(samples, settings.limit)


Samples: TypeAlias = Sequence[Sample]
OnBatch: TypeAlias = Callable[[int], None] | None
"""Gets the number of completions just made."""


def predict_samples(
    candidate: Candidate, samples: Samples, settings: EvaluationSettings, on_batch: OnBatch = None
) -> list[Prediction]:
    """One judged completion for each of N samples, in order, with `settings.samples` more answers each."""
    completions = complete(candidate, samples, settings, on_batch)
    thoughts = [parse(completion, settings.thinking) for completion in completions]
    reflections = reflect(candidate.judge, list(zip(samples, thoughts, strict=True)), frozenset(Aspect))
    swapped = reflect_on_swapped(candidate.judge, samples, thoughts)
    sampled = sample_answers(candidate, samples, settings, on_batch)
    return [
        Prediction(sample, completion, thought, predicted_label(thought, sample.labels), reflection, other, *drawn)
        for sample, completion, thought, reflection, other, drawn in zip(
            samples, completions, thoughts, reflections, swapped, sampled, strict=True
        )
    ]


def complete(
    candidate: Candidate, samples: Samples, settings: EvaluationSettings, on_batch: OnBatch = None
) -> list[str]:
    """One completion for each of N samples, in order."""
    return complete_samples(
        candidate.model,
        candidate.processor,
        samples,
        settings.template,
        max_new_tokens=settings.max_new_tokens,
        temperature=settings.temperature,
        seed=settings.seed,
        batch_size=settings.batch_size,
        on_batch=on_batch,
    )


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


Drawn = tuple[tuple[str | None, ...] | None, tuple[float, ...] | None]
"""Labels of M sampled completions, and what reflective decoding weighs each; None if not asked for."""


def sample_answers(
    candidate: Candidate, samples: Samples, settings: EvaluationSettings, on_batch: OnBatch
) -> list[Drawn]:
    """For each of N samples the labels of M completions sampled at temperature 1, and their weights."""
    draws = sample_completions(candidate, samples, settings, on_batch)
    drawn = [[parse(completion, settings.thinking) for completion in completions] for completions in draws]
    answers = [[predicted_label(t, s.labels) for t, s in zip(thoughts, samples, strict=True)] for thoughts in drawn]
    per_sample = list(zip(*answers, strict=True)) if drawn else [None] * len(samples)
    if not drawn or not settings.reflective:
        return [(labels, None) for labels in per_sample]
    weights = [[weight for weight, _ in weigh(candidate.judge, samples, thoughts)] for thoughts in drawn]
    return list(zip(per_sample, zip(*weights, strict=True), strict=True))


def sample_completions(
    candidate: Candidate, samples: Samples, settings: EvaluationSettings, on_batch: OnBatch = None
) -> Iterator[list[str]]:
    """M times one completion for each of N samples, at temperature 1."""
    for draw in range(settings.samples):
        hot = settings.model_copy(update={"temperature": 1.0, "seed": settings.seed + 1 + draw})
        yield complete(candidate, samples, hot, on_batch)
