"""Our count of SMS parts agrees with Twilio's own calculator."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from knocktwice_worker.content import sms_parts

#: Written by make_sms_parts.js.
CASES = json.loads(Path(__file__).with_name("sms_parts.json").read_text())


@pytest.mark.parametrize("case", CASES, ids=range(len(CASES)))
def test_the_count_is_twilios(case: dict[str, Any]) -> None:
    text = "".join(piece * times for piece, times in case["runs"])
    assert (sms_parts.count(text), sms_parts.encoding(text)) == (case["parts"], case["encoding"])


def test_there_are_enough_cases_of_both_encodings() -> None:
    encodings = [case["encoding"] for case in CASES]
    assert min(encodings.count("GSM-7"), encodings.count("UCS-2")) >= 90
