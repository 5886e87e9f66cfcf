"""What is printed: texts of data and models are shown and never obeyed, in any encoding, and in one place."""

import ast
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from rich.progress import Progress
from rich.table import Table

import emor3
from emor3.errors import one_line, printable
from emor3.printing import console, say, show
from emor3.progress import DESCRIPTION
from emor3.signals import write_line

PACKAGE = Path(emor3.__file__).parent
CLEAR, RIGHT_TO_LEFT = "\x1b[2J", "\u202e"
HOSTILE = f"joy{CLEAR}{RIGHT_TO_LEFT}yoj\x07\x9b31m\udc80"


def obeyed(text: str) -> list[Any]:
    return [c for c in text if c != "\n" and not c.isprintable()]


def test_controls_directions_and_broken_text_are_escaped_and_line_breaks_stay() -> None:
    assert printable(HOSTILE) == r"joy\x1b[2J\u202eyoj\x07\x9b31m\udc80"
    assert printable("a\nb\u2028c\rd") == "a\nb\\u2028c\\rd"
    assert one_line("a\nb\u2028c") == "a b c"
    assert printable("é 喜び \u06cc\u200c 👩\u200d👧") == "é 喜び \u06cc\u200c 👩\u200d👧"


def test_a_text_is_said_escaped_on_either_stream(capsys: pytest.CaptureFixture[str]) -> None:
    say(HOSTILE)
    say(HOSTILE, error=True)
    told = capsys.readouterr()
    assert told.out == told.err == printable(HOSTILE) + "\n"


def test_the_line_that_a_signal_leaves_is_escaped(capfd: pytest.CaptureFixture[str]) -> None:
    write_line(f"resume with {HOSTILE}")
    assert capfd.readouterr().err == f"resume with {printable(HOSTILE)}\n"


def test_titles_headings_and_cells_of_a_table_are_only_texts(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table(HOSTILE, title=HOSTILE, caption="[red]:joy:[/red]")
    table.add_row(HOSTILE)
    show(table, at_least=100)
    shown = capsys.readouterr().out
    assert obeyed(shown) == []
    assert shown.count(r"\u202eyoj") == 3
    assert "[red]:joy:[/red]" in shown  # neither a colour nor a picture


def test_brackets_in_the_name_of_what_a_bar_is_of_are_only_brackets() -> None:
    bar = Progress(DESCRIPTION, console=console(width=80), disable=True)
    bar.add_task("data[/x]")
    assert DESCRIPTION.render(bar.tasks[0]).plain == "data[/x]"


def prints(node: Any) -> Any:
    """What a call prints with, where it goes past `emor3.printing`."""
    if isinstance(node, ast.ImportFrom) and node.module == "rich.console":
        return "rich.console"
    if not isinstance(node, ast.Call):
        return None
    name = ast.unparse(node.func)
    return name if name in ("print", "typer.echo", "typer.secho", "sys.stdout.write", "sys.stderr.write") else None


def test_nothing_is_printed_past_the_one_place() -> None:
    found = [
        f"{path.relative_to(PACKAGE)}:{node.lineno} {prints(node)}"
        for path in PACKAGE.rglob("*.py")
        if path.name != "printing.py"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if prints(node)
    ]
    assert found == []


@pytest.fixture
def hostile_folder(tmp_path: Path) -> Path:
    labels = ["fürchterlich" + RIGHT_TO_LEFT, "joy" + RIGHT_TO_LEFT + "!"]
    for place in range(4):
        Image.effect_noise((64, 64), 20 + place).save(tmp_path / f"{place}.png")
    rows = [{"file_name": f"{place}.png", "label": labels[place % 2]} for place in range(4)]
    (tmp_path / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def main_in(
    encoding: str, monkeypatch: pytest.MonkeyPatch, main_with: Callable[..., int], *arguments: Any
) -> tuple[int, str, str]:
    """Status and bytes of standard output and error of a command whose streams have an encoding."""
    streams = [io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2)]
    monkeypatch.setattr(sys, "stdout", streams[0])
    monkeypatch.setattr(sys, "stderr", streams[1])
    status = main_with(*arguments)
    for stream in streams:
        stream.flush()
    return status, *(stream.buffer.getvalue().decode(encoding, "replace") for stream in streams)


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
@pytest.mark.parametrize("command", ["check", "stats"])
def test_hostile_labels_of_a_data_folder_are_shown_in_any_encoding(
    main_with: Callable[..., int], monkeypatch: pytest.MonkeyPatch, hostile_folder: Path, command: str, encoding: str
) -> None:
    status, out, err = main_in(encoding, monkeypatch, main_with, "data", command, hostile_folder)
    assert (status, err.count("\n"), err[:6]) == (0, 1, "next: ")
    assert obeyed(out) == []
    assert "rchterlich\\u202e" in out
    assert ("fürchterlich" if encoding == "utf-8" else r"f\xfcrchterlich") in out.replace("\n", "")


@pytest.mark.parametrize(
    "arguments", [("--help",), ("evaluate", "--help"), ("score", "nö.jsonl"), ("data", "stats", "embedded:scenes8")]
)
def test_no_command_ends_in_a_traceback_for_its_output_s_encoding(
    main_with: Callable[..., int], monkeypatch: pytest.MonkeyPatch, arguments: tuple[Any, ...]
) -> None:
    status, out, err = main_in("ascii", monkeypatch, main_with, *arguments)
    assert status == (2 if arguments[0] == "score" else 0)
    assert out + err
