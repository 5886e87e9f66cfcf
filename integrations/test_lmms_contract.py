"""lmms-eval itself runs our tasks: its figures are ours, and its log read back gives them again."""

import json
from pathlib import Path
from typing import Any

import pytest
from lmms_eval.api.model import lmms as BaseModel  # noqa: N812
from lmms_eval.evaluator import simple_evaluate
from lmms_eval.loggers import EvaluationTracker
from lmms_eval.tasks import TaskManager
from PIL import Image

from emor3.data.folders import load_samples
from emor3.evaluation.summary import summarise
from emor3.hosts.exports.catalogue import export_data
from emor3.hosts.harnesses import lmms
from emor3.hosts.harnesses.answers import import_settings, predict, write_evaluation
from emor3.hosts.harnesses.readers import read_run
from emor3.runs.predictions import read_evaluation
from harness_answers import WRITTEN, drawn, write_answered_folder


class Writer(BaseModel):
    """A model that answers from the table of the test, and looks at what it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[Any] = []
        self.draws: dict[str, int] = {}

    def generate_until(self, requests: list[Any]) -> list[str]:
        texts = []
        for request in requests:
            prompt, options, doc_to_visual, doc_id, task, split = request.args
            doc = self.task_dict[task][split][doc_id]
            self.asked.append((prompt, options, doc_to_visual(doc)))
            place = self.draws.get(doc["id"], 0)
            self.draws[doc["id"]] = place + 1
            texts.append(drawn(doc["id"], place) if task.endswith("_sampled") else WRITTEN[doc["id"]])
        return texts

    def generate_until_multi_round(self, requests: list[Any]) -> list[str]:
        raise NotImplementedError

    def loglikelihood(self, requests: list[Any]) -> list[Any]:
        raise NotImplementedError


def run(folder: Path, task: str, out: Path) -> tuple[dict[str, Any], Writer, Path]:
    """What lmms-eval tells of one task, the model, and the file of its log."""
    model, tracker = Writer(), EvaluationTracker(output_path=str(out))
    told = simple_evaluate(
        model,
        tasks=[task],
        task_manager=TaskManager("ERROR", include_path=str(folder), include_defaults=False),
        evaluation_tracker=tracker,
        bootstrap_iters=0,
    )
    samples = told.pop("samples")
    tracker.general_config_tracker.model_name_sanitized = "writer"
    tracker.save_results_aggregated(results=told, samples=samples, datetime_str="2026-11-27")
    tracker.save_results_samples(task_name=task, samples=samples[task])
    (log,) = out.rglob("*_samples_*.jsonl")
    return told["results"][task], model, log


@pytest.mark.parametrize("draws", [1, 8])
def test_lmms_eval_runs_our_tasks_and_its_log_comes_back_with_the_same_figures(tmp_path: Path, draws: Any) -> None:
    folder = write_answered_folder(tmp_path / "photos")
    export_data("lmms", folder, tmp_path / "out")
    task = "emor3_photos_test" + ("" if draws == 1 else "_sampled")
    told, model, log = run(tmp_path / "out", task, tmp_path / "logs")
    samples = load_samples(folder, split="test")
    texts = {s.id: [WRITTEN[s.id]] if draws == 1 else [drawn(s.id, place) for place in range(8)] for s in samples}
    expected = dict(summarise(folder, [predict(s, texts[s.id], "steps") for s in samples], "steps").figures)
    names = (*lmms.SHARES, *lmms.COUNTED) if draws == 1 else (*lmms.SAMPLED, *lmms.VOTED)
    for name in names:
        assert told[f"emor3_{name},none"] == expected[name].value, name
    write_evaluation(read_run(log), folder, import_settings("test", None, "label", None), tmp_path / "evaluation")
    predictions = read_evaluation(tmp_path / "evaluation").predictions[folder]
    assert dict(summarise(folder, predictions, "steps").figures) == expected
    prompt, options, (image,) = model.asked[0]
    assert "joy, fear, calm" in prompt
    assert isinstance(image, Image.Image)
    assert options["until"] == []  # the default would end a completion at its first empty line


def test_lmms_eval_counts_near_copies_together(tmp_path: Path) -> None:
    folder = write_answered_folder(tmp_path / "photos")
    export_data("lmms", folder, tmp_path / "out")
    told, _, _ = run(tmp_path / "out", "emor3_photos_test", tmp_path / "logs")
    # right, right (one group), wrong, wrong, right, wrong: all residuals are 1/2 or -1/2 around the mean of 1/2
    # clustered: sqrt(6 * (5/6) * ... ) is lmms-eval's; two residuals of one sign in a group make it larger
    assert told["emor3_accuracy_stderr_clustered,none"] > told["emor3_accuracy_stderr_clt,none"]
    assert told["emor3_macro_f1_stderr_clustered,none"] == "N/A"


def test_the_tasks_are_written_as_lmms_eval_lists_them(tmp_path: Path) -> None:
    folder = write_answered_folder(tmp_path / "photos")
    export_data("lmms", folder, tmp_path / "out")
    known = TaskManager("ERROR", include_path=str(tmp_path / "out"), include_defaults=False).all_tasks
    assert set(known) == {f"emor3_photos_{split}{draws}" for split in ("test", "train") for draws in ("", "_sampled")}
    assert json.loads((tmp_path / "out/train.jsonl").read_text())["id"] == "train"
