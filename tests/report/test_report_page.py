"""The report in a real browser: hostile text stays text, nothing is fetched, and a keyboard and a screen reader get on.

Needs a Chromium (`apt-get install chromium`); skipped without one.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from test_report import save_run

from browser import CHROMIUM, Browser
from emor3.method.labels import label_set_from
from emor3.report.page import write_report
from emor3.runs.directory import METRICS
from emor3.runs.predictions import EVALUATION, PREDICTIONS, RESULTS
from emor3.runs.records import append_jsonl
from made_up import prediction, save_evaluation

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium found (apt-get install chromium)"),
]

HOSTILE = (
    "<script>window.pwned=1</script>",
    "</script><script>window.pwned=1</script>",
    '"><img src=x onerror="window.pwned=1">',
    "<svg onload=window.pwned=1>",
    "</style></title></textarea><iframe srcdoc='<script>parent.pwned=1</script>'>",
    "<!--<script>window.pwned=1//",
    "{{ 7 * 7 }}{% raw %}${7*7}",
    "javascript:window.pwned=1",
    "$\\frac{1}{$ & \u202e \u2028 \x00",
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    running = Browser(tmp_path_factory.mktemp("profile"))
    yield running
    running.close()


@pytest.fixture(scope="module")
def hostile_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page on which every text that a model, a data set or a recipe may set holds markup."""
    folder = tmp_path_factory.mktemp("hostile")
    text = " ".join(HOSTILE)
    labels = label_set_from(list(HOSTILE[:-1]), "hostile")  # the last one holds what no label may
    made = [
        prediction(label, label, id=f"{n} {text}", labels=labels, judge=text) for n, label in enumerate(labels.labels)
    ]
    where = save_evaluation(folder / "a<b>&", {f"data {text}": made}, model=text, judge=text)
    for name in (EVALUATION, PREDICTIONS, RESULTS):  # replies and steps are read from the records
        content = (where / name).read_text(encoding="utf-8")
        (where / name).write_text(
            content.replace("A dog.", json.dumps(f"A dog. {text} \ud800")[1:-1]), encoding="utf-8"
        )
    run = save_run(folder / "r<i>&", recipe=text)
    append_jsonl(run / METRICS, [{"step": 9, f"canary/{text}": 0.5, f"time/{text}": 1.0, f"rewards/{text}/mean": 0.5}])
    page = folder / "report.html"
    write_report([folder], page)
    return page


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models on the same six images, and a run of two seeds."""
    folder = tmp_path_factory.mktemp("report")
    for seed in (0, 1):
        save_run(folder / f"run{seed}", seed)
    for name, answers in (("base", ("joy", "joy", "fear", None, "joy", "fear")), ("trained", ("joy",) * 6)):
        made = []
        for place, answer in enumerate(answers):
            image, judge = str(folder / f"{place}.png"), "No" if place == 1 else "Yes"
            Image.new("RGB", (32, 32), (40 * place, 90, 90)).save(image)
            truth = "sadness" if place == 5 else "joy"
            votes = {"joy": 0.75, "fear": 0.25}
            made.append(prediction(truth, answer, id=image[:-4], judge=judge, votes=votes, sampled=("joy", None)))
        save_evaluation(folder / name, {"d": made}, model=name, judge="base")
    target = folder / "report.html"
    write_report([folder], target)
    return target


def texts(browser: Browser, selector: str) -> Any:
    return browser.run(f"[...document.querySelectorAll({json.dumps(selector)})].map((found) => found.textContent)")


def shown_images(browser: Browser) -> str:
    """Last characters of the ids in the gallery."""
    return "".join(sorted(name[-1] for name in texts(browser, "#gallery-items .id")))


def choose(browser: Browser, select: str, option: str) -> None:
    """Choose an option by its text, as a person does."""
    browser.run(
        f"{{ const select = document.getElementById({json.dumps(select)});"
        f"select.value = [...select.options].find((found) => found.text === {json.dumps(option)}).value;"
        "select.dispatchEvent(new Event('change', {bubbles: true})); }"
    )


def test_hostile_text_is_shown_and_never_run(browser: Browser, hostile_page: Path) -> None:
    browser.open(hostile_page)
    assert browser.run("window.pwned") is None
    assert browser.complaints() == []
    assert browser.requests() == [hostile_page.as_uri()]
    assert browser.run("document.querySelectorAll('iframe, [onerror], [onload], [src=x]').length") == 0
    assert browser.run("document.scripts.length") == 2  # the data and the page's own
    shown = browser.run("document.body.innerText")
    for text in HOSTILE[:-1]:
        assert shown.count(text) > 5, text
    assert "a<b>&" in shown
    assert browser.run("document.title") == "emor3 report"


def test_an_inline_script_would_be_refused_by_the_content_policy(browser: Browser, page: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.html"
    broken.write_text(page.read_text().replace("</main>", "<script>window.pwned=1</script></main>"))
    browser.open(broken)
    assert browser.run("window.pwned") is None
    assert any("Content Security Policy" in complaint for complaint in browser.complaints())


def test_the_gallery_filters_by_outcome_and_label_and_sets_two_models_side_by_side(
    browser: Browser, page: Path
) -> None:
    browser.open(page)
    assert browser.complaints() == []
    assert texts(browser, "#gallery-items article:first-child h4") == ["base, greedy", "trained, greedy"]
    button = "document.getElementById('gallery-more')"  # there is no more to show
    assert browser.run(f"getComputedStyle({button}).display") == "none"
    for outcome, images in (
        ("unparsed", "3"),
        ("wrong", "25"),
        ("inconsistent", "1"),
        ("correct", "014"),
        ("any", "012345"),
    ):
        choose(browser, "gallery-outcome", outcome)
        assert shown_images(browser) == images
    choose(browser, "gallery-label", "sadness")
    assert texts(browser, "#gallery-items .truth") == ["true label: sadness"]
    assert texts(browser, "#gallery-count") == ["Showing 1 of 1 that fit. The page holds 6 of 6."]
    choose(browser, "gallery-right", "none")
    assert texts(browser, "#gallery-items h4") == ["base, greedy"]
    (bars,) = texts(browser, "#gallery-items .votes")
    assert "joy75%" in bars
    image = "document.querySelector('#gallery-items img')"
    assert browser.run(f"{image}.decode().then(() => {image}.naturalWidth)") == 32


def test_rollouts_of_a_run_are_shown_by_step(browser: Browser, page: Path) -> None:
    browser.open(page)
    choose(browser, "rollouts-run", "run1")
    choose(browser, "rollouts-step", "8")
    assert [name[0] for name in texts(browser, "#rollouts-items .id")] == ["8"] * 4
    assert texts(browser, "#rollouts-count") == ["Showing 4 of 4 rollouts of step 8. The page holds 6 of 8 steps."]
    assert (
        texts(browser, "#rollouts-items h4")[0] == "best: reward 1 (accuracy 1, format 1, consistency 1, coherence 1)"
    )
    findings = texts(browser, "#rollouts-items .findings")[0]
    assert "Does it describe other samples, too?No 70.0%, Yes 30.0%Which emotion" in findings.replace("\n", "")


def test_the_page_is_used_with_the_keyboard_alone(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.press("Tab", 9)
    assert browser.run("document.activeElement.textContent") == "Skip to the report"
    reached = []
    for _ in range(60):
        browser.press("Tab", 9)
        reached.append(browser.run("document.activeElement.id || document.activeElement.tagName"))
    assert {"gallery-set", "gallery-outcome", "rollouts-step", "SUMMARY"} <= set(reached)
    browser.run("document.getElementById('gallery-outcome').focus()")
    browser.press("ArrowDown", 40)
    browser.press("ArrowDown", 40)  # any -> correct -> wrong
    assert shown_images(browser) == "25"


def test_a_screen_reader_finds_a_name_for_everything_it_must_read(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.call("Accessibility.enable")
    nodes = browser.call("Accessibility.getFullAXTree")["nodes"]
    needing = {"combobox", "button", "image", "region", "link", "figure", "checkbox"}
    found = [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes if not node["ignored"]]
    named = [(role, name) for role, name in found if role in needing]
    assert {role for role, _ in named} >= {"combobox", "image", "region", "link"}
    assert [role for role, name in named if not name.strip() and role != "figure"] == []
    assert any(role == "image" and "total reward over training" in name for role, name in named)
    identifiers = browser.run("[...document.querySelectorAll('[id]')].map((found) => found.id)")
    assert len(identifiers) == len(set(identifiers))


def contrast(browser: Browser, selector: str) -> Any:
    """WCAG contrast of an element's text with the nearest background behind it."""
    return browser.run(
        """(() => {
          const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
          const rgb = (colour) => {
            canvas.clearRect(0, 0, 1, 1);
            canvas.fillStyle = colour;
            canvas.fillRect(0, 0, 1, 1);
            return canvas.getImageData(0, 0, 1, 1).data;
          };
          const linear = (v) => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
          const light = (c) => [.2126, .7152, .0722].reduce((sum, weight, i) => sum + weight * linear(c[i] / 255), 0);
          let behind = document.querySelector(SELECTOR);
          const ink = light(rgb(getComputedStyle(behind).color));
          while (rgb(getComputedStyle(behind).backgroundColor)[3] === 0) behind = behind.parentElement;
          const page = light(rgb(getComputedStyle(behind).backgroundColor));
          return (Math.max(ink, page) + .05) / (Math.min(ink, page) + .05);
        })()""".replace("SELECTOR", json.dumps(selector))
    )


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_text_can_be_read_in_light_and_dark(browser: Browser, page: Path, dark: bool) -> None:
    browser.open(page, dark=dark)
    background = browser.run("getComputedStyle(document.body).backgroundColor")
    assert background == ("rgb(18, 22, 29)" if dark else "rgb(255, 255, 255)")
    for selector in (
        "main p",
        ".note",
        "summary",
        "nav a",
        "small",
        ".is-correct",
        ".is-wrong",
        "dt",
        "figcaption",
        "select",
    ):
        assert contrast(browser, selector) >= 4.5, selector  # WCAG 2.2, 1.4.3


def test_a_phone_scrolls_in_one_direction_only(browser: Browser, page: Path, hostile_page: Path) -> None:
    for path in (page, hostile_page):
        browser.open(path, width=390, height=844)
        assert browser.run("document.documentElement.scrollWidth") == 390


def test_a_watched_page_keeps_the_choices_when_it_loads_again(browser: Browser, page: Path, tmp_path: Path) -> None:
    watched = tmp_path / "watched.html"
    write_report([page.parent], watched, refresh=600)
    browser.open(watched)
    choose(browser, "gallery-outcome", "unparsed")
    browser.run("document.getElementById('refresh').click()")
    browser.open(watched)
    assert shown_images(browser) == "3"
    assert browser.run("document.getElementById('refresh').checked") is False
