"""Code of one's own: parts of the reward that a recipe names, and judges handed over in Python.

A recipe is data, which people share: it never has code imported. A function that it names runs only if the user hands
it over in Python or repeats its name on the command line. What such code gives is checked here, once, and a fault of it
ends in one line that names it: no completion is scored by it.
"""

import hashlib
import inspect
import math
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any, TypeAlias

from emor3.errors import UserError, did_you_mean, one_line
from emor3.method.rewards import OwnPart, RewardSettings
from emor3.method.types import Judge, Question, Reply, RewardBreakdown, Rollout
from emor3.settings import short

RewardPart: TypeAlias = Callable[[Sequence[Rollout]], Sequence[float]]
"""A part of the reward of one's own: for each of N rollouts a finite number, as a rule from 0 to 1.

A rollout holds the sample, the completion with its parsed text, what the judge found, and the reward of the other
parts, before its group is settled. The N are those of one process: not always whole groups.
"""

LONGEST_EXCERPT = 60
"""Characters of a completion that a message shows."""


def import_parts(own: Mapping[str, OwnPart], allowed: Iterable[str]) -> dict[str, RewardPart]:
    """The functions of a recipe's parts, of those that the user allowed by name; the working folder is searched last.

    Raises UserError if the recipe names one that is not allowed or cannot be imported, or none that is allowed.
    """
    allowed, named = list(allowed), [part.function for part in own.values()]
    for function in allowed:
        if function not in named:
            hint = did_you_mean(function, named) or f"it names {', '.join(named) or 'none'}"
            raise UserError(f"--allow-code {function}: the recipe names no such function; {hint}")
    check_handed_over(own, [name for name, part in own.items() if part.function in allowed])
    if allowed and (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)
    return {name: _imported(name, part.function) for name, part in own.items()}


def _imported(name: str, path: str) -> RewardPart:
    module, _, attribute = path.partition(":")
    try:
        function: RewardPart = getattr(import_module(module), attribute)
    except Exception as error:  # whatever a module of the user's raises
        raise UserError(f"reward.own.{name}: cannot import {path}: {_fault(error)}") from None
    if not callable(function):
        raise UserError(f"reward.own.{name}: {path} is no function")
    return function


def check_handed_over(own: Mapping[str, OwnPart], handed: Iterable[str]) -> None:
    """Raise UserError unless the functions handed over are those of the parts, by name."""
    handed = set(handed)
    for name, part in own.items():
        if name not in handed:
            raise UserError(
                f"reward.own.{name} is code of your own, {part.function}, which a recipe alone never runs: allow it by "
                f"--allow-code {part.function}, or in Python by own={{{name!r}: function}}"
            )
    if stray := sorted(handed - own.keys()):
        known = ", ".join(own) or "none"
        raise UserError(f"no weight for the part {stray[0]!r}: give it in reward.own.{stray[0]} (there: {known})")


def recorded_parts(settings: RewardSettings, functions: Mapping[str, RewardPart]) -> RewardSettings:
    """The settings with the digest of each function's source, as a run records them.

    Raises UserError if a function is missing, or is not the one that the settings' digest names.
    """
    check_handed_over(settings.own, functions)
    own = {}
    for name, part in settings.own.items():
        digest = source_digest(functions[name])
        if part.sha256 is not None and digest != part.sha256:
            raise UserError(
                f"reward.own.{name}: the source of {part.function} is another than was recorded (SHA-256 {digest}, "
                f"recorded {part.sha256}): use that again, or take the part as a new one in another run"
            )
        own[name] = part.model_copy(update={"sha256": digest})
    return settings.model_copy(update={"own": own})


def source_digest(code: Any) -> str | None:
    """SHA-256 of the source text of a function or class, or of an object's class; None if Python knows no source."""
    try:
        source = inspect.getsource(code if inspect.isfunction(code) or inspect.isclass(code) else type(code))
    except (OSError, TypeError):
        return None
    return hashlib.sha256(source.encode(errors="surrogatepass")).hexdigest()


def with_own_parts(
    rollouts: Sequence[Rollout], settings: RewardSettings, functions: Mapping[str, RewardPart]
) -> list[Rollout]:
    """N rollouts with the parts of one's own in their parts and totals.

    Raises UserError if a function raises, gives another count, or something that is no finite number.
    """
    columns = {name: _values(name, part, functions[name], rollouts) for name, part in settings.own.items()}
    return [
        replace(
            rollout, reward=_with(rollout.reward, {name: column[place] for name, column in columns.items()}, settings)
        )
        for place, rollout in enumerate(rollouts)
    ]


def _with(reward: RewardBreakdown, values: Mapping[str, float], settings: RewardSettings) -> RewardBreakdown:
    paid = sum(settings.own[name].weight * value for name, value in values.items())
    return RewardBreakdown(reward.total + paid, {**reward.parts, **values})


def _values(name: str, part: OwnPart, function: RewardPart, rollouts: Sequence[Rollout]) -> list[float]:
    what = f"reward.own.{name} ({part.function})"
    values = _given(what, lambda: function(list(rollouts)))
    if len(values) != len(rollouts):
        raise UserError(f"{what} gave {len(values)} numbers for {len(rollouts)} completions: give one for each")
    numbers = [_number(value) for value in values]
    for place, number in enumerate(numbers):
        if number is None:
            text = one_line(rollouts[place].completion)[:LONGEST_EXCERPT]
            raise UserError(
                f"{what} gave {short(values[place], quoted=True)} for completion {place + 1} of {len(rollouts)} "
                f"(sample {one_line(rollouts[place].sample.id)}, {text!r}): give a finite number"
            )
    return [number for number in numbers if number is not None]


def _given(what: str, call: Callable[[], Iterable[Any]]) -> list[Any]:
    """What code of the user's gives. Raises UserError, naming it, for whatever that code raises."""
    try:
        return list(call())
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{what} failed: {_fault(error)}") from None


def _number(value: Any) -> float | None:
    """A finite number of Python, numpy or torch; None for anything else."""
    if not hasattr(value, "__float__"):  # a text has none, though float() reads it
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _fault(error: Exception) -> str:
    """What went wrong in the user's code, and the line of it."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    told = one_line(str(error))
    return f"{type(error).__name__}{f': {told}' if told else ''} ({Path(place.filename).name}, line {place.lineno})"


class OwnJudge:
    """A judge of one's own, whose replies are checked.

    A judge that cannot answer a question says so by `Reply("", error=why)`: the part is then left out for the whole
    group. If `answer` raises, or gives what is no reply, UserError ends the work: no completion is scored by it.
    """

    def __init__(self, judge: Judge) -> None:
        """Raises UserError for what is no object with a method `answer`."""
        if inspect.isclass(judge) or not callable(getattr(judge, "answer", None)):
            raise UserError(f"a judge is an object with a method answer(questions); found {short(judge, quoted=True)}")
        self.judge = judge

    @property
    def name(self) -> str:
        """Its class as `module:class`, as records name it."""
        return f"{type(self.judge).__module__}:{type(self.judge).__qualname__}"

    def answer(self, questions: Sequence[Question]) -> list[Reply]:
        """Its replies to the questions, in order; without any it is not called. Raises UserError as the class says."""
        if not questions:
            return []
        replies = _given(f"the judge {self.name}", lambda: self.judge.answer(list(questions)))
        if len(replies) != len(questions):
            raise UserError(f"the judge {self.name} gave {len(replies)} replies to {len(questions)} questions")
        for place, (question, reply) in enumerate(zip(questions, replies, strict=True), start=1):
            if fault := _reply_fault(question, reply):
                raise UserError(f"the judge {self.name}, reply {place} of {len(replies)}: {fault}")
        return replies


def _reply_fault(question: Question, reply: Any) -> str | None:
    if not isinstance(reply, Reply):
        return f"it must be an emor3.Reply, found {short(reply, quoted=True)}"
    if reply.error is not None:
        return None
    if not isinstance(reply.text, str):
        return f"its text must be a string, found {short(reply.text, quoted=True)}"
    if reply.probabilities is None:
        return None
    if not isinstance(reply.probabilities, Mapping):
        return f"its probabilities must be a mapping, found {short(reply.probabilities, quoted=True)}"
    shares = [_number(reply.probabilities.get(candidate)) for candidate in question.candidates]
    if any(share is None or not 0 <= share <= 1 for share in shares):
        named = ", ".join(question.candidates[:3])
        return f"its probabilities must hold a number from 0 to 1 for each candidate ({named}, …)"
    return None


@dataclass(frozen=True)
class OwnCode:
    """What a user hands over beside a recipe: functions of `reward.own` by name, and a judge."""

    parts: Mapping[str, RewardPart] = field(default_factory=dict)
    judge: OwnJudge | None = None
