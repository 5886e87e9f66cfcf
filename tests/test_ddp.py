"""Two real processes: judges answer on sharded weights as alone, and unlike questions on the ranks never hang."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from emor3.data import load_samples


@pytest.mark.slow
def test_judges_on_sharded_weights_reply_as_alone_whatever_each_rank_has_to_ask(tmp_path, scenes, random_checkpoint):
    image = load_samples(scenes, split="test")[0].image
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    script = [str(Path(__file__).with_name("sharded_judges.py")), random_checkpoint, image, str(tmp_path)]
    env = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*launcher, *script], capture_output=True, text=True, env=env, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    for rank, counts in enumerate([[1, 4, 0], [3, 0, 0]]):
        found = json.loads((tmp_path / f"rank{rank}.json").read_text())
        assert found["world"] == 2
        assert [len(rows) for rows in found["splits"]] == counts
        for row in (row for rows in found["splits"] for row in rows):
            *together, together_text = row["together"]
            *alone, alone_text = row["alone"]
            assert together == pytest.approx(alone, abs=1e-5)
            assert together_text == alone_text
            assert (together_text == "") == (rank == 0)  # rank 0 was made to stop at once, rank 1 never
