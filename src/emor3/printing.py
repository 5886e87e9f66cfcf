"""What commands print: every text goes through here, so that no label, completion or reply controls a terminal.

Characters that a terminal would obey are shown escaped, and those that the output's encoding lacks, too.
"""

import logging
import sys
import warnings
from io import TextIOWrapper
from typing import TYPE_CHECKING, Any

from emor3.errors import UserError, one_line, printable
from emor3.signals import speaks_for_all

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


def escape_what_no_encoding_has() -> None:
    """Have standard output and error escape the characters that their encoding lacks, as under LC_ALL=C.

    Lines reach a log file when they are said, not when the command ends.
    """
    for stream in (sys.stdout, sys.stderr):  # None if it is closed
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace", line_buffering=True)


def hide_idle_warnings() -> None:
    """Have libraries keep silent on what a person can do nothing about.

    TRL 1.16 sets what transformers 5 has renamed, bitsandbytes misses a kernel that only inference on CPUs would use,
    and DeepSpeed finds no GPU.
    """
    warnings.filterwarnings("ignore", message=".*gradient_checkpointing.*is deprecated", category=FutureWarning)
    logging.getLogger("bitsandbytes.backends.cpu").setLevel(logging.ERROR)
    logging.getLogger("DeepSpeed").addFilter(_is_of_use)


def _is_of_use(record: logging.LogRecord) -> bool:
    return "Setting accelerator to CPU" not in record.getMessage()


def say(text: object = "", *, error: bool = False, flush: bool = False) -> None:
    """Print a text and a line break; `error`: on standard error."""
    print(printable(str(text)), file=sys.stderr if error else sys.stdout, flush=flush)


def say_start(what: str) -> None:
    """First sign of life, on a terminal and in a log file, before imports that take seconds; none if they are done."""
    if "torch" not in sys.modules and sys.stderr is not None and speaks_for_all():
        say(f"{what}: loading", error=True, flush=True)


def print_error(error: UserError) -> None:
    """A person's mistake in one line."""
    say("error: " + one_line(str(error)), error=True)


def console(*, error: bool = False, width: int | None = None) -> "Console":
    """Console for tables and bars, in which texts are only texts: no markup, no :emoji:, nothing to obey."""
    from rich.console import Console  # here, so that --help need not wait for it
    from rich.text import Text

    class Plain(Console):
        def render_str(self, text: str, **settings: Any) -> Text:  # of titles, headings and cells
            return super().render_str(printable(text), **settings)

    return Plain(stderr=error, width=width, markup=False, emoji=False, highlight=False)


def show(table: "Table", at_least: int = 0) -> None:
    """Print a table, no narrower than `at_least` characters."""
    wide = console()
    if wide.width < at_least:
        wide = console(width=at_least)
    wide.print(table)
