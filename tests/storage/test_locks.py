"""One command at a time on one output, and a lock that goes with the process that held it."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from emor3.cli import main as cli
from emor3.errors import UserError
from emor3.runs.recipe import load_recipe
from emor3.storage import locks
from emor3.storage.locks import held, name_held
from emor3.storage.outputs import fresh_output, write_json

HOLDER = """
import sys, time
from pathlib import Path
from emor3.storage.locks import held
with held(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(locks, "PATIENCE", 0.0)


def hold(folder):
    """A process that holds a folder."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    return process


def refused(folder, lock=held):
    with pytest.raises(UserError) as error, lock(folder):
        pytest.fail("taken by two")
    return str(error.value)


def test_a_second_process_is_refused_with_the_first_ones_number_and_takes_over_when_that_is_killed(tmp_path):
    process = hold(tmp_path / "run")
    told = refused(tmp_path / "run")
    assert f"another emor3 command (process {process.pid}) is writing to {tmp_path / 'run'}" in told
    process.kill()
    process.wait()
    with held(tmp_path / "run"):
        (tmp_path / "run" / "written").touch()
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["written"]


def test_a_lock_waits_for_a_process_that_is_about_to_be_gone(tmp_path, monkeypatch):
    process = hold(tmp_path)
    threading.Timer(0.2, os.kill, (process.pid, signal.SIGKILL)).start()
    monkeypatch.setattr(locks, "PATIENCE", 30.0)
    with held(tmp_path):
        pass
    process.wait()


def test_a_folder_in_which_nothing_was_written_is_gone_again_and_one_that_was_there_stays(tmp_path):
    (tmp_path / "there").mkdir()
    for name in ("there", "new", "above/new"):
        with held(tmp_path / name):
            assert (tmp_path / name).is_dir()
    with name_held(tmp_path / "above" / "new"):
        assert not (tmp_path / "above" / "new").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_a_folder_is_the_same_whatever_path_leads_to_it(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with held(tmp_path / "real"):
        refused(tmp_path / "link")
    with name_held(tmp_path / "new"):
        refused(tmp_path / "link" / ".." / "new", name_held)
        assert not (tmp_path / "new").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "real"]


def test_the_lock_of_a_run_that_began_where_a_moved_one_was_is_not_removed(tmp_path):
    with held(tmp_path / "run"):
        (tmp_path / "run").rename(tmp_path / "moved")
        process = hold(tmp_path / "run")
    refused(tmp_path / "run")
    process.kill()
    process.wait()


@pytest.mark.parametrize("what", ["a file", "a link that leads nowhere"])
def test_what_is_no_folder_is_refused_on_one_line(tmp_path, what):
    out = tmp_path / "out"
    if what == "a file":
        out.touch()
    else:
        out.symlink_to("nowhere")
    assert f"cannot write to {out}: " in refused(out)


def test_a_file_system_without_locks_is_said_and_does_not_stop_anyone(tmp_path, monkeypatch, capfd):
    def flock(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    with held(tmp_path):
        pass
    assert "has no locks (No locks available)" in capfd.readouterr().err


def test_two_evaluations_without_an_output_do_not_take_the_same_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with fresh_output(None, "evaluation") as first, fresh_output(None, "evaluation") as second:
        assert (first, second) == (Path("runs/evaluation-1"), Path("runs/evaluation-2"))


RECIPE = (
    "output_dir: out\nmodel: {{path: {model}}}\ndata: {{train: {data}}}\ngrpo: {{max_steps: 1, num_generations: 2}}"
)
PLAN = """
output_dir: out
seeds: [0]
domains: [{data}]
tests: [{data}]
reference: emo_r3
quick: {{methods: [emo_r3]}}
base: {{model: {{path: {model}}}, grpo: {{max_steps: 1}}}}
methods: {{emo_r3: {{}}}}
"""
COMMANDS = {
    "train": ["train", "recipe.yaml", "--resume"],
    "train over": ["train", "recipe.yaml", "--overwrite"],
    "evaluate": ["evaluate", "-m", "embedded", "-d", "{data}", "-o", "out"],
    "quickstart": ["quickstart", "-o", "out"],
    "reproduce": ["reproduce", "plan.yaml"],
    "tiny": ["tiny", "build", "out"],
}
NEW_FOLDERS = {
    "export": ["export", "run", "out"],
    "import": ["data", "import", "folders", "{data}", "out"],
    "sample": ["data", "sample", "{data}", "out", "--size", "train=8"],
}


@pytest.mark.parametrize("name", [*COMMANDS, *NEW_FOLDERS])
def test_every_command_that_writes_a_folder_is_refused_beside_another_before_it_works(
    name, tmp_path, monkeypatch, capsys, scenes, random_checkpoint
):
    monkeypatch.chdir(tmp_path)
    places = {"data": scenes, "model": random_checkpoint}
    Path("recipe.yaml").write_text(RECIPE.format(**places))
    Path("plan.yaml").write_text(PLAN.format(**places))
    Path("run/final").mkdir(parents=True)  # as far as an export looks before its output
    for record in ("final/config.json", "environment.json"):
        Path("run", record).write_text("{}")
    write_json(Path("run/config.json"), load_recipe("recipe.yaml").model_dump())
    arguments = [part.format(**places) for part in (COMMANDS | NEW_FOLDERS)[name]]
    monkeypatch.setattr(sys, "argv", ["emor3", *arguments])
    lock = held if name in COMMANDS else name_held
    with lock(Path("out")), pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert "is writing to" in capsys.readouterr().err
    assert not Path("out").exists()
