"""The task `emor3/emotion` and the scorers of inspect_ai, which finds them by the entry point in pyproject.toml.

    inspect eval emor3/emotion -T data=FOLDER --model vllm/MODEL
    inspect score LOG --scorer emor3/consistency --model-role grader=openai/MODEL

Only inspect_ai imports this module.
"""

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import anyio
from inspect_ai import Task, task
from inspect_ai.dataset import MemoryDataset
from inspect_ai.dataset import Sample as Row
from inspect_ai.model import ChatMessageUser, Content, ContentImage, ContentText, GenerateConfig, Model, get_model
from inspect_ai.scorer import (
    Metric,
    SampleScore,
    Score,
    Scorer,
    Target,
    mean,
    metric,
    scorer,
    stderr,
)
from inspect_ai.solver import TaskState, generate

from emor3.data.folders import load_samples
from emor3.hosts.harnesses.answers import mark, predict
from emor3.hosts.harnesses.lmms import MARK, SHARES
from emor3.hosts.versions import INSPECT, check_version
from emor3.method.labels import LabelSet
from emor3.method.reflection import reflect
from emor3.method.rewards import judge_failed, verdict_value
from emor3.method.thinking import sample_prompt, thinking_of
from emor3.method.types import Aspect, Finding, Prediction, Question, Reply, Sample
from emor3.runs.records import finding_row
from emor3.stats.classification import classify
from emor3.storage.images import data_uri, open_image

check_version(INSPECT)
SAMPLE, GRADER, CLUSTER = "emor3_sample", "grader", "group"
"""Key of a sample in a row's metadata, role of the model that judges, and what the standard errors are clustered by."""


@task
def emotion(
    data: str,
    split: str = "test",
    labels: str | list[str] | None = None,
    label_field: str = "label",
    template: str = "steps",
    max_tokens: int = 512,
    temperature: float = 0.0,
) -> Task:
    """Which emotion does the image evoke? Our prompt and parser on a data folder (`data=FOLDER` or `embedded:NAME`).

    `split=all` takes all rows; `labels` and `template` are those of `emor3 evaluate`. With `--epochs M` and
    `-T temperature=1` the M answers count as sampled ones when the log is read back.
    """
    chosen = None if split == "all" else split
    samples = load_samples(data, split=chosen, labels=labels, label_field=label_field)
    return Task(
        dataset=MemoryDataset([_row(sample, template) for sample in samples], name=f"emor3 {data} {split}"),
        solver=generate(),
        scorer=set_scorer(),
        config=GenerateConfig(temperature=temperature, max_tokens=max_tokens),
    )


def _row(sample: Sample, template: str) -> Row:
    content: list[Content] = [ContentImage(image=path) for path in sample.images]
    content.append(ContentText(text=sample_prompt(sample, template)))
    known = {MARK: mark(sample, template), SAMPLE: asdict(sample), "template": template}
    cluster = f"id {sample.id}" if sample.group is None else f"group {sample.group}"
    return Row(
        input=[ChatMessageUser(content=content)], target=sample.label, id=sample.id, metadata=known | {CLUSTER: cluster}
    )


def _sample(known: Any) -> Sample:
    """A sample from a row's metadata, of a run or of a log, where tuples are lists."""
    labels = LabelSet(**known["labels"] | {"labels": tuple(known["labels"]["labels"])})
    return Sample(**known | {"labels": labels, "images": tuple(known["images"])})


def _prediction(metadata: dict[str, Any], text: str) -> Prediction:
    return predict(_sample(metadata[SAMPLE]), [text], thinking_of(metadata["template"]))


@metric
def macro_f1() -> Metric:
    """Macro-F1 of the first epoch's answers; those without one are misses."""

    def of_all(scores: list[SampleScore]) -> float:
        known = [(score.sample_metadata or {}, score.score.metadata or {}) for score in scores]
        return classify([_prediction(row, score["completion"]) for row, score in known]).macro_f1.value

    return of_all


_EACH: dict[str, list[Metric]] = {name: [mean(), stderr(cluster=CLUSTER)] for name in SHARES}


@scorer(metrics=[_EACH, macro_f1()])
def set_scorer() -> Scorer:
    """Strict and lenient accuracy, unparsed answers and format of a completion, and macro-F1 of all."""

    async def score(state: TaskState, target: Target) -> Score:
        prediction = _prediction(state.metadata, state.output.completion)
        return Score(
            value={name: float(share(prediction)) for name, share in SHARES.items()},
            answer=prediction.predicted,
            explanation=prediction.thought.problem and f"format: {prediction.thought.problem}",
            metadata={"completion": prediction.completion},
        )

    return score


@scorer(metrics=[mean(), stderr(cluster=CLUSTER)])
def consistency() -> Scorer:
    """Whether the judge (model role `grader`) sees step 1 in the image; unscored if it fails."""
    return _judged(Aspect.CONSISTENCY)


@scorer(metrics=[mean(), stderr(cluster=CLUSTER)])
def coherence() -> Scorer:
    """Whether the judge (model role `grader`) reads the label from steps 1 and 2; unscored if it fails."""
    return _judged(Aspect.COHERENCE)


def _judged(aspect: Aspect) -> Scorer:
    async def score(state: TaskState, target: Target) -> Score:
        prediction = _prediction(state.metadata, state.output.completion)
        finding = await _finding(prediction, aspect)
        found = {"finding": finding_row(finding)}
        if judge_failed(finding):
            return Score.unscored(reason="grader_failed", explanation=finding.reason, metadata=found)
        said = finding.reply.text if finding.reply else finding.reason
        return Score(value=verdict_value(finding.verdict), answer=finding.verdict, explanation=said, metadata=found)

    return score


async def _finding(prediction: Prediction, aspect: Aspect) -> Finding:
    """One reflection in a thread, whose judge asks the model in the harness's own loop."""
    judge = _Grader(get_model(role=GRADER))
    asked = partial(reflect, judge, [(prediction.sample, prediction.thought)], frozenset({aspect}))
    (reflection,) = await anyio.to_thread.run_sync(asked)
    finding: Finding = getattr(reflection, aspect.value)
    return finding


class _Grader:
    """A judge that is a model of the harness."""

    def __init__(self, model: Model) -> None:
        self.model = model

    def answer(self, questions: Sequence[Question]) -> list[Reply]:
        """One reply for each question; what the model raises is an error of the judge."""
        return [anyio.from_thread.run(self._reply, question) for question in questions]

    async def _reply(self, question: Question) -> Reply:
        shown = [data_uri(open_image(path), "PNG") for path in question.images]  # outside a task it opens no paths
        content: list[Content] = [ContentImage(image=image) for image in shown]
        turn = ChatMessageUser(content=[*content, ContentText(text=question.text)])
        try:
            output = await self.model.generate([turn], config=GenerateConfig(temperature=0.0, max_tokens=256))
        except Exception as error:  # of any provider
            return Reply("", error=f"{type(error).__name__}: {error}")
        return Reply("", error=output.error) if output.error else Reply(output.completion)
