"""The notebooks run as they stand on the embedded model, and those that Colab opens are the scripts beside them."""

import json
import os
import subprocess
import sys
from importlib import util
from pathlib import Path
from typing import Any

import pytest

from write_notebooks import notebook_text, scripts

LARGEST = 60_000
"""Characters of a notebook with all that its cells print and draw."""


def by_name(path: Path) -> str:
    return path.stem


def test_there_are_four_notebooks() -> None:
    """Else the tests below could run on none."""
    assert len(scripts()) == 4


@pytest.mark.parametrize("script", scripts(), ids=by_name)
def test_a_notebook_is_its_script(script: Path) -> None:
    """After a change: `make notebooks`."""
    assert script.with_suffix(".ipynb").read_text(encoding="utf-8") == notebook_text(script)


@pytest.mark.parametrize("script", scripts(), ids=by_name)
def test_a_notebook_installs_the_package_where_it_is_missing_and_only_there(
    script: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = next(cell for cell in json.loads(notebook_text(script))["cells"] if cell["cell_type"] == "code")
    called: list[Any] = []
    monkeypatch.setattr(subprocess, "run", lambda words, check: called.append((words, check)))
    source = "".join(first["source"])
    exec(source, {})
    assert called == []
    monkeypatch.setattr(util, "find_spec", lambda name: None)
    with pytest.raises(AssertionError, match="put in the address"):
        exec(source, {})
    exec(source.replace("OWNER/", "someone/"), {})
    [(words, check)] = called
    assert check
    assert words[:4] == [sys.executable, "-m", "pip", "install"]
    assert words[-1].startswith("emor3 @ git+https://")


@pytest.mark.slow
@pytest.mark.parametrize("script", scripts(), ids=by_name)
def test_a_notebook_runs_and_prints_little(script: Path, tmp_path: Path) -> None:
    path = tmp_path / f"{script.stem}.ipynb"
    path.write_text(notebook_text(script), encoding="utf-8")
    call = ["pytest", "--nbmake", "--nbmake-timeout=900", "--overwrite", "-p", "no:cacheprovider", "-p", "no:xdist"]
    around = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [sys.executable, "-m", *call, f"--rootdir={tmp_path}", str(path)],
        cwd=tmp_path,
        env=around,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    executed = path.read_text(encoding="utf-8")
    printed = [output for cell in json.loads(executed)["cells"] for output in cell.get("outputs", ())]
    assert printed
    assert "error: " not in "".join(json.dumps(output) for output in printed)  # a command's, which ends no cell
    assert len(executed) < LARGEST
