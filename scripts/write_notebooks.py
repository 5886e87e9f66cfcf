"""Write notebooks/*.ipynb, which Colab and Jupyter open, from the scripts beside them, without outputs.

python scripts/write_notebooks.py
"""

from pathlib import Path

import jupytext

FOLDER = Path(__file__).parents[1] / "notebooks"
CELL = "cell-{}"


def notebook_text(script: Path) -> str:
    """A script in jupytext's percent format as a notebook; the same script gives the same text."""
    notebook = jupytext.read(script, fmt="py:percent")
    for place, cell in enumerate(notebook.cells):
        cell["id"] = CELL.format(place)  # else drawn at random
    notebook.metadata.pop("jupytext", None)
    return str(jupytext.writes(notebook, fmt="ipynb")) + "\n"


def scripts() -> list[Path]:
    """All scripts, by name."""
    return sorted(FOLDER.glob("*.py"))


if __name__ == "__main__":
    for path in scripts():
        path.with_suffix(".ipynb").write_text(notebook_text(path), encoding="utf-8")
