"""People and their phones in a store."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from knocktwice_shared.messages import DeviceRegistered, PhoneBound
from knocktwice_worker.audience import people
from support.store_book import AT, Book

if TYPE_CHECKING:
    from knocktwice_worker.services import Services


@pytest.fixture
def book(here: Services) -> Book:
    made = Book(here)
    changes = [DeviceRegistered("ada", "reg-ada", AT), PhoneBound("ada", "+16505550100", AT)]
    changes += [
        DeviceRegistered("bob", "reg-bob", AT, notifications_enabled=False),
        PhoneBound("bob", "+16505550101", AT),
    ]
    made(people.apply, changes)
    return made
