"""Ctrl-C (SIGINT) and the end of a job's time (SIGTERM): one line, no traceback, and work that can be saved is saved.

Everywhere a signal raises `Stopped` at once. While a policy trains, the first one is a request (`StopRequest`).
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from emor3.errors import printable

SIGNALS = (signal.SIGINT, signal.SIGTERM)
STANDARD_ERROR = 2


class Stopped(BaseException):
    """A signal ended the work; no `except Exception` takes it for an error.

    The CLI prints the message on one line and exits with 128 + the signal's number, as shells count.
    """

    def __init__(self, number: int, hint: str = "") -> None:
        super().__init__(f"stopped by {name_of(number)}" + (f"; {hint}" if hint else ""))
        self.number = number


class StopRequest:
    """Remembers the first signal, for whoever can save the work and stop; a second one raises Stopped at once."""

    def __init__(self) -> None:
        self.number = 0
        """Of the signal that came, 0 before."""

    def __call__(self, number: int, frame: object) -> None:
        """Receive a signal."""
        if self.number:
            raise Stopped(number)
        self.number = number
        write_line(f"{name_of(number)}: finishing the step to save it; a second signal stops at once")


def stop_at_once(number: int, frame: object) -> None:
    """Receive a signal when there is nothing to save."""
    raise Stopped(number)


@contextmanager
def signal_handler(receive: Callable[[int, object], None]) -> Iterator[None]:
    """Handle both signals by a function inside the block, but for those that the parent ignores (background jobs).

    Changes nothing outside the main thread, which alone gets signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, receive) for number in heard}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def write_line(line: str) -> None:
    """Write a line to standard error, once for all ranks, past Python's buffer, which a handler must not enter."""
    if speaks_for_all():
        os.write(STANDARD_ERROR, f"{printable(line)}\n".encode())


def speaks_for_all() -> bool:
    """Whether this process tells what all ranks of a distributed run would tell."""
    return os.environ.get("RANK", "0") == "0"


def name_of(number: int) -> str:
    """Name of a signal, as SIGTERM."""
    return signal.Signals(number).name
