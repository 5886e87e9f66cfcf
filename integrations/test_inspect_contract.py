"""inspect_ai itself runs our task and scorers: its figures are ours, a failed judge is unscored, its log comes back."""

from base64 import b64encode
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
from inspect_ai import eval as run_eval
from inspect_ai import score as score_again
from inspect_ai._util.registry import registry_lookup
from inspect_ai.log import EvalLog
from inspect_ai.model import ModelOutput, ModelUsage, get_model

from emor3.data.folders import load_samples
from emor3.evaluation.summary import summarise
from emor3.hosts.harnesses import inspect_tasks
from emor3.hosts.harnesses.answers import import_settings, predict, write_evaluation
from emor3.hosts.harnesses.inspect_tasks import coherence, consistency
from emor3.hosts.harnesses.readers import read_run
from emor3.method.types import Verdict
from emor3.runs.predictions import read_evaluation
from harness_answers import WRITTEN, write_answered_folder

SETTINGS = import_settings("test", None, "label", None)


def answering(reply: Callable[[Any], str]) -> Any:
    """A model that replies to the last turn of what it is asked."""

    def output(messages: Any, *_: Any) -> ModelOutput:
        made = ModelOutput.from_content("mockllm/model", reply(messages[-1]))
        made.usage = ModelUsage()  # or it would load a tokenizer from the network to count
        return made

    return get_model("mockllm/model", custom_outputs=output)


def run(folder: str, logs: Path, **more: Any) -> EvalLog:
    pictures = [b64encode((Path(folder) / f"{place}.png").read_bytes()).decode() for place in range(len(WRITTEN))]
    names = {f"data:image/png;base64,{picture}": name for picture, name in zip(pictures, WRITTEN, strict=True)}
    model = answering(lambda turn: WRITTEN[names[turn.content[0].image]])
    (log,) = run_eval(
        "emor3/emotion", task_args={"data": folder}, model=model, log_dir=str(logs), display="none", **more
    )
    assert log.status == "success", log.error
    return log


def figures(path: Path, folder: str, out: Path) -> dict[str, Any]:
    write_evaluation(read_run(path), folder, SETTINGS, out)
    return dict(summarise(folder, read_evaluation(out).predictions[folder], "steps").figures)


def metrics(log: EvalLog) -> dict[tuple[str, str], Any]:
    assert log.results is not None
    return {(score.name, name): found.value for score in log.results.scores for name, found in score.metrics.items()}


def test_the_entry_point_names_the_task_and_the_scorers() -> None:
    (entry,) = [entry for entry in entry_points(group="inspect_ai") if entry.name == "emor3"]
    assert entry.load() is inspect_tasks
    for kind, name in (("task", "emotion"), ("scorer", "set_scorer"), ("scorer", "consistency")):
        assert registry_lookup(kind, f"emor3/{name}") is not None


def test_inspect_runs_our_task_and_its_log_comes_back_with_the_same_figures(tmp_path: Path) -> None:
    folder = write_answered_folder(tmp_path / "photos")
    log = run(folder, tmp_path / "logs")
    samples = load_samples(folder, split="test")
    expected = dict(summarise(folder, [predict(s, [WRITTEN[s.id]], "steps") for s in samples], "steps").figures)
    told = metrics(log)
    for name in ("accuracy", "lenient_accuracy", "unparsed", "format"):
        assert told[name, "mean"] == expected[name].value, name
    assert told["set_scorer", "macro_f1"] == expected["macro_f1"].value
    assert figures(Path(log.location), folder, tmp_path / "evaluation") == expected
    assert told["accuracy", "stderr"] > 0


def test_epochs_count_as_sampled_answers(tmp_path: Path) -> None:
    folder = write_answered_folder(tmp_path / "photos")
    log = run(folder, tmp_path / "logs", epochs=3)
    samples = load_samples(folder, split="test")
    expected = dict(summarise(folder, [predict(s, [WRITTEN[s.id]] * 3, "steps") for s in samples], "steps").figures)
    assert figures(Path(log.location), folder, tmp_path / "evaluation") == expected
    assert "jensen_shannon" in expected


def test_a_judge_that_fails_leaves_a_sample_unscored(tmp_path: Path) -> None:
    folder = write_answered_folder(tmp_path / "photos")
    log = run(folder, tmp_path / "logs")

    def fail(turn: Any) -> str:
        raise ConnectionError("no server")

    for reply, value in ((lambda turn: "Yes", 1 / 6), (fail, None)):
        judged = score_again(
            log, [consistency(), coherence()], model_roles={"grader": answering(reply)}, display="none", action="append"
        )
        scores = [sample.scores["consistency"] for sample in judged.samples]
        # only "e" has a first step: the other five lack what the question needs, which is no failure of the judge
        asked = [score for score in scores if score.reason is not None]
        assert len(asked) == (0 if value else 1)
        assert metrics(judged)["consistency", "mean"] == (value if value else 0.0)


def test_findings_of_the_judge_come_back(tmp_path: Path) -> None:
    from inspect_ai.log import write_eval_log

    folder = write_answered_folder(tmp_path / "photos")
    log = run(folder, tmp_path / "logs")
    grader = answering(lambda turn: "Yes")
    judged = score_again(log, [consistency()], model_roles={"grader": grader}, display="none", action="append")
    path = tmp_path / "judged.eval"
    write_eval_log(judged, str(path))
    found = figures(path, folder, tmp_path / "evaluation")
    assert found["consistency"].value == metrics(judged)["consistency", "mean"] == pytest.approx(1 / 6)
    predictions = read_evaluation(tmp_path / "evaluation").predictions[folder]
    assert [p.reflection.consistency.verdict for p in predictions if p.sample.id == "e"] == [Verdict.SUPPORTED]
