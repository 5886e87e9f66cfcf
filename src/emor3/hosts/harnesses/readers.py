"""Read what a harness wrote after a run: the log of lmms-eval, a table of VLMEvalKit, a log of inspect_ai."""

import csv
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from emor3.errors import UserError
from emor3.hosts.harnesses.answers import Answer, HarnessRun
from emor3.hosts.harnesses.lmms import MARK, texts_in
from emor3.hosts.versions import INSPECT, LMMS, VLMEVAL, check_version
from emor3.runs.records import read_jsonl

FORMS = (
    "*_samples_*.jsonl of lmms-eval (--log_samples), .tsv or .json of VLMEvalKit (PRED_FORMAT=tsv), .eval of inspect_ai"
)
PARTS = ("id", "label", "prompt")
"""What a mark holds."""
FAILED = "Failed to obtain answer"
"""What VLMEvalKit writes in place of an answer that its model's API did not give."""


def read_run(path: Path) -> HarnessRun:
    """The answers in a file of a harness. Raises UserError if it is none, or none to a task of ours."""
    if not path.is_file():
        raise UserError(f"{path}: no such file: --from with --data takes {FORMS}")
    if path.suffix == ".jsonl":
        return _lmms(path)
    if path.suffix == ".tsv":
        return _vlmeval(path, list(_table(path)))
    if path.suffix in (".eval", ".json"):
        return _json(path)
    more = ": run VLMEvalKit with PRED_FORMAT=tsv" if path.suffix == ".xlsx" else ""
    raise UserError(f"{path}: not a file of predictions that can be read{more}; --from with --data takes {FORMS}")


def _lmms(path: Path) -> HarnessRun:
    answers = [
        Answer(_mark(row.get(MARK), path, place), _given(row.get("resps", row.get("filtered_resps")), path, place))
        for place, row in enumerate(read_jsonl(path), start=1)
    ]
    return HarnessRun(LMMS, path, path.resolve().parent.name, answers)


def _given(found: Any, path: Path, place: int) -> tuple[str, ...]:
    try:
        texts = tuple(texts_in(found))
    except TypeError:
        texts = ()
    if not texts:
        raise UserError(
            f"{path}: row {place} holds no completion: run lmms-eval with --log_samples, as it was exported"
        )
    return texts


def _table(path: Path) -> Iterator[dict[str, str]]:
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # a cell may hold a whole image
    try:
        with path.open(encoding="utf-8", newline="") as file:
            yield from csv.DictReader(file, delimiter="\t")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"cannot read {path}: {error}") from None


def _vlmeval(path: Path, rows: Sequence[Mapping[str, Any]]) -> HarnessRun:
    answers = []
    for place, row in enumerate(rows, start=1):
        text = row.get("prediction")
        if not isinstance(text, str):
            raise UserError(f"{path}: row {place} has no 'prediction': give what VLMEvalKit's --mode infer wrote")
        if FAILED not in text:  # the server's failure is not the model's answer: such a row is named as left out
            answers.append(Answer(_mark(row.get(MARK), path, place), (text,)))
    return HarnessRun(VLMEVAL, path, path.stem.partition("_emor3_")[0], answers)


def _mark(found: Any, path: Path, place: int) -> Mapping[str, str]:
    """An answer's mark, as it is or as JSON."""
    try:
        known = json.loads(found) if isinstance(found, str) else found
    except ValueError:
        known = None
    if not isinstance(known, Mapping) or not all(isinstance(known.get(part), str) for part in PARTS):
        raise UserError(
            f"{path}: row {place} does not say which sample it answers ({MARK!r}): run the task that "
            "`emor3 data export` or inspect's emor3/emotion makes"
        )
    return known


def _json(path: Path) -> HarnessRun:
    if path.suffix == ".json":
        try:
            content = json.loads(path.read_bytes())
        except (OSError, ValueError) as error:
            raise UserError(f"cannot read {path}: {error}") from None
        if isinstance(content, list):
            return _vlmeval(path, [row for row in content if isinstance(row, Mapping)])
    return _inspect(path)


def _inspect(path: Path) -> HarnessRun:
    check_version(INSPECT)
    from inspect_ai.log import read_eval_log

    try:
        log = read_eval_log(str(path))
    except Exception as error:  # of a foreign file it may raise anything
        raise UserError(f"cannot read {path} as a log of inspect_ai: {' '.join(str(error).split())[:200]}") from None
    found: dict[str, list[Any]] = {}
    for sample in log.samples or []:
        if sample.error is None and sample.output.choices:
            found.setdefault(str(sample.id), []).append(sample)
    answers = []
    for place, epochs in enumerate(found.values(), start=1):
        epochs.sort(key=lambda sample: sample.epoch)
        texts = tuple(sample.output.completion for sample in epochs)
        answers.append(Answer(_mark(epochs[0].metadata.get(MARK), path, place), texts, _findings(epochs[0])))
    grader = next((str(role.model) for name, role in (log.eval.model_roles or {}).items() if name == "grader"), None)
    return HarnessRun(INSPECT, path, str(log.eval.model), answers, grader)


def _findings(sample: Any) -> dict[str, Any]:
    """What the judge found of the first epoch's completion, by aspect."""
    scores = (sample.scores or {}).items()
    return {name: score.metadata["finding"] for name, score in scores if "finding" in (score.metadata or {})}
