"""`python -m emor3` is the command `emor3`."""

import subprocess
import sys

from emor3 import __version__
from emor3.revision import commit


def test_the_package_is_run_as_a_module() -> None:
    at = commit()
    done = subprocess.run([sys.executable, "-m", "emor3", "--version"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"emor3 {__version__}{f' (commit {at})' if at else ''}\n")


def test_bad_input_ends_the_module_as_it_ends_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "emor3", "score", "nowhere"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: cannot read nowhere")
