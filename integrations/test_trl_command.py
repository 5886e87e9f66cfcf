"""TRL 1.16: its command, in a process of its own, trains three steps by the exported command's reward functions."""

import json
import os
import subprocess
import sys
from pathlib import Path

from emor3.hosts.exports.catalogue import export_data
from emor3.models.checkpoints import resolve_checkpoint
from golden import PARTS


def test_trl_grpo_trains_three_steps(tmp_path: Path) -> None:
    export_data("trl", "embedded:scenes8", tmp_path / "rows", split="train")
    (tmp_path / "reward.yaml").write_text("judge: {model: checkpoint, path: embedded}\n")
    command = [
        *(str(Path(sys.executable).with_name("trl")), "grpo", "--dataset_name", str(tmp_path / "rows")),
        *("--model_name_or_path", resolve_checkpoint("embedded"), "--output_dir", str(tmp_path / "out")),
        *("--reward_funcs", *(f"emor3.hosts.trl.{part}" for part in PARTS)),
        *("--reward_weights", "0.8", "0.1", "0.05", "0.05", "--num_generations", "2", "--max_steps", "3"),
        *("--per_device_train_batch_size", "4", "--max_completion_length", "48", "--bf16", "false"),
        *("--report_to", "none", "--logging_steps", "1", "--save_steps", "3"),
    ]
    # datasets knows equal rows again, with the paths that their images had in an earlier test's folder.
    places = {"EMOR3_REWARD": str(tmp_path / "reward.yaml"), "HF_DATASETS_CACHE": str(tmp_path / "cache")}
    subprocess.run(command, check=True, env={**os.environ, **places})
    state = json.loads((tmp_path / "out" / "checkpoint-3" / "trainer_state.json").read_text())
    assert len([entry for entry in state["log_history"] if "rewards/coherence/mean" in entry]) == 3
