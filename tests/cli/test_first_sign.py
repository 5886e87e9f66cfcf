"""In a log file every command that loads something slow says so first."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import emor3.cli

LIGHT = {"cli", "errors", "printing", "revision", "runs", "settings", "signals", "stats", "storage", "method"}
LIGHT |= {"experiments.plan"}
"""Packages that a command imports within a second, and the one such module of another package."""


def late_starts(tree: ast.Module) -> Iterator[str]:
    """Functions that import something slow before they show a sign of life."""
    for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
        slow, said = [], [function.end_lineno or 0]
        for node in ast.walk(function):
            module = (node.module or "").removeprefix("emor3.") if isinstance(node, ast.ImportFrom) else "cli"
            if not {module, module.split(".")[0]} & LIGHT:
                slow.append(node.lineno)
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "say_start":
                said.append(node.lineno)
        if slow and min(slow) < min(said):
            yield function.name


@pytest.mark.parametrize("path", sorted(Path(emor3.cli.__path__[0]).glob("*.py")), ids=lambda path: path.stem)
def test_a_command_shows_a_sign_of_life_before_its_slow_imports(path: Path) -> None:
    assert list(late_starts(ast.parse(path.read_text(encoding="utf-8")))) == []


def test_an_import_before_the_sign_is_found() -> None:
    late = "def train():\n    from emor3.training.run import train\n    say_start('emor3 train')\n"
    assert list(late_starts(ast.parse(late))) == ["train"]
