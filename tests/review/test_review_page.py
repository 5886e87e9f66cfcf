"""The page in a real browser: marked by keyboard alone, resumed after a kill, and hostile text shown and never run.

Needs a Chromium (`apt-get install chromium`); skipped without one.
"""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_report_page import HOSTILE, contrast

from browser import CHROMIUM, Browser
from emor3.method.labels import label_set_from
from emor3.method.thinking import parse
from made_up import prediction, save_evaluation
from reviewing import pictured, save_pictured, serving

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium found (apt-get install chromium)"),
    pytest.mark.allow_hosts(["127.0.0.1"]),
    pytest.mark.enable_socket,
]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    running = Browser(tmp_path_factory.mktemp("profile"))
    yield running
    running.close()


def marks_of(folder: Path) -> list[dict[str, Any]]:
    file = folder / "marks-anna.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def type_keys(browser: Browser, keys: str) -> None:
    for key in keys:
        browser.press(key, ord(key.upper()))


def enter(browser: Browser) -> None:
    """Press Enter, as keyboards send it, and wait for the page that comes."""
    browser.events.clear()
    for kind in ("rawKeyDown", "char", "keyUp"):
        browser.call(
            "Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter", text="\r", windowsVirtualKeyCode=13
        )
    browser.wait_for_load()


def is_seen(browser: Browser, selector: str) -> Any:
    return browser.run(f"document.querySelector({json.dumps(selector)}).checkVisibility()")


def test_completions_are_marked_by_keyboard_alone(browser: Browser, tmp_path: Path) -> None:
    folder = save_pictured(tmp_path, 3)
    with serving([folder]) as server:
        browser.open(server.address)
        assert not is_seen(browser, "img")  # before the emotion is chosen, as the judge sees no image either
        type_keys(browser, "4")
        assert is_seen(browser, "img")
        assert browser.run("document.querySelector('img').decode().then(() => 1)") == 1
        type_keys(browser, "yn")
        assert browser.run("document.activeElement.tagName") == "BUTTON"
        browser.press("Backspace", 8)
        type_keys(browser, "y")
        enter(browser)
        assert browser.run("location.pathname") == "/item/1"
        assert "1 of 3 marked" in browser.run("document.body.innerText")
        type_keys(browser, "0ny")
        enter(browser)
        type_keys(browser, "1yn")
        enter(browser)
        assert "Thank you" in browser.run("document.body.innerText")
        assert browser.complaints() == []
    told = [(row["emotion"], row["describes"], row["follows"]) for row in marks_of(folder)]
    assert told == [("joy", True, True), (None, False, True), ("anger", True, False)]


def test_without_the_script_tab_arrows_and_space_do(browser: Browser, tmp_path: Path) -> None:
    folder = save_pictured(tmp_path, 2)
    with serving([folder]) as server:
        browser.call("Emulation.setScriptExecutionDisabled", value=True)
        try:
            browser.open(server.address)
            browser.press("Tab", 9)
            browser.press(" ", 32)  # anger
            for _ in range(2):
                browser.press("ArrowRight", 39)  # disgust, fear
            browser.press("Tab", 9)
            browser.press(" ", 32)  # yes
            browser.press("Tab", 9)
            browser.press("ArrowRight", 39)  # does not
            enter(browser)
        finally:
            browser.call("Emulation.setScriptExecutionDisabled", value=False)
    assert [(row["emotion"], row["describes"], row["follows"]) for row in marks_of(folder)] == [("fear", True, False)]


def test_an_unanswered_question_is_not_saved(browser: Browser, tmp_path: Path) -> None:
    folder = save_pictured(tmp_path, 1)
    with serving([folder]) as server:
        browser.open(server.address)
        type_keys(browser, "4y")
        browser.run("document.querySelector('button').click()")
        assert browser.run("document.querySelector('form').checkValidity()") is False
    assert marks_of(folder) == []


@contextmanager
def started(folder: Path) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """The command in a process of its own, and the address that it printed."""
    command = [sys.executable, "-m", "emor3", "review", str(folder), "--reviewer", "anna", "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        told = process.stdout.readline()
        assert "completions with seed 0" in told, told
        yield process, process.stdout.readline().removeprefix("open ").strip()
    finally:
        process.kill()


def test_marking_goes_on_after_a_reload_and_after_a_kill(browser: Browser, tmp_path: Path) -> None:
    folder = save_pictured(tmp_path, 3)
    with started(folder) as (process, address):
        browser.open(address)
        type_keys(browser, "4yy")
        enter(browser)
        browser.open(browser.run("location.href"))  # reloaded
        assert "1 of 3 marked" in browser.run("document.body.innerText")
        type_keys(browser, "5nn")
        enter(browser)
        process.kill()
        process.communicate()
    assert [row["emotion"] for row in marks_of(folder)] == ["joy", "sadness"]
    with started(folder) as (process, address):
        browser.open(address)
        assert "2 of 3 marked" in browser.run("document.body.innerText")
        assert browser.run("location.pathname") == "/item/2"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate()
    assert process.returncode == 0
    assert out.splitlines()[-1] == "anna has marked 2 of 3"
    assert err == f"next: emor3 report {folder} shows how far judge and people agree, once all have marked\n"


def test_hostile_text_is_shown_and_never_run(browser: Browser, tmp_path: Path) -> None:
    text = " ".join(HOSTILE)
    labels = label_set_from(list(HOSTILE[:-1]), "hostile")
    words = f"<step1>{text}</step1><step2>{text}</step2><step3>{text}</step3>\\boxed{{x}}"
    (base,) = pictured(tmp_path, 1)
    sample = replace(base.sample, labels=labels, label=labels.labels[0], text=text)
    made = replace(
        prediction(labels.labels[0], None, labels=labels), sample=sample, completion=words, thought=parse(words)
    )
    folder = save_evaluation(tmp_path / "a<b>&", {f"data {text}": [made]}, model=text, judge=text)
    with serving([folder]) as server:
        browser.open(server.address)
        type_keys(browser, "1")
        assert browser.run("window.pwned") is None
        assert browser.complaints() == []
        assert browser.run("document.querySelectorAll('iframe, [onerror], [onload], [src=x]').length") == 0
        assert browser.run("document.scripts.length") == 1
        shown = browser.run("document.body.innerText")
        for hostile in HOSTILE[:-1]:
            assert shown.count(hostile) >= 5, hostile  # each step, the text of the sample and a label
        assert {url.split("/")[2] for url in browser.requests()} == {f"127.0.0.1:{server.session.access.port}"}


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_page_is_read_on_a_phone_in_light_and_dark(browser: Browser, tmp_path: Path, dark: bool) -> None:
    with serving([save_pictured(tmp_path, 2)]) as server:
        browser.open(server.address, width=360, height=740, dark=dark)
        type_keys(browser, "4yy")
        assert browser.run("document.documentElement.scrollWidth") == 360
        assert browser.run("getComputedStyle(document.body).backgroundColor") == (
            "rgb(18, 22, 29)" if dark else "rgb(255, 255, 255)"
        )
        for selector in ("h2", "legend", "label bdi", "kbd", "button", "nav a", "header p", ".again"):
            assert contrast(browser, selector) >= 4.5, selector  # WCAG 2.2, 1.4.3
        heights = browser.run("[...document.querySelectorAll('label, button')].map((one) => one.offsetHeight)")
        assert min(heights) >= 44  # pixels that a finger needs


def test_a_page_elsewhere_can_neither_read_nor_mark(browser: Browser, tmp_path: Path) -> None:
    folder = save_pictured(tmp_path, 1)
    with serving([folder]) as server:
        browser.open(server.address)
        token, port = server.session.access.token, server.session.access.port
        other = tmp_path / "other.html"
        fields = {"token": token, "emotion": "3", "describes": "yes", "follows": "yes"}
        inputs = "".join(f'<input name="{name}" value="{value}">' for name, value in fields.items())
        other.write_text(f'<form method="post" action="http://127.0.0.1:{port}/mark/0">{inputs}</form>')
        browser.open(other)
        browser.events.clear()
        browser.run("document.querySelector('form').submit()")
        browser.wait_for_load()
        assert browser.run("document.body.innerText").startswith("Refused")
        browser.open(other)
        read = (
            f"fetch('http://127.0.0.1:{port}/item/0', {{credentials: 'include'}}).then(() => 'read', () => 'kept out')"
        )
        assert browser.run(read) == "kept out"
    assert marks_of(folder) == []
