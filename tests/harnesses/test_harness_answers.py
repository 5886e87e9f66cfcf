"""Rows go out to lmms-eval and VLMEvalKit and come back as answers: the same figures to the last digit, or one line."""

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from emor3.data.folders import load_samples
from emor3.errors import UserError
from emor3.evaluation.summary import summarise
from emor3.hosts import versions
from emor3.hosts.exports.catalogue import export_data
from emor3.hosts.harnesses import lmms
from emor3.hosts.harnesses.answers import import_settings, mark, predict, write_evaluation
from emor3.hosts.harnesses.readers import read_run
from emor3.method.types import Estimate
from emor3.runs.predictions import read_evaluation
from harness_answers import WRITTEN, drawn, write_answered_folder

SETTINGS = import_settings("test", None, "label", None)


def direct(folder: str, draws: int = 1) -> dict[str, Estimate]:
    """The figures of the answers themselves, which went through no file."""
    samples = load_samples(folder, split="test")
    return dict(summarise(folder, [predict(s, texts_of(s.id, draws), "steps") for s in samples], "steps").figures)


def texts_of(name: str, draws: int) -> list[str]:
    return [WRITTEN[name]] if draws == 1 else [drawn(name, place) for place in range(draws)]


def imported(path: Path, folder: str, out: Path, settings: Any = SETTINGS) -> dict[str, Estimate]:
    """The figures after the way of `emor3 evaluate --from PATH --data FOLDER`."""
    write_evaluation(read_run(path), folder, settings, out)
    predictions = read_evaluation(out).predictions[folder]
    return dict(summarise(folder, predictions, "steps").figures)


def docs(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "test.jsonl").read_text(encoding="utf-8").splitlines()]


def lmms_log(path: Path, out: Path, draws: int = 1, process: Callable[..., Any] = lmms.process_results) -> Path:
    """What lmms-eval logs: completions by themselves or in a list for each draw, and what `process_results` made."""
    path.mkdir()
    rows = []
    for doc in docs(out):
        texts = texts_of(doc["id"], draws)
        rows.append({"filtered_resps": texts if draws > 1 else texts[0], **process(doc, texts)})
    log = path / "2026_samples_emor3.jsonl"
    log.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return log


def answer_table(path: Path, table: Path, change: Callable[[list[dict[str, Any]]], object] = lambda rows: None) -> Path:
    """A table with predictions beside what was exported, in the form of VLMEvalKit's `dump`."""
    with table.open(encoding="utf-8", newline="") as file:
        rows: list[dict[str, Any]] = list(csv.DictReader(file, delimiter="\t"))
    for row in rows:
        row["prediction"] = WRITTEN[json.loads(row["emor3"])["id"]]
    change(rows)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter="\t", quoting=csv.QUOTE_ALL)
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture(autouse=True)
def _installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "version", lambda package: versions.RUN_WITH[package][1])


def test_answers_logged_by_lmms_eval_give_the_figures_of_the_answers_themselves(tmp_path: Path) -> None:
    folder = write_answered_folder(tmp_path / "photos")
    export_data("lmms", folder, tmp_path / "out")
    found = imported(lmms_log(tmp_path / "run", tmp_path / "out"), folder, tmp_path / "evaluation")
    assert found == direct(folder)
    # joy, Fear and fear of 6 rows are right; "fearful" is fear leniently only, and with "I cannot tell." unparsed
    assert [found[name].value for name in ("accuracy", "lenient_accuracy", "unparsed")] == [3 / 6, 4 / 6, 2 / 6]


def test_the_tasks_figures_in_lmms_eval_are_ours_to_the_last_digit(tmp_path: Path) -> None:
    folder = write_answered_folder(tmp_path / "photos")
    export_data("lmms", folder, tmp_path / "out")
    made = [lmms.process_results(doc, [WRITTEN[doc["id"]]]) for doc in docs(tmp_path / "out")]
    expected = direct(folder)
    for name in lmms.SHARES:
        assert lmms.mean([row[f"emor3_{name}"] for row in made]) == expected[name].value
    for name in lmms.COUNTED:
        assert lmms.AGGREGATIONS[f"aggregate_{name}"]([row[f"emor3_{name}"] for row in made]) == expected[name].value
    assert [row["emor3_accuracy"]["cluster"] for row in made[:3]] == ["group g", "group g", "id NA"]


@pytest.mark.slow
def test_sampled_answers_give_distances_to_votes_in_lmms_eval_and_after_it(tmp_path: Path) -> None:
    folder = write_answered_folder(tmp_path / "photos")
    export_data("lmms", folder, tmp_path / "out")
    made = [lmms.process_sampled(doc, texts_of(doc["id"], 5)) for doc in docs(tmp_path / "out")]
    expected = direct(folder, draws=5)
    for name in (*lmms.SAMPLED, *lmms.VOTED):
        records = [row[f"emor3_{name}"] for row in made if f"emor3_{name}" in row]
        assert lmms.AGGREGATIONS[f"aggregate_{name}"](records) == expected[name].value, name
        assert len(records) == (3 if name in lmms.VOTED else 6)  # three rows have votes
    log = lmms_log(tmp_path / "run", tmp_path / "out", 5, lmms.process_sampled)
    assert imported(log, folder, tmp_path / "evaluation") == expected


@pytest.mark.parametrize("copy", [False, True])
def test_answers_in_a_table_of_vlmevalkit_give_the_figures_of_the_answers_themselves(tmp_path: Path, copy: Any) -> None:
    folder = write_answered_folder(tmp_path / "photos")
    export_data("vlmeval", folder, tmp_path / "out", copy=copy)
    path = answer_table(tmp_path / "M_emor3_photos_test.tsv", tmp_path / "out/emor3_photos_test.tsv")
    assert read_run(path).model == "M"
    assert imported(path, folder, tmp_path / "evaluation") == direct(folder)
    with path.open(encoding="utf-8", newline="") as file:  # and as PRED_FORMAT=json
        rows = list(csv.DictReader(file, delimiter="\t"))
    path.with_suffix(".json").write_text(json.dumps(rows), encoding="utf-8")
    assert imported(path.with_suffix(".json"), folder, tmp_path / "other") == direct(folder)


@pytest.mark.slow
def test_the_command_makes_an_evaluation_of_what_a_harness_recorded(
    tmp_path: Path, main_with: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_answered_folder(tmp_path / "photos")
    assert main_with("data", "export", folder, tmp_path / "out", "--for", "vlmeval", "--split", "test") == 0
    path = answer_table(tmp_path / "M_emor3_photos_test.tsv", tmp_path / "out/emor3_photos_test.tsv")
    out = tmp_path / "evaluation"
    assert main_with("evaluate", "--from", path, "--data", folder, "--output", out) == 0
    (results,) = json.loads((out / "results.json").read_text(encoding="utf-8"))["data"]
    assert {name: found["value"] for name, found in results["figures"].items()} == {
        name: found.value for name, found in direct(folder).items()
    }
    capsys.readouterr()
    assert main_with("evaluate", "--from", path, "--data", folder, "--samples", "4") == 2
    assert "--samples does nothing with --from" in capsys.readouterr().err


def test_samples_without_an_answer_are_named_and_left_out(tmp_path: Path) -> None:
    folder = write_answered_folder(tmp_path / "photos")
    export_data("vlmeval", folder, tmp_path / "out")

    def fail(rows: list[dict[str, Any]]) -> None:
        rows[0]["prediction"] = "Failed to obtain answer via API."
        del rows[4]

    path = answer_table(tmp_path / "M_emor3_photos_test.tsv", tmp_path / "out/emor3_photos_test.tsv", fail)
    found = imported(path, folder, tmp_path / "evaluation")
    assert found["accuracy"].value == 1 / 4  # of b 2, NA, d and f the first is right
    (head,) = read_evaluation(tmp_path / "evaluation").head["data"]
    assert head["unreadable"].keys() == {"001", "e"}


def without(rows: list[dict[str, Any]], column: str) -> None:
    for row in rows:
        del row[column]


def repeat(rows: list[dict[str, Any]]) -> None:
    rows.append(rows[0])


@pytest.mark.parametrize(
    ("change", "settings", "said"),
    [
        (lambda rows: without(rows, "prediction"), {}, "row 1 has no 'prediction': give what VLMEvalKit's"),
        (lambda rows: without(rows, "emor3"), {}, "row 1 does not say which sample it answers .'emor3'.: run the"),
        (repeat, {}, "two answers to sample '001': give the file of one run"),
        (None, {"split": "train"}, "6 of 6 answers are to samples that .* in split 'train' does not hold"),
        (
            None,
            {"template": "direct"},
            "sample '001' was asked with prompt '[0-9a-f]{16}', and .* gives '[0-9a-f]{16}'",
        ),
        (None, {"labels": "joy,fear,calm,awe"}, "give the folder, --template and --labels that were asked"),
    ],
)
def test_answers_that_do_not_match_the_folder_are_refused(
    tmp_path: Path, change: Any, settings: dict[str, str], said: str
) -> None:
    folder = write_answered_folder(tmp_path / "photos")
    export_data("vlmeval", folder, tmp_path / "out")
    table = tmp_path / "out/emor3_photos_test.tsv"
    path = answer_table(tmp_path / "M_emor3_photos_test.tsv", table, change or (lambda rows: None))
    asked = {"split": "test", "labels": None, "label_field": "label", "template": None} | settings
    with pytest.raises(UserError, match=said):
        imported(path, folder, tmp_path / "evaluation", import_settings(**asked))
    assert not (tmp_path / "evaluation").exists()


def test_files_that_no_harness_wrote_are_refused(tmp_path: Path) -> None:
    for name in ("answers.xlsx", "answers.txt"):
        (tmp_path / name).write_text("")
    with pytest.raises(UserError, match="run VLMEvalKit with PRED_FORMAT=tsv; --from with --data takes"):
        read_run(tmp_path / "answers.xlsx")
    with pytest.raises(UserError, match="not a file of predictions"):
        read_run(tmp_path / "answers.txt")
    with pytest.raises(UserError, match="no such file"):
        read_run(tmp_path / "absent.tsv")


def test_a_row_without_an_image_is_not_for_vlmevalkit(tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    rows = [{"id": "1", "text": "Rain.", "label": "calm"}, {"id": "2", "text": "Sun.", "label": "joy"}]
    (tmp_path / "texts/metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(UserError, match="row '1' has no image, and VLMEvalKit's custom classes need one"):
        export_data("vlmeval", str(tmp_path / "texts"), tmp_path / "out")
    with pytest.raises(UserError, match="row '1': 'images' must be a list of paths, found None"):
        lmms.doc_to_visual({"id": "1"})


@pytest.mark.parametrize(("found", "said"), [("0.8.0", "lmms-eval 0.8.0 is installed"), (None, "is not installed")])
def test_a_version_that_was_not_run_is_refused(monkeypatch: pytest.MonkeyPatch, found: Any, said: str) -> None:
    def version(package: str) -> str:
        if found is None:
            raise versions.PackageNotFoundError
        return str(found)

    monkeypatch.setattr(versions, "version", version)
    with pytest.raises(UserError, match=f"{said}.*pip install 'lmms-eval==0.7.3'"):
        versions.check_version(versions.LMMS)


def marks(samples: Sequence[Any]) -> list[str]:
    return [mark(sample, "steps")["prompt"] for sample in samples]


def test_a_mark_tells_prompts_apart(tmp_path: Path) -> None:
    folder = write_answered_folder(tmp_path / "photos")
    samples = load_samples(folder, split="test")
    assert len(set(marks(samples))) == 1  # the same labels and one image each
    assert mark(samples[0], "direct")["prompt"] not in marks(samples)
