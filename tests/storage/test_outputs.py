"""What is written is there whole or not at all, and a place that takes nothing is one line that names it."""

import errno
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from emor3.cli.main import app
from emor3.data.importers import importing
from emor3.errors import UserError
from emor3.runs.predictions import RESULTS
from emor3.runs.recipe import build_recipe
from emor3.storage import outputs
from emor3.storage.outputs import hindrance, new_output, write_json, write_whole, written_to
from emor3.tools import export as exporting
from emor3.training.run import train
from made_up import prediction, prepare_run, save_evaluation


@pytest.fixture
def below_a_file(tmp_path: Path) -> Path:
    """A place that nobody can write to, root included."""
    (tmp_path / "file").touch()
    return tmp_path / "file" / "below"


@pytest.fixture
def evaluation(tmp_path: Path, scenes: str) -> Path:
    (image, *_) = (path for path in sorted(os.listdir(f"{scenes}/images")))
    item = prediction("joy", "joy")
    sample = item.sample.__class__(**{**vars(item.sample), "images": (f"{scenes}/images/{image}",)})
    return save_evaluation(tmp_path / "evaluation", {"d": [item.__class__(**{**vars(item), "sample": sample})]})


@pytest.fixture
def run(tmp_path: Path, scenes: str, random_checkpoint: str) -> Path:
    content = {"output_dir": str(tmp_path / "run"), "model": {"path": random_checkpoint}, "data": {"train": scenes}}
    folder = prepare_run(build_recipe(content, [], "here"), resume=False, overwrite=False)
    shutil.copytree(random_checkpoint, folder / "final")
    return folder


@pytest.mark.parametrize("use", ["share", "report", "stats", "check"])
def test_a_page_or_table_that_cannot_be_written_is_one_line(
    use: str,
    evaluation: Path,
    below_a_file: Path,
    scenes: str,
    main_with: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = {
        "share": ["share", evaluation, below_a_file],
        "report": ["report", evaluation, "-o", below_a_file / "page.html"],
        "stats": ["data", "stats", scenes, "--html", below_a_file / "page.html"],
        "check": ["data", "check", scenes, "--rows-only", "--faults", below_a_file],
    }[use]
    assert main_with(*arguments) == 2
    told = capsys.readouterr().err
    assert len(told.splitlines()) == 1
    assert str(below_a_file.parent) in told
    assert re.search("Not a directory|File exists", told)


@pytest.mark.parametrize("use", ["train", "evaluate", "export", "import", "sample", "quickstart", "cache"])
def test_a_place_that_cannot_be_written_to_is_named_before_any_work(
    use: str, run: Path, below_a_file: Path, scenes: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    recipe = build_recipe(
        {"output_dir": str(below_a_file), "model": {"path": "embedded"}, "data": {"train": scenes}}, [], "here"
    )
    calls = {
        "train": lambda: train(recipe),
        "evaluate": lambda: app(
            ["evaluate", "-m", "embedded", "-d", scenes, "-o", str(below_a_file)], standalone_mode=False
        ),
        "export": lambda: exporting.export(run, below_a_file),
        "import": lambda: importing.import_data("folders", class_folders(tmp_path), below_a_file),
        "sample": lambda: app(
            ["data", "sample", scenes, str(below_a_file), "--size", "train=8"], standalone_mode=False
        ),
        "quickstart": lambda: app(["quickstart", "-o", str(below_a_file)], standalone_mode=False),
        "cache": lambda: app(["data", "stats", "embedded:scenes8"], standalone_mode=False),
    }
    monkeypatch.setenv("EMOR3_CACHE", str(below_a_file))
    with pytest.raises(UserError, match=r"cannot write to .*/file/?\S*: (Not a directory|File exists)"):
        calls[use]()


def class_folders(tmp_path: Path) -> Path:
    from PIL import Image

    for label in ("joy", "fear"):
        (tmp_path / "source" / label).mkdir(parents=True, exist_ok=True)
        for place in range(4):
            Image.new("RGB", (8, 8), (place, 0, 0)).save(tmp_path / "source" / label / f"{place}.png")
    return tmp_path / "source"


def full(*_: Any, **__: Any) -> Any:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_leaves_no_export_and_the_next_try_finds_the_place_free(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(UserError, match=r"cannot write to .*out: the disk or a quota is full"):
        exporting.export(run, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    monkeypatch.undo()
    assert (exporting.export(run, tmp_path / "out") / "config.json").is_file()


def test_a_full_disk_leaves_no_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = class_folders(tmp_path)
    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(UserError, match="the disk or a quota is full"):
        importing.import_data("folders", source, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


KILLED = """
import os, sys
from pathlib import Path
from emor3.storage.outputs import new_output
with new_output(Path(sys.argv[1])) as folder:
    (folder / "half").touch()
    os._exit(9)
"""


def test_what_a_killed_command_left_is_never_under_the_name_and_blocks_no_next_try(tmp_path: Path) -> None:
    out = tmp_path / "out"
    subprocess.run([sys.executable, "-c", KILLED, str(out)], check=False, env=os.environ)
    assert not out.exists()
    assert list(tmp_path.iterdir())
    with new_output(out) as folder:
        assert not list(folder.iterdir())
        (folder / "whole").touch()
    assert [path.name for path in out.iterdir()] == ["whole"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_the_place_where_a_disk_is_mounted_is_filled_and_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "disk"
    out.mkdir()
    place = out.stat().st_ino
    monkeypatch.setattr(outputs.os.path, "ismount", lambda path: str(path) == str(out))
    with new_output(out) as folder:
        (folder / "a").touch()
        assert [path.name for path in tmp_path.iterdir()] == ["disk"]
    assert (out.stat().st_ino, [path.name for path in out.iterdir()]) == (place, ["a"])


def test_a_page_that_found_no_room_is_not_there_and_the_old_one_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "page.html").write_text("old")
    monkeypatch.setattr("emor3.storage.outputs.os.replace", full)
    with pytest.raises(UserError, match=r"cannot write to .*page\.html: the disk or a quota is full"):
        write_whole(tmp_path / "page.html", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]
    assert (tmp_path / "page.html").read_text() == "old"


def test_links_are_written_through(tmp_path: Path) -> None:
    (tmp_path / "target").touch()
    (tmp_path / "link").symlink_to(tmp_path / "target")
    write_whole(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_text() == "new"


def test_a_result_that_found_no_room_leaves_no_draft(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("emor3.storage.outputs.os.replace", full)
    with pytest.raises(OSError, match="No space"):
        write_json(tmp_path / RESULTS, {})
    assert not list(tmp_path.iterdir())


def test_a_full_standard_output_is_one_line(evaluation: Path) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("this system has no file that is always full")
    command = [sys.executable, "-c", "from emor3.cli.main import main; main()", "compare", evaluation, evaluation]
    with open("/dev/full", "w") as nowhere:
        done = subprocess.run(command, stdout=nowhere, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "emor3 compare: loading\nerror: cannot write the output: No space left on device\n"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(errno.EROFS, "x"), "Read-only file system"),
        (OSError(errno.EDQUOT, "x"), "full"),
        (OSError(errno.ENOENT, "x"), None),
        (RuntimeError("PytorchStreamWriter failed writing file data/0"), "full"),
        (RuntimeError("shapes do not match"), None),
        (RuntimeError("I/O error: Permission denied (os error 13)"), "Permission denied"),
    ],
)
def test_what_hinders_writing_is_told_from_other_errors(error: Any, told: Any) -> None:
    assert hindrance(error) is None if told is None else told in hindrance(error)
    with pytest.raises(type(error) if told is None else UserError), written_to("here"):
        raise error
