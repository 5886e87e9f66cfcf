"""How long work tells its progress: a bar on a terminal, in a log file (nohup, Slurm) a line about every minute."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from threading import Event, Thread
from typing import Any, TypeVar

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from emor3.errors import one_line
from emor3.printing import console, say
from emor3.signals import speaks_for_all

EVERY = 60.0
"""Seconds between two lines of a log file."""
BEAT = 5.0
"""Seconds after which a thread looks again whether a line is due, since a step may take minutes."""
DESCRIPTION = TextColumn("{task.description}", markup=False)
"""What a bar is of: a name that a person gave, in which brackets are only brackets."""

T = TypeVar("T")


class Lines:
    """Lines of a log file about one piece of work after another; silent on a terminal and on ranks above 0."""

    def __init__(self, unit: str, *, error: bool = False, get_time: Callable[[], float] = time.monotonic) -> None:
        """`unit` is what is counted; `error`: on standard error."""
        self.silent = console(error=error).is_terminal or not speaks_for_all()
        self._unit, self._error, self._get_time = unit, error, get_time
        self._last = get_time()
        self.begin(0)

    def begin(self, done: float) -> None:
        """Note the time at which so much was done, from which on the time left is reckoned."""
        self._start = self._get_time(), done

    def tell(self, what: str, done: float, total: float | None = None) -> None:
        """Write a line if the last one is a minute old."""
        if not self.silent and self._get_time() - self._last >= EVERY:
            self.write(what, done, total)

    def write(self, what: str, done: float, total: float | None = None) -> None:
        """Write a line: what was done, the time it took, and the time that is left if it can be known."""
        if self.silent:
            return
        self._last = self._get_time()
        began, first = self._start
        took, here = self._last - began, done - first
        of = "" if total is None else f" of {total:,.0f}"
        left = "" if total is None or here <= 0 or done >= total else f", {_clock(took / here * (total - done))} left"
        say(f"{one_line(what)}: {done:,.0f}{of} {self._unit} in {_clock(took)}{left}", error=self._error, flush=True)


@contextmanager
def beating(call: Callable[[], None]) -> Iterator[None]:
    """Have a thread call a function every few seconds while the work inside goes on."""
    ended = Event()

    def beat() -> None:
        while not ended.wait(BEAT):
            call()

    thread = Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextmanager
def alive(what: str) -> Iterator[None]:
    """Say about every minute, also on a terminal, that work goes on whose length is not known."""
    began = last = time.monotonic()

    def tell() -> None:
        nonlocal last
        now = time.monotonic()
        if speaks_for_all() and now - last >= EVERY:
            last = now
            say(f"{what}: {_clock(now - began)} so far", flush=True)

    with beating(tell):
        yield


class Bar(Progress):
    """A bar on a terminal, a line about every minute elsewhere; if it stays (not `transient`), also when it is done."""

    def __init__(
        self,
        unit: str,
        *columns: ProgressColumn,
        error: bool = False,
        transient: bool = False,
        get_time: Callable[[], float] = time.monotonic,
    ) -> None:
        shown = console(error=error)
        self._lines = Lines(unit, error=error, get_time=get_time)
        self._stays = not transient
        self._beat = ExitStack()
        super().__init__(
            DESCRIPTION,
            *columns,
            console=shown,
            transient=transient,
            disable=not shown.is_terminal,
            get_time=get_time,
        )

    def add_task(self, description: str, *arguments: Any, **settings: Any) -> TaskID:
        """As rich's; the time that is left is reckoned from now on."""
        self._lines.begin(0)
        return super().add_task(description, *arguments, **settings)

    def update(self, task_id: TaskID, **changes: Any) -> None:
        """As rich's; the work of a task begins when its total is known, as far as it is then."""
        unknown = self._tasks[task_id].total is None
        super().update(task_id, **changes)
        task = self._tasks[task_id]
        if unknown and task.total is not None:
            self._lines.begin(task.completed)
        self._lines.tell(task.description, task.completed, task.total)

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        """As rich's."""
        super().advance(task_id, advance)
        task = self._tasks[task_id]
        self._lines.tell(task.description, task.completed, task.total)

    def start(self) -> None:
        """As rich's; in a log file a line comes every minute also while nothing is done."""
        super().start()
        if not self._lines.silent:
            self._beat.enter_context(beating(self._tell_last))

    def _tell_last(self) -> None:
        for task in self.tasks[-1:]:
            self._lines.tell(task.description, task.completed, task.total)

    def stop(self) -> None:
        """As rich's."""
        self._beat.close()
        super().stop()
        if self._stays:
            for task in self.tasks:
                self._lines.write(task.description, task.completed, task.total)


def steps_bar() -> Bar:
    """A bar of training steps, with ETA, that stays when it is done, with its last description."""
    columns = (MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("ETA"), TimeRemainingColumn())
    return Bar("steps", BarColumn(), *columns)


def told(items: Iterable[T], what: str, unit: str) -> Iterator[T]:
    """The items as they are, counted on standard error in a log file."""
    lines = Lines(unit, error=True)
    for number, item in enumerate(items, start=1):
        yield item
        lines.tell(what, number)


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
