"""A run goes on from a checkpoint that is as it was written, or not at all; what a new run replaces stays so long."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from emor3.errors import UserError
from emor3.runs import directory, records
from emor3.runs.checkpoint_marks import check_checkpoint, check_cold_start, checkpoint_to_resume, faults, mark_complete
from emor3.runs.directory import COMPLETE, REPLACED, complete_checkpoints, remove_incomplete
from emor3.runs.recipe import Recipe
from emor3.storage.locks import held
from emor3.storage.outputs import write_json
from emor3.training.run import train
from made_up import prepare_run
from steps import LEARNS, at_step


def write_checkpoint(run: Path, step: int) -> Path:
    """A made-up checkpoint with the files of a real one."""
    folder = run / "checkpoints" / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    save_file({"weight": torch.full((8,), float(step))}, folder / "model.safetensors")
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        torch.save({"step": torch.tensor(step)}, folder / name)
    (folder / "trainer_state.json").write_text(json.dumps({"global_step": step}))
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    (folder / "README.md").write_text("about")
    mark_complete(folder)
    return folder


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A run with two checkpoints."""
    for step in (1, 2):
        write_checkpoint(tmp_path, step)
    return tmp_path


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def remove(path: Path) -> None:
    path.unlink()


def empty(path: Path) -> None:
    path.write_bytes(b"")


# --- what a mark tells ------------------------------------------------------------------------------------------------

READ = (
    *("model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"),
    "chat_template.jinja",
)
DAMAGE = {flip: "has other bytes", cut: r"has [\d,]+ bytes instead of [\d,]+", remove: "is missing"}


@pytest.mark.parametrize("name", READ)
@pytest.mark.parametrize("damage", DAMAGE)
def test_whatever_is_not_as_it_was_written_is_named_and_the_checkpoint_before_is_offered(
    made: Path, name: str, damage: Any
) -> None:
    newest = checkpoint_to_resume(made)
    check_checkpoint(made, newest)
    damage(newest / name)
    offer = "--from-checkpoint 1 goes on from the one before"
    with pytest.raises(UserError, match=f"checkpoint-2 is not as it was written: {name} {DAMAGE[damage]}; {offer}"):
        check_checkpoint(made, newest)
    assert checkpoint_to_resume(made, 1).name == "checkpoint-1"


def test_every_fault_is_named_and_a_checkpoint_that_is_broken_too_is_not_offered(made: Path) -> None:
    first, newest = complete_checkpoints(made)
    remove(newest / "scheduler.pt")
    flip(newest / "optimizer.pt")
    empty(first / "rng_state.pth")
    told = r"optimizer.pt has other bytes, scheduler.pt is missing; no checkpoint before it is whole: begin anew with"
    with pytest.raises(UserError, match=told):
        check_checkpoint(made, newest)


def test_a_mark_that_is_broken_is_named_and_what_resume_does_not_read_may_change(made: Path) -> None:
    newest = checkpoint_to_resume(made)
    (newest / "README.md").write_text("my notes")
    (newest / "notes.txt").write_text("mine")
    assert faults(newest) == []
    for mark in ('{"files": {"a', "[1]", "\0", '{"files": {"a": 1}}'):
        (newest / COMPLETE).write_text(mark)
        assert faults(newest) == ["complete is broken"]


def test_the_mark_of_an_older_version_is_said_to_hold_no_sums(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    newest = checkpoint_to_resume(made)
    (newest / COMPLETE).write_bytes(b"")
    check_checkpoint(made, newest)
    assert "checkpoint-2 was written by an older emor3, without checksums" in capsys.readouterr().out


KNOWN_WITHOUT_SUMS = [(name, damage) for name in READ[:5] for damage in (cut, empty)]
KNOWN_WITHOUT_SUMS += [(name, remove) for name in READ[2:5]]  # other engines name their weights in other ways


@pytest.mark.parametrize(("name", "damage"), KNOWN_WITHOUT_SUMS)
def test_missing_and_short_files_show_under_the_mark_of_an_older_version_too(
    made: Path, name: str, damage: Any
) -> None:
    newest = checkpoint_to_resume(made)
    (newest / COMPLETE).write_bytes(b"")
    damage(newest / name)
    with pytest.raises(UserError, match=r"(cut short or broken|is missing); --from-checkpoint 1 goes on"):
        check_checkpoint(made, newest)


def test_a_step_without_a_checkpoint_is_refused_with_the_steps_that_have_one(made: Path) -> None:
    with pytest.raises(UserError, match="has no complete checkpoint of step 3; saved steps: 1, 2"):
        checkpoint_to_resume(made, 3)


def test_a_cold_started_policy_that_was_damaged_is_not_started_from(tmp_path: Path) -> None:
    folder = tmp_path / "cold_start"
    folder.mkdir()
    check_cold_start(folder)  # not made yet
    save_file({"weight": torch.ones(8)}, folder / "model.safetensors")
    mark_complete(folder)
    check_cold_start(folder)
    flip(folder / "model.safetensors")
    with pytest.raises(UserError, match=r"model.safetensors has other bytes; remove that folder, and --resume makes"):
        check_cold_start(folder)


@pytest.mark.parametrize("name", ["checkpoint-mine", "checkpoint-2-backup", "checkpoint-", "checkpoint-٣"])
@pytest.mark.parametrize("marked", [True, False])
def test_a_persons_own_folder_beside_the_checkpoints_is_neither_removed_nor_resumed(
    made: Path, name: str, marked: bool
) -> None:
    mine = made / "checkpoints" / name
    shutil.copytree(made / "checkpoints" / "checkpoint-2", mine)
    if not marked:
        (mine / COMPLETE).unlink()
    remove_incomplete(made)
    assert (mine / "model.safetensors").is_file()
    assert checkpoint_to_resume(made).name == "checkpoint-2"


# --- what a new run replaces ------------------------------------------------------------------------------------------


def recipe_of(run: Any, data: str = "x", model: str = "embedded", **changes: Any) -> Recipe:
    content = {"output_dir": str(run), "model": {"path": model}, "data": {"train": data}}
    return Recipe.model_validate(content | changes)


def write_head(run: Path) -> None:
    """What a run writes first."""
    write_json(run / "config.json", recipe_of(run).model_dump())
    write_json(run / "environment.json", {})


def begin(run: Any, **changes: Any) -> None:
    prepare_run(recipe_of(run, **changes), resume=False, overwrite=True)


def test_a_replaced_run_lies_aside_until_the_new_one_has_something_to_go_on_from(
    made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_head(made)
    begin(made, seed=1)
    assert f"is kept in {made / REPLACED} until the new one has its first checkpoint" in capsys.readouterr().out
    assert directory.latest_checkpoint(made) is None
    hint = directory.resume_hint(made)
    assert f"no step was saved yet; the run that it replaces is still in {made / REPLACED}" in hint
    (made / "metrics.jsonl").write_text('{"step": 1}\n')
    begin(made, seed=2)  # the run of seed 1 got nowhere: the one to keep is still the first
    assert records.read_json(made / "config.json")["seed"] == 2
    assert not (made / "metrics.jsonl").exists()
    aside = made / REPLACED
    assert records.read_json(aside / "config.json")["seed"] == 0
    assert directory.latest_checkpoint(aside).name == "checkpoint-2"
    write_checkpoint(made, 1)
    begin(made, seed=3)  # killed before it dropped the first: now the run of seed 2 is the one to keep
    assert records.read_json(aside / "config.json")["seed"] == 2


def test_a_kill_while_a_run_is_set_aside_loses_nothing_of_it(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_head(made)
    (made / "metrics.jsonl").write_text('{"step": 1}\n')
    moved, rename = [], type(made).rename

    def killed(self: Any, target: Any) -> None:
        if moved:
            raise KeyboardInterrupt
        moved.append(self.name)
        rename(self, target)

    monkeypatch.setattr(type(made), "rename", killed)
    with pytest.raises(KeyboardInterrupt):
        begin(made, seed=1)
    monkeypatch.setattr(type(made), "rename", rename)
    assert moved == ["config.json"]
    (made / "checkpoints").mkdir(exist_ok=True)
    begin(made, seed=1)
    kept = {"config.json", "environment.json", "metrics.jsonl", "checkpoints"}
    assert {path.name for path in (made / REPLACED).iterdir()} == kept


@pytest.mark.parametrize("content", [b"[1]", b"{}", b"\xff", b"", b'{"grpo": [1]}', b'{"model": null}', b"null"])
def test_whatever_a_runs_config_holds_resume_tells_it_on_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(UserError, match=r"config\.json|cannot resume"):
        prepare_run(recipe_of(tmp_path, grpo={"max_steps": 1}), resume=True, overwrite=False)


# --- trained ----------------------------------------------------------------------------------------------------------

GRPO = {
    "max_steps": 2,
    "num_generations": 2,
    "per_device_train_batch_size": 4,
    "max_completion_length": 6,
    "learning_rate": 1e-2,
    "save_steps": 1,
    **LEARNS,
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, scenes: str, random_checkpoint: str) -> Path:
    """A run of two steps that nothing ended."""
    return train(recipe_of(tmp_path_factory.mktemp("whole") / "run", scenes, random_checkpoint, grpo=GRPO))


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    return shutil.copytree(whole, tmp_path / "run")


@pytest.fixture
def command(
    main_with: Callable[..., int],
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
    scenes: str,
    random_checkpoint: str,
) -> Callable[..., tuple[int, str]]:
    """Run `emor3 train` on a copy of the run in this process; returns its exit status and what it said."""

    def call(*flags: Any, **changes: Any) -> tuple[Any, ...]:
        content = {
            "output_dir": str(tmp_path / "run"),
            "model": {"path": random_checkpoint},
            "data": {"train": scenes},
            "grpo": GRPO,
        }
        (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(content | changes))
        status = main_with("train", tmp_path / "recipe.yaml", *flags)
        return status, "".join(capfd.readouterr())

    return call


def content_of(folder: Path) -> dict[Path, bytes]:
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def same_policy(one: Path, other: Path) -> bool:
    weights = [load_file(folder / "final" / "model.safetensors") for folder in (one, other)]
    return all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


@pytest.mark.slow
def test_a_damaged_checkpoint_is_refused_untouched_and_the_one_before_ends_bit_for_bit_the_same(
    command: Callable[..., tuple[int, str]], run: Path, whole: Path
) -> None:
    newest = run / "checkpoints" / "checkpoint-2"
    flip(newest / "optimizer.pt")
    (run / "checkpoints" / "checkpoint-mine").mkdir()
    before = content_of(run)
    status, told = command("--resume")
    assert status == 2
    assert "checkpoint-2 is not as it was written: optimizer.pt has other bytes; --from-checkpoint 1 goes on" in told
    assert content_of(run) == before
    shutil.rmtree(run / "final")
    assert command("--from-checkpoint", "1")[0] == 0
    assert same_policy(run, whole)
    first = load_file(run / "checkpoints" / "checkpoint-1" / "model.safetensors")
    assert any(not torch.equal(first[name], value) for name, value in load_file(newest / "model.safetensors").items())
    assert [row["step"] for row in records.read_jsonl(run / "metrics.jsonl")] == [1, 2]
    assert faults(newest) == []
    assert (run / "checkpoints" / "checkpoint-mine").is_dir()


def test_every_file_that_resume_reads_is_in_the_mark(whole: Path) -> None:
    folder = whole / "checkpoints" / "checkpoint-2"
    listed = json.loads((folder / COMPLETE).read_text())["files"]
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert set(READ) <= set(listed)
    assert there - set(listed) <= {COMPLETE, "README.md", "training_args.bin"}


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("flag", ["--resume", "--overwrite"])
def test_a_train_beside_another_one_is_refused_and_touches_nothing(
    command: Callable[..., tuple[int, str]], run: Path, flag: str
) -> None:
    before = content_of(run)
    with held(run):
        status, told = command(flag)
    assert status == 2
    assert "is writing to" in told
    assert content_of(run) == before


@pytest.mark.parametrize("cold", [{}, {"cold_start": {"samples": 2, "steps": 1, "batch_size": 2}}])
def test_a_run_that_cannot_start_leaves_the_one_that_it_would_replace(
    command: Callable[..., tuple[int, str]], run: Path, cold: Any, random_checkpoint: str
) -> None:
    before = content_of(run)
    model = {"path": random_checkpoint, "lora": {"target_modules": ["nothing"]}}
    status, told = command("--overwrite", model=model, **cold)
    assert status == 2
    assert "TRL refuses these settings: Target modules" in told
    assert "Traceback" not in told
    assert content_of(run) == before


def test_a_run_that_cannot_start_in_a_new_folder_leaves_nothing(
    command: Callable[..., tuple[int, str]], tmp_path: Path, random_checkpoint: str
) -> None:
    model = {"path": random_checkpoint, "lora": {"target_modules": ["nothing"]}}
    assert command(model=model)[0] == 2
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_run_reached_by_a_link_is_replaced_and_goes_when_the_new_one_has_its_first_checkpoint(
    command: Callable[..., tuple[int, str]], run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.rename(tmp_path / "elsewhere")
    run.symlink_to("elsewhere")
    before = content_of(run)
    seen = []

    def look(_: Any) -> None:
        seen.append((run / REPLACED).is_dir() and content_of(run / REPLACED) == before)

    for step in (1, 2):
        at_step(monkeypatch, step, look)
    status, told = command("--overwrite", seed=3)
    assert status == 0, told
    assert seen == [True, False]
    assert run.is_symlink()
    assert not (run / REPLACED).exists()
    assert records.read_json(run / "config.json")["seed"] == 3
    assert directory.latest_checkpoint(run).name == "checkpoint-2"
