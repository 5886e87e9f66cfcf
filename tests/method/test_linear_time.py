"""Random and worst-case inputs: the pure core never raises on a text and takes time linear in its length."""

import random
import subprocess
import sys
import time
from typing import Any

import pytest

from emor3.method.labels import MIKELS8, affirmed, match, resolve
from emor3.method.reflection import escape, read_verdict
from emor3.method.thinking import parse
from emor3.method.types import Aspect, Question, Reply

YES_NO = Question(Aspect.CONSISTENCY, "?", ("Yes", "No"), ("x.png",))
READERS = {
    "parse": parse,
    "match": lambda text: match(text, MIKELS8),
    "affirmed": lambda text: affirmed(text, MIKELS8),
    "resolve": lambda text: resolve(text, MIKELS8),
    "escape": escape,
    "read_verdict": lambda text: read_verdict(YES_NO, Reply(text), "fear", MIKELS8),
}
PIECES = [
    *(
        "<step1>",
        "</step1>",
        "<step2>",
        "</step2>",
        "<step3>",
        "</step3>",
        "\\boxed{",
        "\\text{",
        "{",
        "}",
        "<b>",
        "</b>",
    ),
    *(
        "<",
        ">",
        "[",
        "<image>",
        "*",
        "$",
        " ",
        "\n",
        "fear",
        "not ",
        "joy",
        "a",
        "\u200b",
        "\u0301\u0323",
        "\u00e9",
        "\ud800",
    ),
]
LOOPS = [
    *PIECES,
    "\\boxed{}",
    "\\boxed{{",
    "<step1></step1>",
    "{}",
    "<b a",
    "not fear ",
    "fe",
    "[[A",
    "\u0301\u0323",
    "}{",
]


def seconds(reader: Any, text: str) -> float:
    """The best of three runs, which other work on the machine disturbs least."""
    times = []
    for _ in range(3):
        start = time.process_time()
        reader(text)
        times.append(time.process_time() - start)
    return min(times)


@pytest.mark.parametrize("name", READERS)
def test_eight_times_the_text_takes_about_eight_times_as_long_and_never_its_square(name: str) -> None:
    # quadratic work would take 64 times as long; 24 leaves room for noise above 5 ms
    for loop in LOOPS:
        short, long = loop * 500, loop * 4_000
        assert seconds(READERS[name], long) < 24 * seconds(READERS[name], short) + 0.005, loop


def test_boxes_nested_100000_deep_are_peeled_without_recursion() -> None:
    depth = 100_000
    for wrapper in ("\\boxed{", "{", "\\text{"):
        assert parse("\\boxed{" + wrapper * depth + "joy" + "}" * depth + "}").answer == "joy"
        assert parse("\\boxed{" + wrapper * depth + "}" * depth + "}").answer is None
    assert parse("\\boxed{" * depth + "joy}").answer == "joy"


def test_no_text_makes_a_reader_fail() -> None:
    draw = random.Random(0)
    for _ in range(1000):
        text = "".join(draw.choices(PIECES, k=draw.randrange(40)))
        for reader in READERS.values():
            reader(text)


def test_a_random_text_never_earns_format_that_a_plain_reading_of_the_rules_refuses() -> None:
    draw = random.Random(1)
    frame = ["<step1>", "a", "</step1>", "<step2>", "b", "</step2>", "<step3>", "c", "</step3>", "\\boxed{", "joy", "}"]
    kept = 0
    for _ in range(3000):
        pieces = list(frame)
        for _ in range(draw.randrange(3)):
            place = draw.randrange(len(pieces))
            change = draw.choice(["drop", "insert", "swap"])
            if change == "drop":
                pieces.pop(place)
            elif change == "insert":
                pieces.insert(place, draw.choice([*frame, " ", "\n", "x"]))
            else:
                other = draw.randrange(len(pieces))
                pieces[place], pieces[other] = pieces[other], pieces[place]
        text = "".join(pieces)
        tags = [piece for piece in pieces if piece.startswith("<")]
        if parse(text).problem is None:
            kept += 1
            assert tags == [piece for piece in frame if piece.startswith("<")]
            assert text.lstrip().startswith("<step1>")
            assert text.rindex("\\boxed{") > text.index("</step3>")
    assert kept > 300


def test_the_core_imports_quickly_and_without_heavy_libraries() -> None:
    heavy = ("numpy", "torch", "sklearn", "jinja2", "yaml")
    code = f"import sys, emor3.scoring.saved; print([name for name in {heavy} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
