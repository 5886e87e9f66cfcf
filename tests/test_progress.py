"""In a log file long work tells every minute how far it is; on a terminal there are no such lines."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console
from rich.progress import BarColumn

from emor3 import progress
from emor3.printing import say_start
from emor3.progress import Bar, Lines, alive, told


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_bar_in_a_log_file_is_a_line_a_minute_and_one_at_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    with Bar("steps", BarColumn(), get_time=clock) as bar:
        task = bar.add_task("EMO-R3", total=None)
        bar.update(task, completed=40, total=100)  # a resumed run: what was done before says nothing of the time left
        for step in (41, 42, 43, 44):
            clock.now += 25
            bar.update(task, completed=step, total=100, description=f"EMO-R3  reward 0.{step}")
    # 3 steps in 75 s, so 57 more take 1,425 s = 23 min 45 s; step 44 comes at 100 s, 40 s before the next line
    assert capsys.readouterr().out.splitlines() == [
        "EMO-R3 reward 0.43: 43 of 100 steps in 0:01:15, 0:23:45 left",
        "EMO-R3 reward 0.44: 44 of 100 steps in 0:01:40, 0:23:20 left",
    ]


def test_a_bar_that_goes_away_tells_nothing_of_short_work(capsys: pytest.CaptureFixture[str]) -> None:
    with Bar("answers", BarColumn(), error=True, transient=True) as bar:
        bar.advance(bar.add_task("scenes", total=4), 4)
    told_of = capsys.readouterr()
    assert (told_of.out, told_of.err) == ("", "")


def test_each_piece_of_work_has_a_time_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    with Bar("answers", BarColumn(), error=True, transient=True, get_time=clock) as bar:
        first = bar.add_task("a", total=10)
        clock.now = 59.0
        bar.advance(first, 10)
        second = bar.add_task("b", total=20)
        clock.now = 69.0
        bar.advance(second, 5)
    # 5 of 20 in the 10 s since it began: 30 s are left
    assert capsys.readouterr().err == "b: 5 of 20 answers in 0:00:10, 0:00:30 left\n"


@pytest.mark.parametrize("counted", [True, False])
def test_work_that_stands_still_for_minutes_tells_that_it_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], counted: bool
) -> None:
    monkeypatch.setattr(progress, "EVERY", 0.0)  # a line is due whenever the thread looks, every 10 ms
    monkeypatch.setattr(progress, "BEAT", 0.01)
    told_of = ""
    with Bar("steps", BarColumn()) if counted else alive("start model") as bar:
        if counted:
            bar.add_task("EMO-R3", total=9, completed=3)
        while told_of.count("\n") < 3:
            told_of += capsys.readouterr().out
    line = "EMO-R3: 3 of 9 steps in 0:00:0" if counted else "start model: 0:00:0"
    assert [read[: len(line)] for read in told_of.splitlines()] == [line] * told_of.count("\n")
    capsys.readouterr()
    time.sleep(0.05)
    assert capsys.readouterr().out == ""  # the thread ended with the work


def test_items_of_unknown_number_are_counted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "EVERY", 0.0)  # every item is a minute late
    assert list(told("ab", "folder\x1b[2J", "rows")) == ["a", "b"]
    lines = capsys.readouterr().err.splitlines()
    assert lines == [f"folder\\x1b[2J: {number} rows in 0:00:00" for number in (1, 2)]


def test_on_a_terminal_and_on_other_ranks_there_are_no_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", "1")
    assert Lines("steps").silent
    monkeypatch.setenv("RANK", "0")
    assert not Lines("steps").silent
    monkeypatch.setattr(progress, "console", lambda error: Console(force_terminal=True, stderr=error))
    lines = Lines("steps")
    lines.write("x", 1)
    assert lines.silent
    assert capsys.readouterr().out == ""


def test_a_log_file_has_a_sign_of_life_before_the_heavy_imports(tmp_path: Path) -> None:
    code = "import sys; from emor3.printing import say_start; say_start('emor3 train'); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stderr, done.stdout) == ("emor3 train: loading\n", "False\n")


def test_a_terminal_has_it_too(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    say_start("emor3 train")
    assert capsys.readouterr().err == "emor3 train: loading\n"


def test_once_the_imports_are_done_no_sign_of_life_is_needed(
    main_with: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    import torch  # noqa: F401

    assert main_with("data", "check", "embedded:scenes8", "--rows-only") == 0
    assert "loading" not in capsys.readouterr().err
