"""The rules that make the sandbox misbehave."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, TypeAdapter, model_validator
from pydantic.dataclasses import dataclass

#: Kinds of requests: a push, an SMS, a look at Twilio's list (or at one message), a request for an access token, a
#: question about the account at Twilio or its senders.
Kind = Literal["push", "sms", "list", "token", "account"]
#: The states of a text after Twilio accepted it.
TextStatus = Literal["sending", "sent", "delivered", "read", "undelivered", "failed"]

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]

#: FCM's error codes, https://firebase.google.com/docs/reference/fcm/rest/v1/ErrorCode → HTTP status, Google's status.
FCM_ERRORS = {
    "INVALID_ARGUMENT": (400, "INVALID_ARGUMENT"),
    "UNREGISTERED": (404, "NOT_FOUND"),
    "SENDER_ID_MISMATCH": (403, "PERMISSION_DENIED"),
    "QUOTA_EXCEEDED": (429, "RESOURCE_EXHAUSTED"),
    "UNAVAILABLE": (503, "UNAVAILABLE"),
    "INTERNAL": (500, "INTERNAL"),
    "THIRD_PARTY_AUTH_ERROR": (401, "UNAUTHENTICATED"),
}


@dataclass(frozen=True, slots=True, config=ConfigDict(extra="forbid"))
class Answer:
    """One answer out of the ordinary. As it stands: an ordinary answer.

    Attributes:
        latency: seconds before the answer.
        status: HTTP status of a refusal (429, 503, …).
        error_code: FCM's (``UNREGISTERED``) or Twilio's (``21610``); the status follows from it unless given.
        retry_after: seconds, for the ``Retry-After`` header.
        accept: the message is taken into the books although the answer says otherwise or never comes.
        drop: close the connection instead of answering.
        hang: never answer; ends when the client gives up or the sandbox stops.
        statuses: for a text that is taken: the callbacks that follow, in this order, also late, twice or backwards. An
            ``error_code`` then goes into ``undelivered`` and ``failed`` callbacks, not into the answer.
        status_every: seconds before each of them.
        empty: for a look at the list: as if Twilio's index did not have the messages yet.
        of_project: for a push that is refused with 429: it is the limit of the whole project, not of this device.
        foreign: for a push that is refused: it is no answer of FCM's, but a page of a proxy or of a wrong address.
    """

    latency: Seconds = 0
    status: Annotated[int, Field(ge=400, le=599)] | None = None
    error_code: str | int | None = None
    retry_after: Annotated[int, Field(ge=0)] | None = None
    accept: bool = False
    drop: bool = False
    hang: bool = False
    statuses: tuple[TextStatus, ...] | None = None
    status_every: Seconds = 0.05
    empty: bool = False
    of_project: bool = False
    foreign: bool = False

    @property
    def refuses(self) -> bool:
        """Whether the answer is an error."""
        return self.status is not None or (self.error_code is not None and self.statuses is None)

    @property
    def ordinary(self) -> bool:
        """Whether the request succeeds, if perhaps late."""
        return not (self.refuses or self.drop or self.hang)

    @property
    def books(self) -> bool:
        """Whether the message counts as taken."""
        return self.accept or self.ordinary


#: The answer to every request without a rule.
ORDINARY = Answer()


@dataclass(frozen=True, slots=True, config=ConfigDict(extra="forbid"))
class Rule:
    """Answer some requests out of the ordinary. Of the rules that match, the oldest answers until it is used up.

    Attributes:
        kind: ``push``, ``sms``, ``list``, ``token`` or ``account``.
        match: the registration or number; ``None`` for all.
        times: how many requests it answers; ``None`` for ever.
        answer: what they get.
        for_s: for how many seconds it counts; ``None`` for ever.
    """

    kind: Kind
    match: str | None = None
    times: Annotated[int, Field(ge=1)] | None = None
    answer: Answer = ORDINARY
    for_s: Seconds | None = None

    @model_validator(mode="after")
    def _answer_fits_kind(self) -> Self:
        code = self.answer.error_code
        if self.kind == "push" and code is not None and code not in FCM_ERRORS:
            raise ValueError(f"answer.error_code: must be one of {', '.join(FCM_ERRORS)}")
        if self.kind in ("sms", "list", "account") and isinstance(code, str):
            raise ValueError("answer.error_code: must be one of Twilio's numbers, such as 21610")
        if self.kind in ("token", "account") and self.match is not None:
            raise ValueError("match: this kind of request names no address")
        return self


#: Reads a rule from JSON.
RULE = TypeAdapter(Rule)
