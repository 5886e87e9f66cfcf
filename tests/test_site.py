"""The documentation as a site: every page has its place, links hold on the disk, quoted messages are those of the code.

`make docs` builds it, and checks anchors and what the pages would load.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import emor3
from docs_pages import PAGES, for_site, titles
from places import ROOT

DOCS = ROOT / "docs"
SETTINGS = yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))
FILES = sorted([*(ROOT / name for name in PAGES), *DOCS.rglob("*.md")])
CODE = re.compile(r"^```.*?^```|`[^`\n]*`", re.MULTILINE | re.DOTALL)


def placed(nav: Any) -> Iterator[str]:
    """Pages of a navigation, from top to bottom."""
    if isinstance(nav, str):
        yield nav
    else:
        for part in nav.values() if isinstance(nav, dict) else nav:
            yield from placed(part)


def links(path: Path) -> Iterator[str]:
    """Targets of the links and pictures of a page that are no web addresses, without their anchors."""
    for target in re.findall(r"\]\(([^)\s]+)\)", CODE.sub("", path.read_text("utf-8"))):
        if not target.startswith(("http://", "https://", "#")):
            yield target.partition("#")[0]


def test_every_page_stands_in_the_navigation_once_and_all_of_its_pages_exist() -> None:
    pages = [path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")]
    assert sorted(placed(SETTINGS["nav"])) == sorted([*pages, *PAGES.values()])
    assert not {*pages} & {*PAGES.values()}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_to_files_of_the_checkout(path: Path) -> None:
    assert [target for target in links(path) if not (path.parent / target).exists()] == []


def test_links_of_the_files_beside_docs_become_those_of_the_site_by_the_titles_of_their_pages() -> None:
    names = titles(SETTINGS["nav"])
    assert for_site(
        "![a](docs/b.svg) [docs/faq.md](docs/faq.md#c) [SECURITY.md](SECURITY.md)", names, from_root=True
    ) == ("![a](b.svg) [Questions](faq.md#c) [SECURITY.md](security.md)")
    assert for_site("[home](../README.md) [README.md](README.md) [d](e.md)", names, from_root=False) == (
        "[home](index.md) [README.md](README.md) [d](e.md)"
    )


def test_the_changelog_sorts_the_changes_of_a_version_by_the_six_kinds_in_one_order() -> None:
    kinds = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"]
    versions = re.split(r"^## ", (ROOT / "CHANGELOG.md").read_text("utf-8"), flags=re.MULTILINE)[1:]
    names = [version.splitlines()[0] for version in versions]
    assert names[0] == "[Unreleased]"
    assert [name for name in names[1:] if not re.fullmatch(r"\[\d+\.\d+\.\d+\]( - \d{4}-\d\d-\d\d)?", name)] == []
    for version in versions:
        headings = re.findall(r"^#{3,} *(.*)$", version, re.MULTILINE)
        assert headings == [kind for kind in kinds if kind in headings]


def test_messages_that_troubleshooting_quotes_are_those_of_the_code() -> None:
    texts = "".join(path.read_text("utf-8") for path in (ROOT / "src").rglob("*.py"))
    said = re.sub(r'"\s*\n\s*f?"', "", texts)
    quoted = re.findall(r"\*\*`([^`]+)`\*\*", (DOCS / "troubleshooting.md").read_text("utf-8"))
    assert len(quoted) > 20
    assert [message for message in quoted if message not in said] == []


def test_the_readme_says_how_many_marks_a_paper_needs_as_the_page_about_reviews_does() -> None:
    (marks,) = re.findall(r"about (\d+) marks of each model", (ROOT / "README.md").read_text("utf-8"))
    page = " ".join((DOCS / "review.md").read_text("utf-8").split())
    assert f"interval of kappa of ±0.1, of one model: about {marks} completions" in page


def test_the_page_of_names_has_every_public_name_once() -> None:
    named = re.findall(r"^::: emor3\.(\w+)$", (DOCS / "api_names.md").read_text("utf-8"), re.MULTILINE)
    assert sorted(named) == sorted({*emor3.__all__} - {"__version__"})


def test_the_site_loads_nothing_from_elsewhere_by_its_settings() -> None:
    assert SETTINGS["theme"]["font"] is False
    assert "offline" in SETTINGS["plugins"]
    assert not any("```mermaid" in path.read_text("utf-8") for path in FILES)  # Material fetches what draws these
