"""verl 0.9: its loaders find function and manager, and both give the golden cases' rewards."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from verl import DataProto
from verl.trainer.ppo.reward import get_custom_reward_fn, load_reward_manager

from golden import SCORED


def config_of(settings: str) -> Any:
    function = {"path": "pkg://emor3.hosts.verl", "name": "compute_score", "reward_kwargs": {"settings": settings}}
    return OmegaConf.create({"reward": {"custom_reward_function": function}})


@pytest.mark.parametrize("case", SCORED, ids=lambda case: case["id"])
def test_the_function_that_verl_loads_gives_the_reward_of_a_golden_case(case: Any, server: Any, tmp_path: Path) -> None:
    settings, row = server.prepared(case, tmp_path)
    function = get_custom_reward_fn(config_of(settings))
    given = {"data_source": "emor3", "solution_str": case["response"], "ground_truth": row, "extra_info": {}}
    found = asyncio.run(function(**given))
    assert found["score"] == pytest.approx(case["expected"]["overall"], abs=1e-9)
    assert found["acc"] == case["expected"]["accuracy"]


def test_the_manager_that_verl_loads_scores_its_own_data(server: Any, tmp_path: Path) -> None:
    case = SCORED[0]
    settings, row = server.prepared(case, tmp_path)
    manager = {"source": "importlib", "name": "EmotionRewardManager", "module": {"path": "pkg://emor3.hosts.verl"}}
    reward = {"reward_manager": manager, "reward_kwargs": {"settings": settings}}
    config = OmegaConf.create({"reward": reward})
    tokenizer = SimpleNamespace(decode=lambda ids, skip_special_tokens: case["response"] if ids.tolist() == [7] else "")

    async def score() -> Any:
        loaded = load_reward_manager(config, tokenizer)
        data = DataProto.from_dict(
            tensors={"responses": torch.tensor([[7, 0]]), "attention_mask": torch.tensor([[1, 1, 0]])},
            non_tensors={
                "data_source": ["emor3"],
                "reward_model": [{"style": "rule", "ground_truth": row}],
                "extra_info": [{"index": 0}],
            },
        )
        return await loaded.run_single(data)

    found = asyncio.run(score())
    assert found["reward_score"] == pytest.approx(case["expected"]["overall"])
    assert found["reward_extra_info"]["coherence"] == case["expected"]["coherence"]
