"""OneSignal's ids of people and subscriptions: always the same ones for the same person, device or number."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID, uuid5

from knocktwice_worker.audience.aliases import Alias

if TYPE_CHECKING:
    from knocktwice_worker.audience.profile import Profile

#: The alias that is the application's own id of the person.
EXTERNAL = "external_id"
#: The alias by which OneSignal knows a person.
ONESIGNAL = "onesignal_id"
#: The label of the aliases that are ids of subscriptions; players are the same by their older name.
SUBSCRIPTION = "onesignal subscription"
#: The beginning of the ids of people of whom no external id is known.
ANONYMOUS = "onesignal:"
_SPACE = UUID("3d4b5c1e-0a0f-5c27-9d0b-6b1c7f1f2a11")


def label(theirs: str) -> str:
    """Return the label under which an alias of OneSignal's is kept."""
    return theirs if theirs == ONESIGNAL else f"onesignal alias {theirs}"


def alias_label(kept: str) -> str | None:
    """Return what OneSignal calls an alias; ``None`` for one that is no name of a person."""
    if kept == ONESIGNAL:
        return kept
    return kept.removeprefix("onesignal alias ") if kept.startswith("onesignal alias ") else None


def person(user: str) -> str:
    """Return the OneSignal id of a person."""
    return str(uuid5(_SPACE, f"user:{user}"))


def device(registration: str) -> str:
    """Return the id of the subscription of a device."""
    return str(uuid5(_SPACE, f"device:{registration}"))


def number(user: str) -> str:
    """Return the id of the subscription that is a person's number."""
    return str(uuid5(_SPACE, f"number:{user}"))


def stranger_with(token: str, *, sms: bool) -> str:
    """Return the id here of a person without an external id, of whom only a token or a number is known."""
    return stranger(f"{sms} {token}")


def stranger(seed: str) -> str:
    """Return the id here of a person of whom nothing but this is known."""
    return f"{ANONYMOUS}{uuid5(_SPACE, f'stranger:{seed}')}"


def of_device(user: str, registration: str) -> Alias:
    """Return the alias of a device."""
    return Alias(SUBSCRIPTION, device(registration), user, registration)


def of_number(user: str) -> Alias:
    """Return the alias of a person's number."""
    return Alias(SUBSCRIPTION, number(user), user)


def of_person(user: str) -> Alias:
    """Return the alias of a person."""
    return Alias(ONESIGNAL, person(user), user)


def of_profile(found: Profile) -> list[Alias]:
    """Return the aliases of a person, of the number and of the devices."""
    own = [of_person(found.user), *(of_device(found.user, one.registration) for one in found.devices)]
    return [*own, of_number(found.user)] if found.phone is not None else own
