"""Jinja templates: those of our own pages, which escape every text, and limits for those of checkpoints and users.

Of the latter time, memory and length are bounded, and a fault is one line: Jinja's sandbox restricts what a template
may access, but not endless loops or texts.
"""

import contextlib
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from jinja2 import Environment, PackageLoader, StrictUndefined, TemplateError

from emor3.errors import UserError, one_line


def page_environment(package: str) -> Environment:
    """The page templates of a package of emor3, with all texts escaped; a name that is not given is an error."""
    return Environment(
        loader=PackageLoader("emor3", f"{package}/templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


SECONDS = 5.0
"""CPU time of a template; prompts take well under a thousandth of that."""
MEGABYTES = 256
"""Memory that a template may add to the process; prompts take a thousandth of that."""
LONGEST = 1_000_000
"""Characters that a template may make."""
FAULTS = (TemplateError, ArithmeticError, AttributeError, LookupError, RuntimeError, SyntaxError, TypeError, ValueError)
"""What the code of a template can raise, RecursionError and Python's own words for Jinja's mistakes included."""
STATM = Path("/proc/self/statm")
OWN_CODE = {__file__, contextlib.__file__}
"""Files of the functions that set the limits and take them off."""


class TemplateFaultError(UserError, TemplateError):  # TRL tries some templates, and goes on if one refuses
    """A template that is broken, does not fit our conversations, or exceeds the limits."""


class _TooLongError(BaseException):  # which no template, nor what runs it, takes for a fault of its own
    """The time limit is exceeded."""


@contextmanager
def within_limits(template: str, *, kind: str = "template", hint: str = "") -> Iterator[None]:
    """Run a template's code inside the block in bounded time and memory.

    Raises TemplateFaultError for any fault of it, with the hint unless time or memory ran out.
    """
    try:
        with _memory(), _time():
            yield
    except _TooLongError:
        raise _fault(kind, template, f"it takes more than {SECONDS:g} seconds, as a loop that does not end") from None
    except MemoryError:
        raise _fault(kind, template, f"it takes more than {MEGABYTES} MB of memory") from None
    except TemplateFaultError:  # from within these limits within others
        raise
    except FAULTS as error:
        raise _fault(kind, template, f"{one_line(str(error)) or type(error).__name__}{hint}") from None


def check_length(template: str, filled: str, kind: str = "template") -> None:
    """Raise TemplateFaultError if a template made more than any model reads."""
    if len(filled) > LONGEST:
        raise _fault(kind, template, f"it makes {len(filled):,} characters, of at most {LONGEST:,}")


def _fault(kind: str, template: str, reason: str) -> TemplateFaultError:
    return TemplateFaultError(f"{kind} {template[:40]!r}… cannot be filled: {reason}")


@contextmanager
def _time() -> Iterator[None]:
    """Raise _TooLongError once the CPU time is spent; in the main thread only, since no other can be interrupted."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.signal(signal.SIGPROF, _end)
    timer = signal.setitimer(signal.ITIMER_PROF, SECONDS, 0.1)  # again, if the first was lost in a destructor
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, *timer)
        signal.signal(signal.SIGPROF, handler)


def _end(number: int, frame: FrameType | None) -> None:
    """Interrupt the template, but not the code that lifts the limits, which would then stay in force."""
    if frame is None or frame.f_code.co_filename not in OWN_CODE:  # if it is, the timer comes back in a moment
        raise _TooLongError


@contextmanager
def _memory() -> Iterator[None]:
    """Make allocations beyond MEGABYTES fail, in all threads meanwhile, on systems that can."""
    if not STATM.exists():
        yield
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = int(STATM.read_text().split()[0]) * resource.getpagesize()
    most = used + MEGABYTES * 2**20
    limits = [most, *(limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY)]
    resource.setrlimit(resource.RLIMIT_AS, (min(limits), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
