"""EasyR1, by its documented contract (a file loaded by path): a batch of golden cases and their rewards.

EasyR1 is no package that could be installed here: its loader, `verl/workers/reward/function.py` of commit b44b311
(2026-07-30, version 0.3.3.dev0), is followed step by step.
"""

import importlib.util
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from emor3.hosts.exports.easyr1 import LOADED
from golden import SCORED


def loaded(path: Path, kwargs: dict[str, Any]) -> Any:
    """The reward function as EasyR1 loads it."""
    spec = importlib.util.spec_from_file_location("custom_reward_fn", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["custom_reward_fn"] = module
    spec.loader.exec_module(module)
    assert module.REWARD_TYPE == "batch"
    return partial(module.compute_score, **kwargs)


@pytest.mark.parametrize("case", SCORED, ids=lambda case: case["id"])
def test_the_function_of_the_exported_file_gives_the_reward_of_a_golden_case(
    case: Any, server: Any, tmp_path: Path
) -> None:
    settings, row = server.prepared(case, tmp_path)
    (tmp_path / "emor3_reward.py").write_text(LOADED)
    function = loaded(tmp_path / "emor3_reward.py", {"settings": settings})
    given = {"response": case["response"], "response_length": 9, "ground_truth": row}
    (score,) = function([given])
    assert score["overall"] == pytest.approx(case["expected"]["overall"], abs=1e-9)
    assert all(isinstance(value, float) for value in score.values())
