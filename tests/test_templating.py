"""Templates of a person and of a checkpoint: whatever they do wrong or want too much of ends in one line."""

import resource
import signal
import sys
from pathlib import Path

import pytest
from jinja2 import TemplateError

from emor3 import templating
from emor3.errors import UserError
from emor3.method.thinking import LONGEST_TEMPLATE, load_template, render
from emor3.models.generation import chat, encode
from emor3.models.processors import load_processor

HOSTILE = {
    "a text": ("{{ 'a' * 10**9 }}", "memory"),
    "a text that doubles": (
        "{% set n = namespace(t='ab') %}{% for i in range(60) %}{% set n.t = n.t ~ n.t %}{% endfor %}",
        "memory",
    ),
    "a wide text": ("{{ 'a'.ljust(10**9) }}", "memory"),
    "a format": ("{{ '%1000000000d' % 1 }}", "memory"),
    "a list": ("{{ ([1] * 10**9)|length }}", "memory"),
    "a power": ("{% set n = 9 ** (9 ** 9) %}{{ n > 1 }}", "takes more than"),
    "loops": ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "seconds"),
    "a loop that writes": ("{% for a in range(99999) %}{{ 'b' * 9999 }}{% endfor %}", ""),
    "a long prompt": ("{{ 'b' * 5000000 }}", "it makes 5,000,000 characters"),
    "a file": ("{% include '/etc/passwd' %}", "no loader"),
    "an import": ("{% import 'os' as os %}", "no loader"),
    "a division": ("{{ 1/0 }}", "division by zero"),
    "another type": ("{{ 1 + 'a' }}", "unsupported operand"),
    "itself": ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "recursion"),
    "many blocks": ("{% for a in [1] %}" * 30 + "{% endfor %}" * 30, "nested blocks"),
    "an end": ("{% endfor %}", "endfor"),
    "an attribute": ("{{ ''.__class__.__mro__ }}", "unsafe"),
    "a value": ("{{ [][3].x }}", ""),
}


@pytest.fixture(autouse=True)
def limit(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Little time for what never ends, and for all else more than a slow machine needs to run into its own limit."""
    case = getattr(request.node, "callspec", None)
    # Our own: no person can set it, and at its five seconds the templates that never end would take a minute.
    message = HOSTILE[case.params["case"]][1] if case else "seconds"
    monkeypatch.setattr(templating, "SECONDS", 0.3 if message in ("seconds", "takes more than", "") else 60.0)


@pytest.mark.parametrize("case", HOSTILE)
def test_a_template_of_a_person_ends_in_one_line(case: str) -> None:
    template, message = HOSTILE[case]
    limits = resource.getrlimit(resource.RLIMIT_AS)
    with pytest.raises(UserError, match=f"template .* cannot be filled: .*{message}") as refused:
        render(template, labels="joy")
    assert "\n" not in str(refused.value)
    assert resource.getrlimit(resource.RLIMIT_AS) == limits
    assert signal.getitimer(signal.ITIMER_PROF) == (0, 0)


@pytest.mark.parametrize("case", [case for case in HOSTILE if case != "a value"])  # chat templates may lack values
def test_a_chat_template_of_a_checkpoint_ends_in_one_line_too(case: str, random_checkpoint: str) -> None:
    template, message = HOSTILE[case]
    processor = load_processor(random_checkpoint)
    processor.chat_template = processor.tokenizer.chat_template = template
    for ask in (
        lambda: encode(processor, [((), "What is felt?")]),
        lambda: processor.apply_chat_template(chat("What is felt?", 0), tokenize=True),  # as TRL does
        lambda: processor.tokenizer.apply_chat_template([{"role": "user", "content": "What is felt?"}]),
    ):
        with pytest.raises(UserError, match=f"chat template .* cannot be filled: .*{message}") as refused:
            ask()
        assert "\n" not in str(refused.value)
        assert isinstance(refused.value, TemplateError)  # TRL goes on where a template refuses a conversation


def test_a_bomb_that_waits_for_a_certain_text_is_stopped_when_it_comes(random_checkpoint: str) -> None:
    processor = load_processor(random_checkpoint)
    processor.chat_template = "{% if 'now' in messages[0]|string %}{{ 'a' * 10**9 }}{% endif %}hello"
    encode(processor, [((), "later")])
    with pytest.raises(UserError, match="memory"):
        encode(processor, [((), "now")])


def test_limits_leave_what_is_within_them_and_other_errors_alone() -> None:
    assert render("{{ 'a' * 3 }}{% for i in range(3) %}{{ i }}{% endfor %}", labels="joy") == "aaa012"
    with pytest.raises(KeyboardInterrupt), templating.within_limits("x"):
        raise KeyboardInterrupt


def test_the_end_of_the_time_never_interrupts_the_taking_off_of_limits() -> None:
    setting = templating._time.__wrapped__()  # whose frame is where limits are set and taken off
    assert templating._end(signal.SIGPROF, setting.gi_frame) is None
    with pytest.raises(templating._TooLongError):
        templating._end(signal.SIGPROF, sys._getframe())


def test_limits_are_taken_off_however_late_the_time_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal in that moment left the timer running: it then ended whatever came next, as a test's set-up."""
    monkeypatch.setattr(templating, "SECONDS", 0.01)  # our own: sixty ends of the time are wanted
    before, ended = resource.getrlimit(resource.RLIMIT_AS), 0
    for count in range(60):
        try:
            with templating.within_limits("x"):
                sum(range(count * 40_000))  # up to some tens of ms: around the end of the time
        except UserError:
            ended += 1
        assert signal.getitimer(signal.ITIMER_PROF) == (0, 0)
        assert signal.getsignal(signal.SIGPROF) == signal.SIG_DFL
        assert resource.getrlimit(resource.RLIMIT_AS) == before
    assert 0 < ended < 60


def test_a_template_file_is_read_no_further_than_a_template_may_be_long(tmp_path: Path) -> None:
    long = tmp_path / "long.txt"
    long.write_text("x" * (LONGEST_TEMPLATE + 1))
    with pytest.raises(UserError, match=f"more than {LONGEST_TEMPLATE:,} characters"):
        load_template(str(long))
