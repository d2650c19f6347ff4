"""Our count of SMS parts agrees with Twilio's own calculator."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from knocktwice_worker.content import sms_parts
from knocktwice_worker.sandbox.records import SentText
from knocktwice_worker.sandbox.twilio_json import message

#: Written by make_sms_parts.js.
CASES = json.loads(Path(__file__).with_name("sms_parts.json").read_text())


@pytest.mark.parametrize("case", CASES, ids=range(len(CASES)))
def test_the_count_is_twilios(case: dict[str, Any]) -> None:
    text = "".join(piece * times for piece, times in case["runs"])
    assert (sms_parts.count(text), sms_parts.encoding(text)) == (case["parts"], case["encoding"])


def test_there_are_enough_cases_of_both_encodings() -> None:
    encodings = [case["encoding"] for case in CASES]
    assert min(encodings.count("GSM-7"), encodings.count("UCS-2")) >= 90


def test_a_conjunct_is_several_clusters() -> None:
    assert sms_parts.count("क्षि" * 33) == 2


def test_the_sandbox_counts_the_same() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    text = SentText("SM1", "+16505550100", "€" * 77 + "क्षि" * 33, "sent", now, None, "+16505550199", None)
    assert message(text)["num_segments"] == str(sms_parts.count(text.body)) == "4"
