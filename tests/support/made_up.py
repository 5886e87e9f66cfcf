"""Made-up runs and evaluations in the saved format, so that everything after a model can be tested without one."""

from pathlib import Path
from typing import Any

from emor3.evaluation.summary import results, summarise
from emor3.method.labels import EKMAN6, LabelSet
from emor3.method.reflection import ScriptedJudge, reflect
from emor3.method.rewards import predicted_label
from emor3.method.thinking import parse
from emor3.method.types import Aspect, Prediction, Question, Reply, Sample
from emor3.runs.directory import begin_run, check_run
from emor3.runs.predictions import EVALUATION, RESULTS, VERSION, data_head, write_predictions
from emor3.runs.recipe import Recipe
from emor3.storage.outputs import write_json


def prepare_run(recipe: Recipe, *, resume: bool, overwrite: bool, data: Any = None) -> Path:
    """The run directory, ready to be written to."""
    check_run(recipe, resume=resume, overwrite=overwrite, data=data)
    return begin_run(recipe, resume=resume, data=data)


def prediction(
    label: str,
    answer: str | None,
    *,
    id: str = "s",
    group: str | None = None,
    judge: str = "Yes",
    reads: Any = None,
    votes: Any = None,
    sampled: Any = None,
    labels: LabelSet = EKMAN6,
) -> Prediction:
    """A whole completion that answers `answer` (None: no box), with what a judge said of it."""
    box = "" if answer is None else f"\\boxed{{{answer}}}"
    text = f"<step1>A dog.</step1><step2>Joy.</step2><step3>Positive, high arousal.</step3>{box}"
    sample, thought = Sample(id, (f"{id}.png",), label, labels, distribution=votes, group=group), parse(text)
    scripted = ScriptedJudge(lambda question: judge if question.aspect is Aspect.CONSISTENCY else reads or label)
    reflection = reflect(scripted, [(sample, thought)], frozenset(Aspect))[0]
    return Prediction(
        sample, text, thought, predicted_label(thought, labels), reflection, reflection.consistency, sampled
    )


class SeesDogs:
    """Believes descriptions with a dog by `sure`, others by 0.1; reads the same probabilities from all reasoning."""

    def __init__(self, sure: Any, **reads: Any) -> None:
        self.sure = sure
        self.reads = reads

    def answer(self, questions: list[Question]) -> list[Any]:
        return [self.reply(question) for question in questions]

    def reply(self, question: Question) -> Reply:
        if question.aspect is Aspect.COHERENCE:
            return Reply(max(self.reads, key=self.reads.get), dict.fromkeys(question.candidates, 0.0) | self.reads)
        yes = self.sure if "dog" in question.text else 0.1
        return Reply("Yes" if yes > 0.5 else "No", {"Yes": yes, "No": 1 - yes})


def save_evaluation(
    folder: Path,
    by_data: dict[str, list[Prediction]],
    *,
    model: str = "model",
    judge: str = "judge",
    thinking: str = "steps",
    version: Any = VERSION,
    temperature: float = 0.0,
    **head: Any,
) -> Path:
    """Write predictions by data set as `emor3 evaluate` does; returns the folder."""
    folder.mkdir(parents=True)
    head |= {
        "version": version,
        "model": model,
        "judge": judge,
        "checkpoints": {},
        "settings": {"thinking": thinking, "split": "test", "temperature": temperature},
        "environment": {},
        "data": [data_head(data, [p.sample for p in predictions]) for data, predictions in by_data.items()],
    }
    write_json(folder / EVALUATION, head)
    for data, predictions in by_data.items():
        write_predictions(folder, data, predictions)
    evaluations = [summarise(data, predictions, thinking) for data, predictions in by_data.items()]
    write_json(folder / RESULTS, results(head, evaluations))
    return folder
