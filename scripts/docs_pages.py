"""For the site (hook of mkdocs.yml): the files beside docs/ as pages, so that README is the home page and written once.

Links hold on the disk as well as on the site: here they are turned from one to the other.
"""

import re
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


def on_files(files: Any, config: Any, **_: Any) -> Any:
    """Add the pages that do not lie in docs/."""
    from mkdocs.structure.files import File

    for name, page in PAGES.items():
        text = (ROOT / name).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=for_site(text, from_root=True)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turn the links of the pages in docs/ itself that lead out of it."""
    return markdown if "/" in page.file.src_uri else for_site(markdown, from_root=False)


def for_site(text: str, from_root: bool) -> str:
    """A page's text with the links of the disk turned into those of the site.

    >>> for_site("[a](docs/start.md#b), [c](CHANGELOG.md), [d](https://e.org/docs/)", from_root=True)
    '[a](start.md#b), [c](changelog.md), [d](https://e.org/docs/)'
    >>> for_site("[a](start.md), [b](../CONTRIBUTING.md)", from_root=False)
    '[a](start.md), [b](contributing.md)'
    """

    def turned(link: re.Match[str]) -> str:
        before, docs, target = link.groups()
        if not docs and from_root == (".." not in link[0]) and target in TURNED:
            return f"{before}{TURNED[target]}"
        return f"{before}{target}" if docs and from_root else link[0]

    return LINK.sub(turned, text)
