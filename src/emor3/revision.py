"""The commit that the package runs from, if it runs from a checkout."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
"""The checkout; of an installed package some folder of Python."""


def commit(root: Path = ROOT) -> str | None:
    """Commit of the checkout as git describes it, with `-dirty` if files differ; None if it is none, or git is missing.

    A package that is installed below another repository, as in its .venv, has none.
    """
    if not (root / ".git").exists() or not (root / "src" / "emor3").is_dir():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() or None
