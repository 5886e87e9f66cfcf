"""The growth sweep and the build of the tiny model stand beside the package, and their commands find them there."""

from pathlib import Path
from typing import Any

import pytest
from setuptools import Distribution
from typer.testing import CliRunner

import emor3
import growth
from emor3.cli.main import app
from emor3.errors import UserError
from places import ROOT

COMMANDS = {("bench", "growth"): "benchmarks/growth.py", ("tiny", "build"): "scripts/build_tiny.py"}


def test_the_wheel_holds_the_package_and_its_data_but_no_script_of_the_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    project = Distribution({"script_name": "setup.py"})
    project.parse_config_files()
    project.include_package_data = False  # what is declared; else setuptools writes an egg-info to ask for more
    project.set_defaults()
    build = project.get_command_obj("build_py")
    build.build_lib = str(tmp_path)
    build.ensure_finalized()
    files = {path.removeprefix(f"{tmp_path}/") for path in build.get_outputs(include_bytecode=False)}
    assert {path.split("/")[0] for path in files} == {"emor3"}
    assert {path for path in files if path.startswith("emor3/recipes/")} == {
        f"emor3/{path.relative_to(ROOT)}" for path in (ROOT / "recipes").glob("**/*.yaml")
    }
    assert {"emor3/tiny/checkpoint/model.safetensors", "emor3/tiny/world.py", "emor3/cli/main.py"} <= files
    assert [path for path in files if "growth" in path] == []
    tiny = {path.removeprefix("emor3/tiny/") for path in files if path.startswith("emor3/tiny/")}
    assert not tiny & {"build.py", "examples.py", "model.py", "build_tiny.py"}


def test_growth_is_measured_from_a_checkout_and_written_as_table_figure_and_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cost = {"cpu_seconds": 1.0, "positions": 2000, "encoded": 3, "processed": 4}
    # Our own: the sweep as it is trains dozens of times.
    monkeypatch.setattr(growth, "_measure", lambda way, settings: cost)
    done = CliRunner().invoke(app, ["bench", "growth", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert "| completions per image (G): 16 | 1.00 | 1.00 | 1.00 |" in done.output
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["growth.json", "growth.md", "growth.png"]


@pytest.mark.parametrize(("command", "script"), COMMANDS.items(), ids=[" ".join(command) for command in COMMANDS])
def test_an_installed_package_says_on_one_line_that_a_checkout_is_needed(
    command: str, script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(emor3, "__file__", str(tmp_path / "lib" / "site-packages" / "emor3" / "__init__.py"))
    refused = CliRunner().invoke(app, [*command, str(tmp_path / "out")]).exception
    assert isinstance(refused, UserError)
    name = " ".join(command)
    assert str(refused) == f"emor3 {name} runs {script}, which is not installed: clone emor3 and run it there"
    assert not (tmp_path / "out").exists()
