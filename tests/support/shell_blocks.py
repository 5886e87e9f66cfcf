"""The commands of the docs' shell blocks, each with where it stands and why it is not run, if the page says so."""

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

SHELLS = {"bash", "sh", "shell", "zsh", "console", "shell-session"}
FENCE = re.compile(r"^\s*(`{3,}|~{3,})\s*([\w-]*)")
MARK = re.compile(r"^\s*<!-- not run here(?: \((?P<some>[^()]+)\))?: (?P<reason>\S.*?) -->$")
"""Directly above a block: none of its commands is run here, or, in brackets and with `;` between them, not those that
begin with these words."""
BETWEEN = {"&&", "||", ";", "|", "&"}
INTO = {">", ">>", "<", "2>", "&>"}


@dataclass(frozen=True)
class Command:
    """A simple command as the shell would see it."""

    page: str
    line: int
    words: tuple[str, ...]
    into: str | None = None
    """File that its output is sent to."""
    reason: str | None = None
    """Why it is not run here."""

    @property
    def emor3(self) -> tuple[str, ...] | None:
        """The arguments of `emor3`, also if a launcher or another machine starts it; None for other commands."""
        names = [place for place, word in enumerate(self.words) if Path(word).name == "emor3"]
        if not names or Path(self.words[0]).name in {"pip", "uv", "git", "cd"}:
            return None
        return self.words[names[0] + 1 :]

    def __str__(self) -> str:
        return f"{self.page}:{self.line}: {shlex.join(self.words)}"


def commands_of(page: str, text: str) -> Iterator[Command]:
    """All commands of a page's shell blocks, in order."""
    for first, language, mark, lines in blocks(text):
        if language not in SHELLS:
            continue
        if language in {"console", "shell-session"}:  # what is printed stands between the commands
            lines = [line.removeprefix("$ ") if line.startswith("$ ") else "" for line in lines]
        marked = MARK.match(mark)
        for number, line in joined(first, lines):
            for words, into in simple_commands(line):
                yield Command(page, number, words, into, reason_for(words, marked))


def blocks(text: str) -> Iterator[tuple[int, str, str, list[str]]]:
    """Number of the first line inside, language, the line above the fence, and the lines inside, of each block."""
    lines, place = text.splitlines(), 0
    while place < len(lines):
        opened = FENCE.match(lines[place])
        if opened:
            start = place + 1
            place = start
            while place < len(lines) and lines[place].strip() != opened[1]:
                place += 1
            above = lines[start - 2] if start > 1 else ""
            yield start + 1, opened[2], above, [line.strip() for line in lines[start:place]]
        place += 1


def joined(first: int, lines: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Lines with their numbers, those that end in a backslash with the next one."""
    begun, number = "", first
    for place, line in enumerate(lines, first):
        number = number if begun else place
        begun += line
        if begun.endswith("\\"):
            begun = begun[:-1] + " "
        else:
            yield number, begun
            begun = ""


def simple_commands(line: str) -> Iterator[tuple[tuple[str, ...], str | None]]:
    """The commands of a line with the file that each writes to; comments and redirections are taken away.

    >>> list(simple_commands("mkdir a && X=1 emor3 runs a > 'b c'  # all"))
    [(('mkdir', 'a'), None), (('emor3', 'runs', 'a'), 'b c')]
    """
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    for splits, group in groupby(lexer, BETWEEN.__contains__):
        words = list(group)
        if splits:
            continue
        into = None
        for place in reversed([place for place, word in enumerate(words) if word in INTO]):
            into = words[place + 1] if ">" in words[place] else into
            del words[place : place + 2]
        while words and re.match(r"^\w+=", words[0]):  # variables for this command
            words = words[1:]
        if words:
            yield tuple(words), into


def reason_for(words: Sequence[str], marked: re.Match[str] | None) -> str | None:
    """Why a command of a block with this mark is not run."""
    if marked is None:
        return None
    some = [begin.split() for begin in (marked["some"] or "").split(";") if begin.strip()]
    return marked["reason"] if not some or any(begins(words, begin) for begin in some) else None


def begins(words: Sequence[str], begin: Sequence[str]) -> bool:
    """Whether a command begins with these words."""
    return list(words[: len(begin)]) == list(begin)
