"""TRL trains by our reward functions: its command line with a frozen judge, its trainer with the policy as judge."""

import json
from pathlib import Path
from typing import Any

import pytest
from datasets import load_dataset
from trl import GRPOConfig, GRPOTrainer
from trl.scripts import grpo

from emor3.errors import UserError
from emor3.hosts import trl as host
from emor3.hosts.exports.catalogue import export_data
from emor3.hosts.trl import PolicyRewards
from emor3.judges.local import ScoreJudge
from emor3.method.rewards import RewardSettings
from emor3.models.checkpoints import load, resolve_checkpoint
from emor3.scoring.rows import completion_text, score_rows
from golden import PARTS


@pytest.fixture
def exported(scenes: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Rows for TRL; the cache of its data sets is this test's own."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    export_data("trl", scenes, tmp_path / "rows")
    return tmp_path / "rows"


@pytest.mark.slow
def test_trl_grpo_trains_three_steps_by_the_dotted_functions_with_a_frozen_judge(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = tmp_path / "reward.yaml"
    settings.write_text("reward: {contrastive: 2}\njudge: {model: checkpoint, path: embedded}\n")
    monkeypatch.setenv("EMOR3_REWARD", str(settings))
    options = {
        **{
            "model_name_or_path": resolve_checkpoint("embedded"),
            "dataset_name": exported,
            "output_dir": tmp_path / "o",
        },
        **{"num_generations": 2, "per_device_train_batch_size": 4, "max_completion_length": 48, "max_steps": 3},
        **{"logging_steps": 1, "bf16": "false", "report_to": "none", "save_strategy": "steps", "save_steps": 3},
    }
    arguments = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    functions = [f"emor3.hosts.trl.{part}" for part in PARTS]
    arguments += ["--reward_funcs", *functions, "--reward_weights", "0.8", "0.1", "0.05", "0.05"]
    # what `trl grpo` starts in a process of its own, with the command line's own parser
    grpo.main(*grpo.make_parser().parse_args_and_config(arguments, fail_with_unknown_args=False))
    state = json.loads((tmp_path / "o" / "checkpoint-3" / "trainer_state.json").read_text())
    steps = [entry for entry in state["log_history"] if "reward" in entry]
    assert len(steps) == 3
    for step in steps:
        parts = [step[f"rewards/{part}/mean"] for part in PARTS]
        assert all(0 <= part <= 1 for part in parts)
        # the total that trains is the weighted sum of the means
        assert step["reward"] == pytest.approx(sum(w * p for w, p in zip((0.8, 0.1, 0.05, 0.05), parts, strict=True)))
    assert any(step["rewards/consistency/mean"] > 0 for step in steps)


@pytest.mark.slow
def test_a_trainer_of_ones_own_has_the_policy_judge_itself(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rewards = PolicyRewards(RewardSettings(contrastive=1))
    seen: list[dict[str, Any]] = []

    def watched(function: host.PartFunction) -> Any:
        def call(**given: Any) -> Any:
            seen.append({"part": function.part, "values": function(**given), **given})
            return seen[-1]["values"]

        return call

    model, processor = load("embedded")
    trainer = GRPOTrainer(
        model=model,
        processing_class=processor,
        reward_funcs=[watched(function) for function in rewards.functions],
        callbacks=[rewards.callback],
        args=GRPOConfig(
            **{"output_dir": str(tmp_path / "o"), "reward_weights": rewards.weights, "num_generations": 2},
            **{"per_device_train_batch_size": 4, "max_completion_length": 48, "max_steps": 1, "bf16": False},
            report_to="none",
        ),
        train_dataset=load_dataset(str(exported), split="train"),
    )
    with pytest.raises(UserError, match=r"no policy to ask: give the trainer callbacks=\[rewards.callback\]"):
        PolicyRewards().functions[-1](completions=["x"], emor3=[load_dataset(str(exported), split="train")[0]["emor3"]])
    trainer.train()
    # at the first step the policy is the start model: it gives what that one gives as a judge
    texts = [completion_text(completion) for completion in seen[0]["completions"]]
    rows = [json.loads(row) for row in seen[0]["emor3"]]
    expected = score_rows(rows, texts, ScoreJudge(*load("embedded")), RewardSettings(contrastive=1))
    for call in seen:
        assert call["values"] == [one.reward.parts[call["part"]] for one in expected]
    assert {call["part"] for call in seen} == set(PARTS)
