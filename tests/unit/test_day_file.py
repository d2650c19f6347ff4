"""The file of a simulated day: its example is right, and each mistake is told with its line and what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from knocktwice_worker.config import Settings
from knocktwice_worker.simulated import file

if TYPE_CHECKING:
    from pathlib import Path

DAY = """\
date: 2026-11-27
people:
  - {name: all, count: 10}
traffic:
  - {name: order, count: 5}
rules:
  as it is: {}
"""


def told(path: Path, text: str) -> list[str]:
    day = path / "day.yaml"
    day.write_text(text)
    with pytest.raises(file.DayFileError) as refused:
        file.read(str(day))
    return str(refused.value).replace(f"{path}/", "").split("\n")


def test_the_example_is_a_day_of_some_hundred_thousand_notifications(tmp_path: Path) -> None:
    path = tmp_path / "day.yaml"
    path.write_text(file.example())
    day = file.read(str(path))
    sent = sum((one.count or 0) + (one.to if one.at else 0) * sum(p.count for p in day.people) for one in day.traffic)
    assert 95_000 < sent < 105_000
    assert len(day.rules) > 1


@pytest.mark.parametrize(
    ("was", "instead", "said"),
    [
        ("date: 2026-11-27", "date: tomorrow", "day.yaml:1:1: date: must be a date, like 2026-11-27"),
        ("count: 10", "counts: 10", "day.yaml:3:5: people[0].count: is missing; 'knocktwice simulate --example'"),
        ("count: 10", "count: 10, phone: 2", "day.yaml:3:28: people[0].phone: Input should be less than or equal to 1"),
        ("count: 10", "count: 10, zone: Mars", "day.yaml:3:28: people[0].zone: "),
        ("count: 5", "count: 5, at: '10:00'", "day.yaml:5:5: traffic[0]: needs either count"),
        ("count: 5", "count: 5, after: soon", "day.yaml:5:29: traffic[0].after: must be seconds or a time like"),
        ("count: 5", "count: 5, after: 5m, plan: [{channel: sms}]", "day.yaml:5:5: traffic[0]: has a plan"),
        (
            "count: 5",
            "count: 5, plan: [{channel: fax}]",
            "day.yaml:5:37: traffic[0].plan[0].channel: Input should be 'sms'",
        ),
        ("{}", "{after: 5m, plan: [{channel: whatsapp}]}", "day.yaml:7:3: rules.as it is: has a plan"),
        (
            "rules:",
            "attacks: [{traffic: tea, country: EE, count: 9, begins: '09:00', lasts: 1h}]\nrules:",
            "day.yaml:1:1: attacks: there is no traffic 'tea' of single notifications",
        ),
        ("{}", "{only: [parcel]}", "day.yaml:7:14: rules.as it is.only: there is no traffic 'parcel'; there is order"),
        ("{}", "{settings: {secret: x}}", "day.yaml:7:3: rules.as it is: settings: secret is no rule"),
        ("{}", "{settings: {sms_per_day: -1}}", "day.yaml:7:3: rules.as it is: settings: sms_per_day: "),
    ],
)
def test_a_mistake_is_told_with_its_line_and_what_to_do(tmp_path: Path, was: str, instead: str, said: str) -> None:
    lines = told(tmp_path, DAY.replace(was, instead, 1))
    assert any(line.startswith(said) for line in lines)
    assert not any("at least 1 item" in line for line in lines)


def test_the_rules_that_can_be_compared_are_settings() -> None:
    assert set(file.RULES) <= set(Settings.model_fields)
    assert not any(word in name for name in file.RULES for word in ("url", "secret", "token", "file", "twilio"))
