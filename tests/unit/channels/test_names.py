"""Nothing outside a channel's own folder names the channel or its provider."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
#: Where the names may stand: the folders themselves, the registries' lines, settings, migrations, and the stand-in.
ALLOWED = (
    "worker/knocktwice_worker/channels/twilio/",
    "worker/knocktwice_worker/channels/registry.py",
    "worker/knocktwice_worker/config/",
    "worker/knocktwice_worker/projects/file.py",
    "worker/knocktwice_worker/database/migrations/",
    "worker/knocktwice_worker/sandbox/",
    "worker/knocktwice_worker/simulated/",
    "worker/knocktwice_worker/cli/simulate.py",
    # The paces of senders, by their settings.
    "worker/knocktwice_worker/flower/figures.py",
    "shared/knocktwice_shared/channels/",
    "producer/knocktwice/channels/",
    # Other products' requests name channels in their own words.
    "worker/knocktwice_worker/gateway/faces/",
    "worker/knocktwice_worker/cli/pushwoosh_export.py",
    # The public name of its class.
    "producer/knocktwice/__init__.py",
)
_SOURCES = {".py", ".sql", ".lua", ".html", ".js", ".css", ".mako", ".ini", ".json", ".yaml"}


def _sources() -> list[Path]:
    folders = (ROOT / name for name in ("worker/knocktwice_worker", "shared/knocktwice_shared", "producer/knocktwice"))
    return [path for folder in folders for path in folder.rglob("*") if path.suffix in _SOURCES]


@pytest.mark.parametrize("name", ["twilio", "whatsapp"])
def test_a_channel_and_its_provider_are_named_in_their_own_folders_only(name: str) -> None:
    sources = _sources()
    assert len(sources) > 150
    naming = {str(path.relative_to(ROOT)) for path in sources if re.search(name, path.read_text(), re.IGNORECASE)}
    assert sorted(path for path in naming if not path.startswith(ALLOWED)) == []
    # The names are there at all, so the search finds them.
    assert any(path.startswith(ALLOWED[0]) for path in naming)
