"""The scripts for pages: served from the package to everybody, kept by browsers, and asked for again by their tag."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

import pytest

from knocktwice_worker import gateway as package

if TYPE_CHECKING:
    from support.http_gateway import HttpGateway


@pytest.mark.parametrize("name", ["knocktwice.js", "knocktwice-worker.js"])
def test_a_script_is_served_to_any_page_and_kept(shared_gateway: HttpGateway, name: str) -> None:
    stranger = shared_gateway.stranger()
    first = stranger.get(f"/{name}")
    assert first.content == files(package).joinpath("scripts", name).read_bytes()
    assert first.headers["Content-Type"] == "text/javascript; charset=utf-8"
    assert "max-age" in first.headers["Cache-Control"]
    assert first.headers["X-Content-Type-Options"] == "nosniff"
    again = stranger.get(f"/{name}", headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    changed = stranger.get(f"/{name}", headers={"If-None-Match": '"of-another-version"'})
    assert changed.status_code == 200


def test_no_script_asks_for_another_server() -> None:
    for script in files(package).joinpath("scripts").iterdir():
        code = [line for line in script.read_text().splitlines() if not line.strip().startswith("//")]
        assert "://" not in "\n".join(code)
