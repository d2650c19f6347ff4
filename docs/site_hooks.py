"""What mkdocs does beyond its settings: it takes in the documents that stand beside the code, and mends their links.

The README is the first page. A link to another file of the repository, which is no page, becomes its name. A diagram of
states becomes a table, because its script would have to be fetched from elsewhere.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING

from mkdocs.structure.files import File

if TYPE_CHECKING:
    from collections.abc import Callable

    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
#: Document outside of this folder → its page on the site.
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "deploy/README.md": "deploy.md",
    "shared/CONTRACT.md": "contract.md",
    ".github/CONTRIBUTING.md": "contributing.md",
}
_SOURCES = {page: source for source, page in PAGES.items()}

_DIAGRAM = re.compile(r"^```mermaid\nstateDiagram-v2\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_EDGE = re.compile(r"^ *(\S+) --> ([^\s:]+)(?:: (.*))?$", re.MULTILINE)
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s#:]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the documents from elsewhere."""
    for source, page in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001
    """Let links lead from page to page, wherever in the repository their documents stand."""
    here = page.file.src_uri
    source = _SOURCES.get(here, f"docs/{here}")

    def mended(link: re.Match[str]) -> str:
        picture, text, target, anchor = link[1], link[2], link[3], link[4] or ""
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        led = PAGES.get(path) or path.removeprefix("docs/")
        if files.get_file_from_path(led) is None:
            return text if (ROOT / path).exists() else link[0]
        return f"{picture}[{text}]({posixpath.relpath(led, posixpath.dirname(here) or '.')}{anchor})"

    return _outside_of_code(_DIAGRAM.sub(_table, markdown), mended)


def _table(diagram: re.Match[str]) -> str:
    rows = ["| from | to | when |", "|---|---|---|"]
    for old, new, why in _EDGE.findall(diagram[1]):
        rows.append("| {} | {} | {} |".format(*(word.replace("[*]", "*(begin)*") for word in (old, new, why))))
    return "\n".join(rows)


def _outside_of_code(markdown: str, mended: Callable[[re.Match[str]], str]) -> str:
    parts = re.split(r"(^```.*?^```$)", markdown, flags=re.DOTALL | re.MULTILINE)
    return "".join(part if place % 2 else _LINK.sub(mended, part) for place, part in enumerate(parts))
