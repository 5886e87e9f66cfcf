"""Waiting for other processes: however busy a machine is, it is no failure; one that hangs is, in the end."""

import subprocess
import time
from collections.abc import Callable

HANGS = 900
"""Seconds after which a process is taken to hang: many times what the slowest test needs on a busy machine."""


def wait_until(holds: Callable[[], bool], process: "subprocess.Popen[str]") -> None:
    """Return once `holds()`, asked again and again. Fails if the process ends before, or seems to hang."""
    deadline = time.monotonic() + HANGS
    while not holds():
        assert process.poll() is None, f"the process ended too soon: {process.communicate()}"
        assert time.monotonic() < deadline, "the process hangs"
        time.sleep(0.02)
