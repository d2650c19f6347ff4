"""Virtual phones: what a registration does with a push."""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated

from pydantic import ConfigDict, Field, TypeAdapter
from pydantic.dataclasses import dataclass

from knocktwice_worker.sandbox.rules import Seconds  # noqa: TC001 - pydantic reads the annotation

#: Seconds until a phone without a description reports, if its registration says that it reports at all.
_SOON_DELIVERED, _SOON_CLICKED = 0.1, 0.3


@dataclass(frozen=True, slots=True, config=ConfigDict(extra="forbid"))
class Phone:
    """A device with the app on it.

    Attributes:
        registration: FCM registration token or FID.
        delivered_after: seconds from the push to the app's delivery receipt; ``None``: no receipt.
        clicked_after: seconds from the push to the tap, if the push is still shown by then; ``None``: nobody taps.
        registered: ``False``: the app was removed, FCM answers ``UNREGISTERED``.
        number: the phone's number, so that the page shows its texts beside its pushes.
        name: the owner's name on the page.
        user: the application's id of the owner; ``None``: the phone belongs to nobody that the application knows.
        notifications_enabled: ``False``: the phone shows no push.
        offline: airplane mode; pushes and texts wait for the phone.
    """

    registration: Annotated[str, Field(min_length=1)]
    delivered_after: Seconds | None = 0.1
    clicked_after: Seconds | None = None
    registered: bool = True
    number: str | None = None
    name: str | None = None
    user: str | None = None
    notifications_enabled: bool = True
    offline: bool = False


#: Reads a phone from JSON.
PHONE = TypeAdapter(Phone)


@lru_cache(maxsize=10_000)
def undescribed(registration: str) -> Phone:
    """Return the phone that an unknown registration stands for, by how its name begins.

    ``clicks…`` delivers, then clicks; ``delivers…`` delivers only; ``gone…`` is unregistered; all others are silent.
    """
    return Phone(
        registration,
        delivered_after=_SOON_DELIVERED if registration.startswith(("clicks", "delivers")) else None,
        clicked_after=_SOON_CLICKED if registration.startswith("clicks") else None,
        registered=not registration.startswith("gone"),
    )
