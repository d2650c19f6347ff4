"""The README is short, and what it says about the code is what the code says.

Its blocks run in ``tests/acceptance/test_stack.py``, from top to bottom beside ``make up``.
"""

from __future__ import annotations

from knocktwice_shared.messages import AFTER_LIMIT, When
from knocktwice_worker.config import Settings
from support.documents import README

TEXT = README.read_text()


def test_it_is_read_in_a_few_minutes() -> None:
    assert len(TEXT.splitlines()) <= 200


def test_it_shows_what_people_see() -> None:
    assert "](docs/images/phones.png)" in TEXT


def test_it_names_the_conditions_and_their_bounds() -> None:
    assert all(f"| `{when}` |" in TEXT for when in When)
    assert f"0 seconds to {AFTER_LIMIT.days} days" in TEXT


def test_it_repeats_the_default_limits() -> None:
    settings = Settings()
    assert f"{settings.sms_per_day} SMS per number and day" in TEXT
    assert f"one text only once in {settings.sms_same_content_s:.0f} seconds" in TEXT
