"""The demo in a real browser, from an image to what the models make of it; nothing is asked of another machine.

Needs a Chromium (`apt-get install chromium`); skipped without one.
"""

import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from PIL import Image

from browser import CHROMIUM, Browser
from clips import moving, write_clip
from emor3.demo.looking import DemoSettings
from emor3.demo.serving import LARGEST, build_server, listening, uploads
from emor3.demo.space import export_space
from emor3.evaluation.candidate import Candidate
from steps import writes

pytestmark = [
    pytest.mark.slow,
    pytest.mark.enable_socket,
    pytest.mark.allow_hosts(["127.0.0.1"]),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium found (apt-get install chromium)"),
]

HOSTILE = "<script>window.pwned=1</script><img src=x onerror=window.pwned=1>{{7*7}}${7*7}"
DONE = "document.querySelector('#emor3-status').innerText.includes('Done.')"
FAULT = "document.querySelector('.emor3-fault')?.innerText"
SHOWN = "document.querySelector('[data-testid=image] img')?.src"


@contextmanager
def served(candidates: list[Candidate], settings: DemoSettings) -> Iterator[str]:
    """Address of the page of these models, served from a thread."""
    with listening("127.0.0.1", 0) as door, uploads() as folder:
        server = build_server(candidates, settings, "127.0.0.1", folder)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [door]})
        thread.start()
        yield f"http://127.0.0.1:{door.getsockname()[1]}/"
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def models() -> list[Candidate]:
    return DemoSettings(compare="embedded-hard", max_new_tokens=80).load()


@pytest.fixture(scope="module")
def address(models: list[Candidate]) -> Iterator[str]:
    with served(models, DemoSettings(max_new_tokens=80)) as found:
        yield found


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture
def browser(running: Browser, address: str) -> Browser:
    visit(running, address)
    return running


def visit(browser: Browser, address: str, **settings: Any) -> None:
    """Open the page and wait until it can be used."""
    browser.open(address, **settings)
    browser.wait("document.querySelector('#emor3-status')?.innerText.includes('Choose')")


def press_button(browser: Browser, text: str) -> None:
    button = f"[...document.querySelectorAll('button')].find((b) => b.innerText.includes({text!r}))"
    browser.wait(f"!!{button}")
    browser.run(f"{button}.click()")


def ask(browser: Browser, samples: int = 2) -> None:
    browser.run(
        "{ const field = document.querySelector('input[type=number]');"
        f"field.value = {samples}; field.dispatchEvent(new Event('input', {{bubbles: true}}));"
        "field.dispatchEvent(new Event('blur', {bubbles: true})); }"
    )
    press_button(browser, "Ask")


def answer_of(browser: Browser) -> str:
    return str(browser.run("document.querySelector('#emor3-answer').innerText"))


def asked_elsewhere(browser: Browser, address: str) -> list[str]:
    """Addresses that the page asked for on another machine, or on another port of this one."""
    browser.run("1")  # reads what has happened since
    return [url for url in browser.requests() if not url.startswith((address, "blob:" + address))]


def test_an_image_leads_to_two_answers_within_two_seconds_and_then_to_their_distributions(
    browser: Browser, address: str
) -> None:
    press_button(browser, "rocket, trembling face")
    browser.wait(SHOWN)
    started = time.process_time()  # of the server too, which is a thread here: a busy machine does not count
    ask(browser, samples=3)
    browser.wait("document.querySelectorAll('.emor3-look').length > 0")
    assert time.process_time() - started < 2
    browser.wait(DONE)
    names = browser.run("[...document.querySelectorAll('.emor3-look h3')].map((found) => found.innerText)")
    assert names == ["embedded", "embedded-hard"]
    lefts = browser.run("[...document.querySelectorAll('.emor3-look')].map((one) => one.getBoundingClientRect().left)")
    assert lefts[0] < lefts[1]  # side by side
    said = answer_of(browser)
    for text in ("1. trigger", "2. feeling", "3. conclusion", "another image", "judge: embedded"):
        assert said.count(text) == 2, text
    assert said.count("(Yes ") + said.count("(No ") == 4  # two models, each on its image and another
    assert said.lower().count("abstain") == 2
    assert browser.run("document.querySelectorAll('.emor3-bars li').length") >= 2
    press_button(browser, "The same as JSON")
    browser.wait("document.body.innerText.includes('elsewhere')")
    assert browser.complaints() == []
    press_button(browser, "Use via API")
    browser.wait("document.body.innerText.includes('/look')")
    assert asked_elsewhere(browser, address) == []


def test_what_is_wrong_with_an_image_or_labels_is_a_sentence_on_the_page(browser: Browser, tmp_path: Path) -> None:
    ask(browser)
    assert browser.wait(FAULT) == "There is no image, or it is no longer held: choose one."
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    large = tmp_path / "large.png"
    Image.new("1", (8001, 8000)).save(large)
    for path, fault in ((bad, "The image cannot be read"), (large, "The image has 8001 x 8000 pixels")):
        browser.choose_file("input[type=file]", path)
        browser.wait(f"{SHOWN}?.includes({path.stem!r})")
        ask(browser)
        browser.wait(f"{FAULT}?.startsWith({fault!r})")
        browser.run("document.querySelector('[aria-label=\"Remove Image\"]').click()")
        browser.wait("document.querySelector('input[type=file]') !== null")
    huge = tmp_path / "huge.png"
    huge.write_bytes(bytes(LARGEST + 1))
    browser.choose_file("input[type=file]", huge)
    browser.wait("document.body.innerText.includes('exceed the maximum allowed size of 20')")
    press_button(browser, "rainbow, scowling face")
    browser.wait(SHOWN)
    choose_own_labels(browser)
    ask(browser)
    browser.wait(f"{FAULT}?.includes('needs two labels or more')")
    assert "Traceback" not in browser.run("document.body.innerText")


def choose_own_labels(browser: Browser) -> None:
    """Take the last entry of the list of label sets, by typing its name."""
    field = "document.querySelector('input[aria-label=\"Label set\"]')"
    browser.run(f"{field}.focus(); {field}.select()")
    browser.call("Input.insertText", text="my own")
    browser.press("Enter", 13, "\r")
    browser.wait(f"{field}.value.startsWith('my own,')")


def test_hostile_names_labels_and_completions_are_shown_and_never_run(
    running: Browser, models: list[Candidate], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = f"<step1>{HOSTILE}</step1><step2>{HOSTILE}</step2><step3>{HOSTILE}</step3>\\boxed{{{HOSTILE}}}"
    writes(monkeypatch, models[0].processor.tokenizer, lambda count: [text] * count)
    image = tmp_path / "<img src=x onerror=window.pwned=1>${7*7}.png"
    Image.new("RGB", (64, 64), "teal").save(image)
    with served(models[:1], DemoSettings()) as address:
        visit(running, address)
        running.choose_file("input[type=file]", image)
        running.wait(SHOWN)
        ask(running)
        running.wait(DONE)
        said = answer_of(running)
        assert said.count(HOSTILE) >= 3
        assert "49" not in said
        press_button(running, "The same as JSON")
        running.wait("document.body.innerText.includes('elsewhere')")
        assert running.run("document.querySelectorAll('[src=x]').length") == 0
        running.run("document.querySelector('[aria-label=\"Remove Image\"]').click()")
        running.wait("document.querySelector('input[type=file]') !== null")
        image.write_bytes(bytes(LARGEST + 1))
        running.choose_file("input[type=file]", image)  # its name is told by Gradio, which leaves harmless markup in
        running.wait("document.body.innerText.includes('exceed the maximum allowed size')")
        time.sleep(0.3)  # an image that fails to load would tell it by now
        assert running.run("window.pwned") is None
        assert running.run("document.querySelectorAll('[onerror]').length") == 0
        assert asked_elsewhere(running, address) == []


def test_a_keyboard_alone_leads_from_a_drawing_to_an_answer(browser: Browser) -> None:
    def tab_to(script: str) -> None:
        for _ in range(40):
            browser.press("Tab", 9)
            if browser.run(script):
                assert browser.run("getComputedStyle(document.activeElement).outlineStyle") != "none"
                return
        raise AssertionError(f"not reached by Tab: {script}")

    tab_to("document.activeElement.innerText.includes('rocket, trembling')")
    browser.press("Enter", 13, "\r")
    browser.wait(SHOWN)
    tab_to("document.activeElement.type === 'range'")
    for _ in range(6):
        browser.press("ArrowLeft", 37)
    browser.wait("document.querySelector('input[type=range]').value === '2'")
    tab_to("document.activeElement.innerText.startsWith('Ask')")
    browser.press("Enter", 13, "\r")
    browser.wait(DONE)
    assert browser.run("document.querySelectorAll('#emor3-answer [aria-live], #emor3-status [aria-live]').length") == 2
    tab_to("document.activeElement.tagName === 'SUMMARY'")
    browser.press("Enter", 13, "\r")
    browser.wait("document.querySelector('.emor3-look details').open")


@pytest.mark.parametrize("dark", [False, True])
def test_a_narrow_window_and_both_colour_schemes_are_legible(running: Browser, address: str, dark: bool) -> None:
    visit(running, address, width=360, dark=dark)
    press_button(running, "rocket, trembling face")
    running.wait(SHOWN)
    ask(running)
    running.wait(DONE)
    assert running.run("document.documentElement.scrollWidth") <= 360
    lefts = running.run("[...document.querySelectorAll('.emor3-look')].map((one) => one.getBoundingClientRect().left)")
    assert lefts[0] == lefts[1]  # one below the other
    for selector in (".emor3-look dd", ".emor3-look dt", ".emor3-look dd.is-supported, .emor3-look dd.is-refuted"):
        assert contrast(running, selector) >= 4.5, selector  # WCAG 2.2, AA
    assert (luminance(colour(running, ".emor3-look", "backgroundColor")) < 0.2) == dark


def colour(browser: Browser, selector: str, kind: str) -> list[float]:
    """Red, green and blue (0 to 1) as the browser paints them."""
    painted = browser.run(
        f"(() => {{ const paint = document.createElement('canvas').getContext('2d');"
        f"paint.fillStyle = getComputedStyle(document.querySelector({selector!r})).{kind};"
        "paint.fillRect(0, 0, 1, 1); return [...paint.getImageData(0, 0, 1, 1).data]; })()"
    )
    return [value / 255 for value in painted[:3]]


def luminance(rgb: list[float]) -> float:
    """Relative luminance as WCAG defines it."""
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in rgb]
    return sum(weight * value for weight, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(browser: Browser, selector: str) -> float:
    both = [colour(browser, selector, "color"), colour(browser, ".emor3-look", "backgroundColor")]
    low, high = sorted(map(luminance, both))
    return (high + 0.05) / (low + 0.05)


def status_of(request: urllib.request.Request | str) -> int:
    try:
        with urllib.request.urlopen(request) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_the_server_takes_no_other_name_no_other_site_no_address_and_no_large_upload(address: str) -> None:
    assert status_of(address) == 200
    assert status_of(urllib.request.Request(address, headers={"Host": "evil.example"})) == 400
    assert status_of(urllib.request.Request(address, headers={"Origin": "https://evil.example"})) == 403
    assert status_of(f"{address}gradio_api/file=https://example.com/") == 403
    assert status_of(f"{address}gradio_api/file=/etc/passwd") == 403
    body = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n' + bytes(LARGEST + 1)
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    assert status_of(urllib.request.Request(f"{address}gradio_api/upload", body + b"\r\n--b--\r\n", headers)) == 413


def test_the_documented_endpoint_answers_a_client_and_fetches_nothing(
    address: str, scenes: str, tmp_path: Path
) -> None:
    from gradio_client import Client, handle_file

    client = Client(address, verbose=False, analytics_enabled=False)
    image = handle_file(next(Path(scenes, "images").glob("*.png")))
    page, rows, status = client.predict(image, "typed", "calm, uneasy", 2, api_name="/look")
    assert status == "Done."
    assert [row["model"] for row in rows] == ["embedded", "embedded-hard"]
    assert rows[0]["answer"].keys() >= {"label", "trigger", "consistency", "coherence"}
    assert "emor3-look" in page
    named = {"path": "https://example.com/a.png", "meta": {"_type": "gradio.FileData"}}
    with pytest.raises(Exception, match="the demo fetches nothing"):
        client.predict(named, "typed", "calm, uneasy", 2, api_name="/look")
    clip = handle_file(write_clip(tmp_path / "clip.mp4", moving(1)))
    page, rows, status = client.predict(None, "typed", "calm, uneasy", 2, clip, api_name="/look")
    assert (status, page.count('alt="the frame 4"')) == ("Done.", 2)  # of either model
    with pytest.raises(Exception, match="the demo fetches nothing"):
        client.predict(None, "typed", "calm, uneasy", 2, named, api_name="/look")


def test_a_signal_ends_the_command_with_an_open_page_and_leaves_no_upload(
    main_with: Callable[..., int], running: Browser, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Path] = []

    def look_and_stop() -> None:
        while not (told := capsys.readouterr().out):
            time.sleep(0.1)
        opened.append(Path(os.environ["GRADIO_TEMP_DIR"]))
        try:
            visit(running, told.split()[1])
        finally:
            os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=look_and_stop)
    thread.start()
    status = main_with("demo", "--port", 0)
    thread.join()
    assert status == 130
    assert not opened[0].exists()


def test_the_exported_space_serves_the_page_by_itself(running: Browser, tmp_path: Path) -> None:
    export_space(DemoSettings(), tmp_path / "space")
    log = tmp_path / "log"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"PORT": "0"}
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-u", "app.py"], cwd=tmp_path / "space", env=environment, stdout=out, stderr=out
        )
    try:
        while "http" not in (said := log.read_text()):
            assert process.poll() is None, said
            time.sleep(0.1)
        visit(running, said.split()[-1].replace("0.0.0.0", "127.0.0.1"))
        press_button(running, "rocket, trembling face")
        example = unquote(running.wait(SHOWN)).partition("file=")[2]
        assert Path(example).is_file()
        ask(running, samples=1)
        running.wait(DONE)
    finally:
        process.terminate()
        process.wait()
    assert not Path(example).parents[1].exists()
    assert "Traceback" not in log.read_text()
