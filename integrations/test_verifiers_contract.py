"""verifiers 0.4: it loads an exported package as a taskset, and its own scoring gives the golden cases' rewards."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import verifiers.v1 as vf
from verifiers.v1.utils.loaders import load_taskset, taskset_config_type

from emor3.hosts.exports.verifiers import MODULE
from golden import SCORED


@pytest.mark.parametrize("case", SCORED, ids=lambda case: case["id"])
def test_the_taskset_that_verifiers_loads_scores_a_golden_case(
    case: Any, server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, row = server.prepared(case, tmp_path)
    name = "emor3_golden"
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text(MODULE)
    (tmp_path / name / "train.jsonl").write_text(json.dumps({"prompt": "Which emotion?", "emor3": row}) + "\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop(name, None)
    config = taskset_config_type(name)(id=name, task={"settings": settings})
    (task,) = list(load_taskset(config))
    (message,) = task.data.prompt
    assert [part.type for part in message.content] == ["image_url", "text"]
    assert message.content[0].image_url.url.startswith("data:image/png;base64,")
    trace = reply(task, case["response"])
    asyncio.run(task.score(trace, None))
    assert trace.rewards["emor3"].score == pytest.approx(case["expected"]["overall"], abs=1e-9)
    assert trace.metrics["accuracy"] == case["expected"]["accuracy"]


def reply(task: Any, text: str) -> Any:
    """A trace whose last reply is the text."""

    class Spoken(vf.Trace):
        @property
        def last_reply(self) -> str:
            return text

    return Spoken.model_construct(task=task.data, rewards={}, metrics={}, errors=[], info={})
