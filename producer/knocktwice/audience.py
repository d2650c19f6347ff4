"""The calls of a client about people: their devices, numbers, tags and consent, who opts out, and who is erased."""

from __future__ import annotations

from typing import TYPE_CHECKING

from knocktwice import drafts, wire
from knocktwice_shared.errors import InvalidMessage
from knocktwice_shared.messages import APPLICATION
from knocktwice_shared.test_side import is_test

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from knocktwice.drafts import Draft
    from knocktwice.keys import NotificationId
    from knocktwice_shared.messages import Platform


class AudienceCalls:
    """The part of :class:`~knocktwice.Client` that says who people are, and whether they may be texted."""

    _project: str | None = None

    def register_device(
        self,
        user: str,
        registration: str,
        *,
        platform: Platform | str | None = None,
        notifications_enabled: bool | None = None,
        locale: str | None = None,
        time_zone: str | None = None,
        app_version: str | None = None,
    ) -> None:
        """Say that a device is this user's from now on, and nobody else's: at login, whenever a field changes, and now
        and then when the app is opened, because devices that are not seen for long are forgotten.

        Args:
            user: your own id of the person.
            registration: the FCM registration token or FID.
            platform: ``android``, ``ios`` or ``web``.
            notifications_enabled: whether the person lets this app notify; decides ``when="notifications_disabled"``.
                This and what follows, if left out, stays as it was said before; a new device has its notifications on.
            locale: like ``de-AT``.
            time_zone: IANA name, for quiet hours.
            app_version: your app's.

        Raises:
            InvalidMessage: an argument is wrong; it is named.
            BrokerUnavailable: call again; repeats change nothing.
        """
        self._change(
            "register_device",
            user=user,
            registration=registration,
            platform=platform,
            notifications_enabled=notifications_enabled,
            locale=locale,
            time_zone=time_zone,
            app_version=app_version,
        )

    def unregister_device(self, registration: str, *, user: str | None = None) -> None:
        """Say that a device is not this user's any more. Call it at logout.

        Args:
            registration: the FCM registration token or FID.
            user: who logs out. If somebody else has logged in on the device meanwhile, it stays theirs. Left out: the
                device is nobody's any more, whosever it is.

        Raises:
            InvalidMessage: an argument is wrong; it is named.
            BrokerUnavailable: call again; repeats change nothing.
        """
        whose = {} if user is None else {"user": user}
        self._change("unregister_device", registration=registration, **whose)

    def log_out_everywhere(self, user: str) -> None:
        """Say that no device is this user's any more: after a stolen phone or a new password.

        A device on which the user logs in again is theirs again. Errors as for :meth:`register_device`.

        Args:
            user: your own id of the person.
        """
        self._change("log_out_everywhere", user=user)

    def bind_phone(self, user: str, phone: str | None) -> None:
        """Give a user's number for SMS, in E.164; ``None`` forgets it. Errors as for :meth:`register_device`."""
        self._change("bind_phone", user=user, phone=phone)

    def tag_user(
        self, user: str, tags: Mapping[str, Any], *, locale: str | None = None, time_zone: str | None = None
    ) -> None:
        """Say something about a user that segments can ask for. What is not named stays as it is.

        Of two calls about one tag the later counts, in whatever order the workers take them up.

        Args:
            user: your own id of the person; new ones are fine.
            tags: name → text, number, boolean or a list of these; ``None`` removes the tag. At most 4 KB of JSON at
                once.
            locale: the person's language and country, like ``de-AT``. It goes before the locales of their devices.
            time_zone: IANA name.

        Raises:
            InvalidMessage: an argument is wrong; it is named.
            BrokerUnavailable: call again; repeats change nothing.
        """
        said = {name: value for name, value in (("locale", locale), ("time_zone", time_zone)) if value is not None}
        self._change("set_tags", user=user, tags=wire.tags(tags), **said)

    def set_marketing_consent(self, user: str, granted: bool, *, source: str) -> None:
        """Note that a user agrees to marketing by SMS, or no longer does.

        Consent is for the number that the user has: giving another with :meth:`bind_phone` ends what was given before.

        Args:
            user: your own id of the person.
            granted: ``True`` from now on; ``False`` withdraws it.
            source: where they said so, at most 200 characters, like ``"checkout, box 2"``. It is kept as your proof.

        Raises:
            InvalidMessage: an argument is wrong; it is named.
            BrokerUnavailable: call again; repeats change nothing.
        """
        with wire.in_callers_words(wire.one("change", marketing="granted")):
            draft = self._audience("set_consent", user=user, marketing=granted, source=source)
        self._send([draft])

    def opt_out(self, phone: str, *, source: str = APPLICATION, channel: str | None = None) -> None:
        """Say that a number must not be texted any more, in no category, also where an SMS is due already.

        A text such as STOP to one of your senders does the same. Of what is said about a number the latest counts.

        Args:
            phone: the number in E.164.
            source: who says so, at most 200 characters, like ``"letter of 3 May"``. It is kept with the number.
            channel: the only channel that it concerns, by its name; left out, all texts. Pushes go on.

        Raises:
            InvalidMessage: an argument is wrong; it is named.
            BrokerUnavailable: call again; repeats change nothing.
        """
        self._change("opt_out", phone=phone, source=source, **_only(channel))

    def opt_in(self, phone: str, *, source: str = APPLICATION, channel: str | None = None) -> None:
        """Say that a number may be texted again, because its owner asked for it. Arguments and errors as for
        :meth:`opt_out`. With a ``channel`` an opt-out that concerns all texts stays; without one, none does.
        """
        self._change("opt_in", phone=phone, source=source, **_only(channel))

    def erase_user(self, user: str) -> None:
        """Erase a person: who they are, devices, number, tags, consent, and whom, what and where in all their
        notifications.

        What waits for them is cancelled. How many notifications there were, when, and how they ended stays. What was
        said before this call and arrives after it is void; what is said after it is about somebody new.

        Args:
            user: your own id of the person.

        Raises:
            InvalidMessage: the argument is wrong.
            BrokerUnavailable: call again; repeats change nothing.
        """
        self._change("erase_user", user=user)

    def _change(self, change: str, **fields: object) -> None:
        with wire.in_callers_words(wire.one("change")):
            draft = self._audience(change, **fields)
        self._send([draft])

    def _audience(self, change: str, **fields: object) -> Draft:
        if is_test(self._project):
            raise InvalidMessage("test", "a test client changes no people, who are real; make another client for that")
        return drafts.audience(change, **fields)

    def _send(self, ready: Sequence[Draft]) -> list[NotificationId]:
        raise NotImplementedError


def _only(channel: str | None) -> dict[str, str]:
    return {} if channel is None else {"channel": channel}
