"""Two real processes: they judge, train and resume as one, sharded or not, and unlike ranks never hang."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file

from emor3.data.folders import load_samples
from emor3.models.checkpoints import resolve_checkpoint
from emor3.runs.records import read_jsonl
from forked import Forked, end_of, start_ranks
from rows import write_rows

ALONE = {"ACCELERATE_USE_CPU": "true"}


def of_both_ranks(script: str, checkpoint: str, scenes: str, folder: Path) -> list[Any]:
    """What each rank of a script on two processes found about a checkpoint and an image."""
    image = load_samples(scenes, split="test")[0].image
    ranks = start_ranks("ddp", script, checkpoint, image, folder)
    told = end_of(ranks)
    assert [rank.returncode for rank in ranks] == [0, 0], told
    found = [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(2)]
    assert [rank["world"] for rank in found] == [2, 2]
    return found


@pytest.mark.slow
def test_judges_on_sharded_weights_reply_as_alone_whatever_each_rank_has_to_ask(
    tmp_path: Path, scenes: str, random_checkpoint: str
) -> None:
    ranks = of_both_ranks("sharded_judges.py", random_checkpoint, scenes, tmp_path)
    for rank, (found, counts) in enumerate(zip(ranks, [[1, 4, 0], [3, 0, 0]], strict=True)):
        assert [len(rows) for rows in found["splits"]] == counts
        for row in (row for rows in found["splits"] for row in rows):
            *together, together_text = row["together"]
            *alone, alone_text = row["alone"]
            assert together == pytest.approx(alone, abs=1e-5)
            assert together_text == alone_text
            assert (together_text == "") == (rank == 0)  # rank 0 was made to stop at once, rank 1 never


@pytest.mark.slow
def test_one_rank_packs_its_rows_and_the_other_does_not_on_sharded_weights_under_checkpointing(
    tmp_path: Path, scenes: str, random_checkpoint: str
) -> None:
    for found in of_both_ranks("sharded_packing.py", random_checkpoint, scenes, tmp_path):
        assert found["apart"] < 1e-5 * found["largest"]
        assert found["largest"] > 0.1


def launch_training(
    folder: Path,
    data: Any,
    layout: Any,
    *flags: Any,
    rows: int = 8,
    freeze: Any = (),
    reward: Any = None,
    evaluation: Any = None,
    **changes: Any,
) -> Any:
    """Train by `launched_training.py` alone, or on two processes by DDP, FSDP2 or ZeRO-3; returns the run directory."""
    if layout == "zero3":
        pytest.importorskip("deepspeed")
        if shutil.which("c++") is None:
            pytest.skip("no C++ compiler found, by which DeepSpeed builds a kernel on first use")
    processes = 1 if layout == "alone" else 2
    recipe = {
        "output_dir": str(folder / layout),
        "model": {"path": "embedded", "freeze": list(freeze)},
        "data": {"train": data, "limit": 3},  # 2 prompts a step, one a process: the second step begins again
        "judge": {"calibration": 2, "batch_size": 3},  # uneven last batches
        "reward": reward or {},
        "evaluation": evaluation,
        "cold_start": {"samples": 2, "steps": 2, "batch_size": 2 // processes, "learning_rate": 1e-5},
        "grpo": {"max_steps": 3, "save_steps": 1, "num_generations": 4, "max_completion_length": 8, "beta": 0.1}
        | {"per_device_train_batch_size": rows // processes, "learning_rate": 1e-4, "lr_scheduler_type": "constant"}
        | changes,
    }
    path = folder / f"{layout}.yaml"
    path.write_text(yaml.safe_dump(recipe))
    arguments = ["launched_training.py", "train", path, *flags]
    ranks = [Forked(*arguments, env=ALONE)] if layout == "alone" else start_ranks(layout, *arguments)
    told = end_of(ranks)
    assert {rank.returncode for rank in ranks} == {0}, told
    return folder / layout


def assert_trained_alike(one: Any, two: Any, rows: int = 8) -> None:
    """The same rollouts, figures and weights, up to the rounding of sums in another order."""
    rollouts = [list(read_jsonl(path)) for path in (one / "rollouts.jsonl", two / "rollouts.jsonl")]
    assert len(rollouts[0]) == 3 * rows
    for alone, together in zip(*rollouts, strict=True):
        for key in ("step", "group", "sample", "completion"):
            assert alone[key] == together[key]
        earned = [row["parts"] | {"reward": row["reward"]} for row in (alone, together)]
        assert earned[0] == pytest.approx(earned[1], abs=1e-5)
    for alone, together in zip(read_jsonl(one / "metrics.jsonl"), read_jsonl(two / "metrics.jsonl"), strict=True):
        names = [name for name in alone if name in ("loss", "grad_norm", "kl") or name.startswith("reward")]
        assert {name: together[name] for name in names} == pytest.approx(
            {n: alone[n] for n in names}, rel=1e-4, abs=1e-6
        )
        assert together["grad_norm"] > 0.01
    start = load_file(Path(resolve_checkpoint("embedded")) / "model.safetensors")
    alone, together = (load_file(run / "final" / "model.safetensors") for run in (one, two))
    assert together.keys() == alone.keys() == start.keys()
    # By their norms: single weights whose gradient is rounding alone move as far as others, thanks to Adam.
    moved, apart = (sum(float((alone[n] - other[n]).square().sum()) for n in start) for other in (start, together))
    assert apart**0.5 < moved**0.5 / 50


FROZEN = ("vision", "projector")


@pytest.fixture(scope="module")
def trained_alone(tmp_path_factory: pytest.TempPathFactory, scenes: str) -> Path:
    return launch_training(tmp_path_factory.mktemp("one"), scenes, "alone", freeze=FROZEN)


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["fsdp2", "zero3"])
def test_training_on_sharded_weights_is_training_on_one_process_encodes_an_image_once_and_resumes(
    tmp_path: Path, scenes: str, trained_alone: Path, layout: str
) -> None:
    one, two = trained_alone, launch_training(tmp_path, scenes, layout, freeze=FROZEN)
    assert_trained_alike(one, two)
    # Before each of three rounds. In a round both encode their own image as they sample. Of the judge, rank 1 asks
    # nothing but fillers, on rank 0's image, new to it; then rank 0 asks about rank 1's image, new to that one. Each
    # time the other goes along. The log-probabilities and the update find all: 1 + 1 + 1 a round. The update, the only
    # pass without a cache, has its four completions packed, one batch a round.
    told = [(two / f"counts{rank}").read_text().splitlines() for rank in (0, 1)]
    assert told == [["0 0", "3 1", "6 2"]] * 2
    for run in (one, two):  # a process has one image, and asks about that of the other one
        described = [row["reflection"]["consistency"] for row in read_jsonl(run / "rollouts.jsonl")]
        assert {len(found["distractors"]) for found in described if found["question"]} == {1}

    together = load_file(two / "final" / "model.safetensors")
    before = list(read_jsonl(two / "metrics.jsonl"))[-1]
    for folder in ("final", "checkpoints/checkpoint-3"):
        shutil.rmtree(two / folder)
    launch_training(tmp_path, scenes, layout, "--resume", freeze=FROZEN)
    again = load_file(two / "final" / "model.safetensors")
    assert all(torch.equal(again[name], together[name]) for name in together)
    assert list(read_jsonl(two / "metrics.jsonl"))[-1]["grad_norm"] == before["grad_norm"]


@pytest.mark.slow
def test_groups_that_straddle_two_processes_train_as_on_one(tmp_path: Path, scenes: str) -> None:
    # Two processes with six rows each and groups of four: the second of three groups lies on both.
    one, two = (launch_training(tmp_path, scenes, name, rows=12, reward={"votes": 0.2}) for name in ("alone", "ddp"))
    assert_trained_alike(one, two, rows=12)
    assert len({row["parts"]["votes"] for row in read_jsonl(one / "rollouts.jsonl")}) > 3


@pytest.fixture(scope="module")
def text_and_image(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A folder with a row without an image and one with one, which stand in each step, and a run on it alone."""
    folder = tmp_path_factory.mktemp("text_and_image")
    Image.new("RGB", (64, 64), "teal").save(folder / "a.png")
    rows = [{"id": "fog", "text": "Fog over the town.", "label": "joy"}, {"file_name": "a.png", "label": "fear"}]
    data = write_rows(folder, rows)
    return data, launch_training(folder, data, "alone")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("layout", "changes"), [("ddp", {}), ("fsdp2", {"gradient_checkpointing": False}), ("zero3", {})]
)
def test_rows_without_images_train_where_in_each_step_only_the_other_process_has_one(
    tmp_path: Path, text_and_image: tuple[str, Path], layout: str, changes: Any
) -> None:
    data, alone = text_and_image
    assert_trained_alike(alone, launch_training(tmp_path, data, layout, **changes))
