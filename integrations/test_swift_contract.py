"""ms-swift 4.6: it loads the exported plugin file, and its own scoring of samples gives the golden cases' rewards."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from swift.rewards import orms
from swift.rl_core.grpo_algorithm import compute_rewards_per_func
from swift.utils.utils import import_external_file

from emor3.hosts.exports.swift import LOADED
from golden import PARTS, SCORED, total


class Sample(SimpleNamespace):
    """What ms-swift's scoring reads of a sample."""

    def to_reward_row(self) -> dict[str, Any]:
        return {"emor3": self.emor3, "messages": self.messages}


@pytest.mark.parametrize("case", SCORED, ids=lambda case: case["id"])
def test_the_plugins_that_swift_loads_sum_to_the_reward_of_a_golden_case(
    case: Any, server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, row = server.prepared(case, tmp_path)
    monkeypatch.setenv("EMOR3_REWARD", settings)
    plugin = tmp_path / "emor3_plugin.py"
    plugin.write_text(LOADED)
    import_external_file(str(plugin))
    names = PARTS if case.get("judge") is not None else PARTS[:2]
    functions = [orms[f"emor3_{name}"](args=None) for name in names]
    messages = [{"role": "user", "content": "?"}, {"role": "assistant", "content": case["response"]}]
    samples = [Sample(messages=messages, emor3=row)]
    rewards = compute_rewards_per_func(samples, functions, [None] * len(functions), device=torch.device("cpu"))
    parts = dict(zip(names, rewards[0].tolist(), strict=True))
    assert total(case, parts) == pytest.approx(case["expected"]["overall"], abs=1e-6)
