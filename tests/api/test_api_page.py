"""docs/api.md: its examples run as they stand, and it tells every public name."""

import ast
import re
from pathlib import Path

import pytest

import emor3
from places import ROOT

PAGE = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(python|text)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.slow
def test_the_examples_of_the_page_run_and_print_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    place: dict[str, object] = {}
    printed = ""
    for kind, text in BLOCKS:
        if kind == "text":
            assert printed == text
            continue
        capsys.readouterr()
        exec(compile(text, "docs/api.md", "exec"), place)
        printed = capsys.readouterr().out
    assert (tmp_path / "own_loop").is_dir()


def test_the_page_tells_every_public_name() -> None:
    table = PAGE[PAGE.index("## All names") :]
    told = set(re.findall(r"`(\w+)`", " ".join(re.findall(r"^\| (`.*?) \|", table, re.MULTILINE))))
    assert told == set(emor3.__all__) - {"__version__"}


def test_every_public_name_is_there_documented_and_known_to_type_checkers() -> None:
    for name in emor3.__all__:
        assert getattr(emor3, name).__doc__, name
    imported = {
        alias.asname: f"{node.module}.{alias.name}"
        for node in ast.walk(ast.parse(Path(emor3.__file__).read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname
    }
    table = {name: where if ":" in where else f"{where}:{name}" for name, where in emor3._PUBLIC.items()}
    assert imported == {name: f"emor3.{where.replace(':', '.')}" for name, where in table.items()}
    assert {*table, "__version__"} == set(emor3.__all__) <= set(dir(emor3))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"module 'emor3' has no attribute 'lode_policy'"):
        emor3.lode_policy  # noqa: B018
