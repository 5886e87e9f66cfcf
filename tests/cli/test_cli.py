"""The command line: every command explains itself, wrong use ends with status 2, and nothing is cut at 80 columns."""

import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from emor3 import __version__
from emor3.cli import main as command_line
from emor3.revision import commit

COMMANDS = {
    *(("score",), ("train",), ("evaluate",), ("compare",), ("report",), ("share",), ("predict",), ("reproduce",)),
    *(("quickstart",), ("demo",), ("review",)),
    *(("data",), ("data", "check"), ("tiny",), ("tiny", "build")),
}


def run(*arguments: Any) -> Result:
    return CliRunner(env={"COLUMNS": "80"}).invoke(command_line.app, list(arguments))


def test_the_version_is_printed_with_the_commit_of_the_checkout() -> None:
    at = commit()
    assert run("--version").output == f"emor3 {__version__}{f' (commit {at})' if at else ''}\n"


def test_the_commit_is_that_of_a_checkout_and_of_no_repository_around_an_installed_package(tmp_path: Path) -> None:
    def git(*command: str) -> str:
        identity = ("-c", "user.name=a", "-c", "user.email=a@b")
        done = subprocess.run(["git", "-C", tmp_path, *identity, *command], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    git("init", "--quiet")
    git("commit", "--quiet", "--allow-empty", "--message", "first")
    assert commit(tmp_path) is None
    (tmp_path / "src" / "emor3").mkdir(parents=True)
    assert commit(tmp_path) == git("rev-parse", "--short", "HEAD")
    (tmp_path / "src" / "emor3" / "new.py").touch()
    git("add", "src")
    assert commit(tmp_path) == git("rev-parse", "--short", "HEAD") + "-dirty"
    assert commit(tmp_path / "src") is None


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete_commands_and_options(shell: str) -> None:
    def completed(words: str, number: int) -> str:
        asked = {"_TYPER_COMPLETE_ARGS": words, "COMP_WORDS": words, "COMP_CWORD": str(number)}
        asked |= {"_EMOR3_COMPLETE": f"complete_{shell}", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
        return CliRunner(env=asked).invoke(command_line.app, prog_name="emor3").output

    assert "train" in completed("emor3 tr", 1)
    assert "report" not in completed("emor3 tr", 1)
    assert "--resume" in completed("emor3 train --res", 2)
    assert "--install-completion" in run("--help").output


def test_the_commands_are_listed_with_whole_sentences() -> None:
    for group in ((), ("data",), ("tiny",)):
        listed = re.findall(r"^  ([a-z]+)  +(\S.*)$", run(*group, "--help").output.split("Commands:")[1], re.M)
        assert listed
        for name, sentence in listed:
            assert sentence.endswith("."), f"{name}: {sentence}"
            assert not sentence.endswith("..."), f"{name}: {sentence}"


@pytest.mark.parametrize("command", sorted(COMMANDS), ids=" ".join)
def test_every_command_explains_itself_and_refuses_an_unknown_option(command: str) -> None:
    told = run(*command, "--help")
    assert (told.exit_code, run(*command, "-h").output) == (0, told.output)
    assert all(len(line) <= 80 for line in told.output.splitlines())
    wrong = run(*command, "--nonsense")
    assert wrong.exit_code == 2
    assert "No such option" in wrong.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nonsense"], "No such command 'nonsense'"),
        (["data", "chekc"], "Did you mean 'check'"),
        (["train"], "Missing argument 'RECIPE'"),
        (["train", "a.yaml", "b.yaml"], "unexpected extra argument"),
        (["score"], "Missing argument 'FILE'"),
        (["quickstart", "--seed", "x"], "Invalid value for '--seed'"),
        (["evaluate", "--batch-size", "0"], "Invalid value for '--batch-size'"),
        (["score", "x", "--formula", "mine"], "Invalid value for '--formula'"),
    ],
)
def test_wrong_use_ends_with_status_2_and_a_hint(arguments: list[Any], message: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert message in result.output


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["train", "--sett", "a=1"], "emor3 train: No such option: --sett"),
        (["data", "chekc"], "emor3 data: No such command 'chekc'"),
        (["score"], "emor3 score: Missing argument 'FILE'"),
        (["--no-such"], "emor3: No such option: --no-such"),
        (["bench", "step", "--rounds", "0"], "emor3 bench step: Invalid value for '--rounds'"),
    ],
)
def test_wrong_use_is_told_in_one_line(
    arguments: list[str], told: str, main_with: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main_with(*arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(f"error: {told}")
    assert printed.err.endswith(f"; {told.split(':')[0]} -h tells what it takes\n")
    assert printed.err.count("\n") == 1


def test_a_group_called_without_a_command_shows_its_help(
    main_with: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main_with("data") == 2
    assert "Usage: emor3 data" in capsys.readouterr().err


def test_no_command_reports_home(main_with: Callable[..., int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_DISABLE_TELEMETRY", raising=False)
    assert main_with("--version") == 0
    assert os.environ.pop("HF_HUB_DISABLE_TELEMETRY") == "1"


def test_main_prints_a_fault_as_one_line_and_ends_with_status_2(
    main_with: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main_with("score", "no\x1b[2J\nsuch.jsonl") == 2
    assert capsys.readouterr().err == "error: cannot read no\\x1b[2J such.jsonl: No such file or directory\n"


def test_data_check_prints_its_report_and_tells_by_its_status_whether_training_would_break(
    scenes: str, tmp_path: Path
) -> None:
    assert run("data", "check", scenes).exit_code == 0
    for name in ("a", "b"):
        Image.new("RGB", (64, 64)).save(tmp_path / f"{name}.png")
    rows = [{"file_name": "a.png", "label": "joy"}, {"file_name": "c.png", "label": "fear"}]
    (tmp_path / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = run("data", "check", str(tmp_path))
    assert result.exit_code == 1
    assert "bad rows" in result.output
    assert "breaks training" in result.output
