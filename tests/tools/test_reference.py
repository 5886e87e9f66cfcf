"""Every setting and every key of a written file is told on the reference page, and the page is up to date."""

import json
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import pytest
from test_report import TABLE_HEAD, rollout

from described import undescribed
from emor3.data.importers.writer import Imported
from emor3.experiments.plan import Plan
from emor3.experiments.quickstart import summary
from emor3.judges.calibration import Calibration
from emor3.judges.group_signal import GroupSignal
from emor3.review.marks import Mark
from emor3.runs.directory import ENVIRONMENT, JUDGE, METRICS, ROLLOUTS
from emor3.runs.predictions import EVALUATION, PREDICTIONS, RESULTS
from emor3.runs.recipe import Recipe
from emor3.runs.records import environment_stamp
from emor3.stats.figures import FIGURES
from emor3.tools.reference import (
    ENVIRONMENT_KEYS,
    EVALUATION_FILES,
    IMPORT_KEYS,
    MARK_KEYS,
    QUICKSTART_KEYS,
    RUN_FILES,
    TABLE_KEYS,
    page,
)
from made_up import prediction, save_evaluation
from places import ROOT


@pytest.mark.parametrize("schema", [Recipe, Plan])
def test_every_setting_has_a_description(schema: Any) -> None:
    content = schema.model_json_schema()
    blocks = {schema.__name__: content, **content["$defs"]}
    settings = [(f"{place}.{name}", s) for place, block in blocks.items() for name, s in block["properties"].items()]
    missing = [name for name, setting in settings if not setting.get("description")]
    assert missing == []


def test_the_reference_page_is_up_to_date() -> None:
    written = ROOT / "docs" / "reference.md"
    assert written.read_text(encoding="utf-8") == page(), "run: python -m emor3.tools.reference docs/reference.md"


def test_an_evaluation_s_files_hold_what_the_page_tells(tmp_path: Path) -> None:
    one = prediction("joy", "joy", votes={"joy": 1.0}, sampled=("joy",))
    shown = replace(one.sample, clip="a.mp4")  # which rows of images have not
    made = [replace(one, sample=shown, completion=f"{one.completion}<confidence>0.5</confidence>")]
    folder = save_evaluation(tmp_path / "e", {"d": made}, start=None)
    rows = {name: json.loads((folder / name).read_text()) for name in (EVALUATION, PREDICTIONS, RESULTS)}
    told = {name: list(keys) for name, keys in EVALUATION_FILES.items()}
    assert sorted(rows[EVALUATION]) == sorted(told[EVALUATION])
    assert sorted(rows[PREDICTIONS]) == sorted(told[PREDICTIONS])
    of_data = rows[RESULTS]["data"][0].keys() - rows[EVALUATION]["data"][0].keys()
    assert {f"data[].{name}" for name in of_data} | {"data"} == set(told[RESULTS])
    assert rows[RESULTS]["data"][0]["figures"].keys() <= FIGURES.keys()


def test_the_records_of_a_run_hold_what_the_page_tells() -> None:
    assert list(rollout(1, 0, "joy")) == [name for name in RUN_FILES[ROLLOUTS] if name != "clip"]  # it is of images
    assert list(environment_stamp()) == list(ENVIRONMENT_KEYS) == list(RUN_FILES[ENVIRONMENT])
    tried = asdict(Calibration(0.5, 0.5, 0.5, 1)) | asdict(GroupSignal(1, 0, 0.5, 1))
    assert list(tried) == list(RUN_FILES[JUDGE])
    assert list(summary(0, "judge", 1.0, [])) == list(QUICKSTART_KEYS)
    assert [field.name for field in fields(Imported)] == list(IMPORT_KEYS)
    assert list(Mark.model_fields) == list(MARK_KEYS)
    assert TABLE_HEAD.split(",") == list(TABLE_KEYS)


def test_a_key_that_the_page_does_not_tell_is_found() -> None:
    assert undescribed({"step": 1, "rewards/votes/mean": 1, "new/key": 2}, RUN_FILES[METRICS]) == ["new/key"]
