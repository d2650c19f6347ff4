"""What Prometheus is told to look at: the names of series in the alerts and in the dashboard."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent.parent
ALERTS = ROOT / "deploy" / "prometheus" / "alerts.yaml"
DASHBOARD = ROOT / "deploy" / "grafana" / "knocktwice.json"
RUNBOOKS = ROOT / "docs" / "runbooks.md"
_NAME = re.compile(r"\bknocktwice_\w+")


def alerts() -> list[dict[str, Any]]:
    """Return the rules."""
    (group,) = yaml.safe_load(ALERTS.read_text())["groups"]
    return list(group["rules"])


def expressions() -> list[str]:
    """Return every expression of alerts and dashboard."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return [rule["expr"] for rule in alerts()] + [t["expr"] for panel in panels for t in panel["targets"]]


def names() -> set[str]:
    """Return the names of the samples that are looked at."""
    return {name for expression in expressions() for name in _NAME.findall(expression)}
