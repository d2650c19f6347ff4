"""The site is built without a warning (a link or an anchor that leads nowhere is one),
and needs nothing from elsewhere.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from support.documents import ROOT

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = _build(ROOT / "mkdocs.yml", folder)
    assert done.returncode == 0, done.stderr
    return folder


def _build(settings: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(
        [*command, "--config-file", str(settings)], env=environment, capture_output=True, text=True, check=False
    )


def test_every_page_is_in_the_menu_and_has_its_picture(site: Path) -> None:
    assert (site / "index.html").is_file()
    assert (site / "recipes" / "order-ready.html").is_file()
    assert (site / "images" / "phones.png").is_file()
    assert not list(site.rglob("*.py"))


def test_it_loads_nothing_from_elsewhere(site: Path) -> None:
    loaded = re.compile(
        r"<(?:script|img|iframe|source)\b[^>]*\bsrc=\"?(https?:|//)|<link\b[^>]*\brel=\"?(?:stylesheet|icon|preconnect)[^>]*\bhref=\"?(https?:|//)"
    )
    assert [page.name for page in site.rglob("*.html") if loaded.search(page.read_text())] == []
    assert [
        sheet.name
        for sheet in site.rglob("*.css")
        if re.search(r"(?:@import|url\()\s*['\"]?https?:", sheet.read_text())
    ] == []
    # Its script would be fetched from elsewhere.
    assert [page.name for page in site.rglob("*.html") if 'class="mermaid"' in page.read_text()] == []


def test_its_search_knows_all_pages_without_a_server(site: Path) -> None:
    index = (site / "search" / "search_index.js").read_text()
    assert all(page.relative_to(site).as_posix() in index for page in site.rglob("*.html") if page.name != "404.html")


@pytest.mark.parametrize("link", ["[gone](gone.md)", "[gone](start.md#gone)", "[gone](../gone.py)"])
def test_a_link_that_leads_nowhere_is_an_error(tmp_path: Path, link: str) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "start.md").write_text(f"# Start\n\n{link}\n")
    text = (
        (ROOT / "mkdocs.yml")
        .read_text()
        .partition("nav:\n")[0]
        .replace("docs/site_hooks.py", str(ROOT / "docs/site_hooks.py"))
    )
    (tmp_path / "mkdocs.yml").write_text(text)
    done = _build(tmp_path / "mkdocs.yml", tmp_path / "site")
    assert done.returncode != 0
    assert "gone" in done.stderr
