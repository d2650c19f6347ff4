"""Alerts and dashboard look at series that exist, and each alert leads to what is to be done."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess

import pytest

from knocktwice_worker.metrics.series import SERIES, Kind
from support.watched import ALERTS, DASHBOARD, RUNBOOKS, alerts, names

_SUFFIXES = {Kind.COUNTER: ("_total",), Kind.GAUGE: ("",), Kind.HISTOGRAM: ("_bucket", "_sum", "_count")}


def test_each_name_is_a_series_with_the_ending_of_its_kind() -> None:
    known = {f"{series.name}{suffix}" for series in SERIES.values() for suffix in _SUFFIXES[series.kind]}
    assert names()
    assert names() <= known


def test_the_dashboard_shows_every_series() -> None:
    shown = DASHBOARD.read_text()
    missing = {name for name in SERIES if name not in shown} - {"knocktwice_build_info"}
    assert missing == set()


def test_panels_have_their_own_ids_and_places() -> None:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len({(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}) == len(panels)


def test_each_alert_has_a_section_and_each_section_an_alert() -> None:
    sections = re.findall(r"^## (\w+)$", RUNBOOKS.read_text(), re.MULTILINE)
    assert [rule["alert"] for rule in alerts()] == sections
    for rule in alerts():
        assert rule["annotations"]["runbook"] == f"docs/runbooks.md#{rule['alert'].lower()}"
        assert rule["annotations"]["summary"].endswith(".")
        assert rule["labels"]["severity"] in ("warning", "critical")


@pytest.mark.skipif(
    shutil.which("promtool") is None and "CI" not in os.environ, reason="promtool (apt install prometheus) is not here"
)
def test_promtool_takes_the_rules() -> None:
    done = subprocess.run(["promtool", "check", "rules", ALERTS], capture_output=True, text=True, check=False)  # noqa: S607
    assert done.returncode == 0, done.stderr
