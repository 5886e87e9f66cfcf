"""For the site (hook of mkdocs.yml): the files beside docs/ as pages, so that README is the home page and written once.

Links hold on the disk as well as on the site: here they are turned from one to the other.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
}
"""File of the repository -> its page."""
TURNED = {**PAGES, "CITATION.cff": "cite.md"}
LINK = re.compile(r"(!?\[[^\]]*\]\()(?:\.\./)*(docs/)?([\w./-]+)")
"""A link, and its target without what stands before the page on the disk."""
NAMED = re.compile(r"\[(?:docs/)?([\w/]+\.md)\](?=\()")
"""A link that is called by its file, as [docs/start.md]."""


def titles(nav: Any) -> dict[str, str]:
    """Title of each page in a navigation.

    >>> titles([{"Home": "index.md"}, {"Use": [{"Data sets": "datasets.md"}]}])
    {'index.md': 'Home', 'datasets.md': 'Data sets'}
    """
    found = dict[str, str]()
    for title, place in (pair for part in nav for pair in part.items()):
        found |= {place: title} if isinstance(place, str) else titles(place)
    return found


def on_files(files: Any, config: Any, **_: Any) -> Any:
    """Add the pages that do not lie in docs/."""
    from mkdocs.structure.files import File

    for name, page in PAGES.items():
        text = (ROOT / name).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=for_site(text, titles(config.nav), from_root=True)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, **_: Any) -> str:
    """Turn the links of the pages in docs/ itself that lead out of it."""
    return markdown if "/" in page.file.src_uri else for_site(markdown, titles(config.nav), from_root=False)


def for_site(text: str, titles: Mapping[str, str], from_root: bool) -> str:
    """A page's text with the links of the disk turned into those of the site, and called by the titles of their pages.

    >>> for_site("[a](docs/b.md#c), [d](CHANGELOG.md), [e](https://e.org/docs/)", {}, from_root=True)
    '[a](b.md#c), [d](changelog.md), [e](https://e.org/docs/)'
    >>> for_site("[start.md](start.md#b), [c](../CONTRIBUTING.md)", {"start.md": "Start"}, from_root=False)
    '[Start](start.md#b), [c](contributing.md)'
    """

    def turned(link: re.Match[str]) -> str:
        before, docs, target = link.groups()
        if not docs and from_root == (".." not in link[0]) and target in TURNED:
            return f"{before}{TURNED[target]}"
        return f"{before}{target}" if docs and from_root else link[0]

    called = NAMED.sub(lambda name: f"[{titles.get(name[1], name[1])}]", text)
    return LINK.sub(turned, called)
