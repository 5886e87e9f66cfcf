"""`emor3 train --resume RUN`: the run's own recipe, its data wherever they lie now, and nothing done twice."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from emor3.cli.main import app
from emor3.errors import UserError
from emor3.runs.directory import CHECKPOINTS, CONFIG, ENVIRONMENT, METRICS, resumed_recipe
from emor3.runs.recipe import build_recipe
from emor3.runs.records import append_jsonl, read_jsonl
from emor3.training.dataset import manifest_sums
from emor3.training.run import train
from made_up import prepare_run

SMALL = {"max_steps": 2, "save_steps": 1, "per_device_train_batch_size": 4, "num_generations": 2}
SMALL |= {"max_completion_length": 8, "learning_rate": 1e-3}


def recipe_for(folder, scenes, checkpoint, **grpo):
    content = {"output_dir": str(folder / "run"), "model": {"path": checkpoint}, "data": {"train": scenes}}
    return build_recipe(content | {"judge": {"calibration": 0}, "grpo": SMALL | grpo}, [], "here")


@pytest.fixture
def finished(tmp_path, scenes, random_checkpoint):
    """A run of two steps as training leaves it when its checkpoints were removed, without the training."""
    recipe = recipe_for(tmp_path, scenes, random_checkpoint)
    run = prepare_run(recipe, resume=False, overwrite=False, data=manifest_sums(recipe))
    append_jsonl(run / METRICS, [{"step": 1}, {"step": 2}])
    shutil.copytree(random_checkpoint, run / "final")
    return run


def files_of(run):
    return {path: path.stat().st_mtime_ns for path in run.rglob("*")}


def test_a_finished_run_says_so_and_is_left_as_it_is(finished, capsys):
    before = files_of(finished)
    app(["train", "--resume", str(finished)], standalone_mode=False)
    assert f"{finished} is finished, nothing is left to do" in capsys.readouterr().out
    assert files_of(finished) == before


def test_a_trained_policy_without_a_checkpoint_is_not_trained_over(finished):
    for name in (CONFIG,):
        content = json.loads((finished / name).read_text())
        content["grpo"]["lr_scheduler_type"] = "constant"
        (finished / name).write_text(json.dumps(content))
    before = files_of(finished)
    with pytest.raises(UserError, match="no checkpoint to go on from"):
        train(resumed_recipe(finished, ["grpo.max_steps=4"]), resume=True)
    assert files_of(finished) == before


def test_a_run_is_taken_up_where_it_lies_with_the_settings_it_was_given(finished, tmp_path):
    moved = tmp_path / "moved"
    finished.rename(moved)
    recipe = resumed_recipe(moved, ["grpo.save_steps=2"])
    assert (recipe.output_dir, recipe.grpo["save_steps"], recipe.grpo["max_steps"]) == (str(moved), 2, 2)


def test_a_folder_is_a_recipe_with_resume_only(finished, tmp_path):
    for arguments in (["train", finished], ["train", "--resume", finished, "-o", tmp_path / "other"]):
        with pytest.raises(UserError, match="--resume alone goes on with the run in it"):
            app([str(argument) for argument in arguments], standalone_mode=False)
    with pytest.raises(UserError, match=r"cannot read .*config\.json: No such file"):
        app(["train", "--resume", str(tmp_path)], standalone_mode=False)


def test_moved_data_are_known_by_their_rows(finished, scenes, tmp_path, capsys):
    shutil.copytree(scenes, tmp_path / "moved")
    train(resumed_recipe(finished, [f"data.train={tmp_path / 'moved'}"]), resume=True)
    assert "nothing is left to do" in capsys.readouterr().out
    manifest = tmp_path / "moved" / "metadata.jsonl"
    manifest.write_text("".join(manifest.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(UserError, match=r"cannot resume .* with data\.train"):
        train(resumed_recipe(finished, [f"data.train={tmp_path / 'moved'}"]), resume=True)


def test_other_rows_under_the_same_path_are_refused(finished, tmp_path, scenes):
    shutil.copytree(scenes, tmp_path / "data")
    recipe = resumed_recipe(finished, [f"data.train={tmp_path / 'data'}"])
    shutil.rmtree(finished)
    prepare_run(recipe, resume=False, overwrite=False, data=manifest_sums(recipe))
    manifest = tmp_path / "data" / "metadata.jsonl"
    manifest.write_text("".join(manifest.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(UserError, match=r"cannot resume .* with rows of data\.train SHA-256 .* -> SHA-256 "):
        train(recipe, resume=True)


def test_without_recorded_sums_data_are_known_by_their_path(finished, scenes, tmp_path):
    shutil.copytree(scenes, tmp_path / "moved")
    (finished / ENVIRONMENT).write_text("{}")
    with pytest.raises(UserError, match=r"cannot resume .* with data\.train"):
        train(resumed_recipe(finished, [f"data.train={tmp_path / 'moved'}"]), resume=True)


@pytest.mark.parametrize(
    ("tracker", "way"), [("wandb", r"pip install -e '\.\[wandb\]'"), ("nonsense", "is no tracker; known are")]
)
def test_a_tracker_that_is_not_there_is_one_line_before_the_run_exists(
    tmp_path, scenes, random_checkpoint, tracker, way
):
    if tracker == "wandb":
        try:
            import wandb  # noqa: F401
        except ImportError:
            pass
        else:
            pytest.skip("wandb is installed")
    with pytest.raises(UserError, match=rf"grpo\.report_to.*{tracker}.*{way}"):
        train(recipe_for(tmp_path, scenes, random_checkpoint, report_to=tracker))
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_cut_short_run_ends_by_its_folder_alone_as_if_it_had_never_stopped(tmp_path, scenes, random_checkpoint):
    whole = train(recipe_for(tmp_path, scenes, random_checkpoint))
    cut = tmp_path / "cut"
    shutil.copytree(whole, cut)
    shutil.rmtree(cut / "final")
    shutil.rmtree(cut / CHECKPOINTS / "checkpoint-2")
    shutil.copytree(scenes, tmp_path / "moved")
    app(["train", "--resume", str(cut), "--set", f"data.train={tmp_path / 'moved'}"], standalone_mode=False)
    one, other = (load_file(Path(run) / "final" / "model.safetensors") for run in (whole, cut))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert [row["step"] for row in read_jsonl(cut / METRICS)] == [1, 2]
