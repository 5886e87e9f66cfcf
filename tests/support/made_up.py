"""Made-up runs and evaluations in the saved format, so that everything after a model can be tested without one."""

from emor3.evaluation.summary import results, summarise
from emor3.method.labels import EKMAN6
from emor3.method.reflection import ScriptedJudge, reflect
from emor3.method.rewards import predicted_label
from emor3.method.thinking import parse
from emor3.method.types import Aspect, Prediction, Reply, Sample
from emor3.runs.directory import begin_run, check_run
from emor3.runs.predictions import EVALUATION, RESULTS, VERSION, data_head, write_predictions
from emor3.storage.outputs import write_json


def prepare_run(recipe, *, resume, overwrite, data=None):
    """The run directory, ready to be written to."""
    check_run(recipe, resume=resume, overwrite=overwrite, data=data)
    return begin_run(recipe, resume=resume, data=data)


def prediction(label, answer, *, id="s", group=None, judge="Yes", reads=None, votes=None, sampled=None, labels=EKMAN6):
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

    def __init__(self, sure, **reads):
        self.sure = sure
        self.reads = reads

    def answer(self, questions):
        return [self.reply(question) for question in questions]

    def reply(self, question):
        if question.aspect is Aspect.COHERENCE:
            return Reply(max(self.reads, key=self.reads.get), dict.fromkeys(question.candidates, 0.0) | self.reads)
        yes = self.sure if "dog" in question.text else 0.1
        return Reply("Yes" if yes > 0.5 else "No", {"Yes": yes, "No": 1 - yes})


def save_evaluation(
    folder, by_data, *, model="model", judge="judge", thinking="steps", version=VERSION, temperature=0.0, **head
):
    """Write predictions by data set as `emor3 evaluate` does; returns the folder."""
    folder.mkdir(parents=True)
    head |= {
        "version": version,
        "model": model,
        "judge": judge,
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
