"""Waiting for other processes: however busy a machine is, it is no failure; one that hangs is, in the end."""

import time
from collections.abc import Callable
from typing import Any, Protocol

HANGS = 900
"""Seconds after which a process is taken to hang: many times what the slowest test needs on a busy machine."""


class Process(Protocol):
    """What is asked of a process that was started or forked."""

    def poll(self) -> int | None: ...
    def communicate(self) -> Any: ...


def wait_until(holds: Callable[[], bool], process: Process) -> None:
    """Return once `holds()`, asked again and again. Fails if the process ends before, or seems to hang."""
    deadline = time.monotonic() + HANGS
    while not holds():
        assert process.poll() is None, f"the process ended too soon: {process.communicate()}"
        assert time.monotonic() < deadline, "the process hangs"
        time.sleep(0.02)
