"""``/v1/notifications``: who gets what, and what follows; examples of it."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, RootModel
from pydantic.config import JsonDict

from knocktwice_shared.messages import SMS_CHARS_LIMIT, STEPS_LIMIT, TEMPLATE_NAME_LIMIT, VALID_FOR_LIMIT, Category
from knocktwice_shared.names import BATCH_LIMIT
from knocktwice_worker.gateway.schemas.contents import LocalTimeBody, PushBody, SmsBody, StepBody, TtlS
from knocktwice_worker.gateway.schemas.fields import (
    Body,
    IdempotencyKey,
    Locale,
    Params,
    Phone,
    ProjectName,
    Registration,
    TagValue,
    UserId,
    text_of,
)
from knocktwice_worker.gateway.schemas.saved import Unfit


class RecipientBody(Body):
    """One person: `user`, or `registrations` and/or `phone`. Beside `user` these and `tags` are remembered first."""

    user: UserId | None = None
    registrations: list[Registration] | None = Field(None, max_length=100)
    phone: Phone | None = None
    params: Params | None = None
    key: IdempotencyKey | None = None
    locale: Locale | None = None
    tags: dict[Annotated[str, text_of(64)], TagValue] | None = None


class SharedBody(Body):
    """The fields that all recipients share."""

    push: PushBody | Literal[False] | None = Field(
        None, description="What to say; or else `template`. `false` beside a template: only its SMS goes, at once."
    )
    template: Annotated[str, text_of(TEMPLATE_NAME_LIMIT)] | None = Field(
        None, description="The name of a template that says it."
    )
    sms: SmsBody | Annotated[str, text_of(SMS_CHARS_LIMIT)] | Literal[False] | None = Field(
        None,
        description="A text alone is its `text`. Left out: none follows, or what the template says; `false`: none, "
        "whatever the template says.",
    )
    plan: list[StepBody] | None = Field(
        None,
        max_length=STEPS_LIMIT,
        description="Steps in place of `sms`, which may then only give the `text` that they share; none: no SMS follows.",
    )
    steps: list[StepBody] | None = Field(
        None, max_length=STEPS_LIMIT, description="Another name of `plan`; give one of the two."
    )
    default_locale: Locale | None = Field(
        None,
        description="The language of people of any other or an unknown one, where texts are by language; left out, `en` "
        "if it is one of them. All texts by language have the same languages.",
    )
    only: Literal["sms"] | None = Field(None, description="Only the SMS, at once; nothing is pushed.")
    send_at: AwareDatetime | LocalTimeBody | None = Field(
        None, description='When, with an offset, or `{"local": …}` by the recipient\'s own clock; left out, now.'
    )
    category: Category | None = Field(None, description="Left out: `transactional`, or the template's.")
    ttl_s: TtlS | None = Field(None, description="How long the push may wait, in seconds.")
    ttl: TtlS | None = Field(None, description='The same, also like `"2h"`; give one of the two.')
    valid_for_s: float | None = Field(
        None,
        ge=1,
        le=VALID_FOR_LIMIT.total_seconds(),
        description="How long after it was due a push or a message is still of use; left out, the template's, or the "
        "category's setting. What is held up for longer is not sent any more.",
    )
    reference: dict[str, Any] | None = Field(None, description="Your own ids; at most 4 KB.")
    project: ProjectName = None


class NotifyOne(SharedBody, RecipientBody):
    """Notify one person."""


class NotifyMany(SharedBody):
    """Notify up to 500 people with the same content. Those that cannot be notified are named, the others are."""

    strict: bool = Field(False, description="Notify all or none. Left out: the fit ones are, the others named.")

    recipients: list[RecipientBody | UserId] = Field(
        min_length=1, max_length=BATCH_LIMIT, description="A text alone is a `user`."
    )


ONE_EXAMPLE: JsonDict = {
    "user": "u-17",
    "push": {"title": "Your order is on its way", "body": "{{ courier }} arrives at 19:30."},
    "sms": {"text": "Your order arrives at 19:30.", "when": "not_clicked", "after_s": 300},
    "params": {"courier": "Ana"},
}


MANY_EXAMPLE: JsonDict = {
    "recipients": [
        {"user": "u-17", "params": {"courier": "Ana"}, "key": "order-4711-on-its-way"},
        {"registrations": ["token-of-a-phone"], "phone": "+1 650 555 0100", "params": {"courier": "Ben"}},
    ],
    "template": "order_ready",
}


#: Two SMS, and not before nine where the person lives.
PLANNED_EXAMPLE: JsonDict = {
    "user": "u-17",
    "push": {"title": "Your parcel is here", "body": "Pick it up until {{ day }}."},
    "plan": [
        {"channel": "sms", "when": "not_clicked", "after_s": 600},
        {"channel": "sms", "when": "not_delivered", "after_s": 3600, "text": "Pick up your parcel until {{ day }}."},
    ],
    "send_at": {"local": "2026-11-22T09:00:00"},
    "params": {"day": "Friday"},
}


class Notify(RootModel[NotifyOne | NotifyMany]):
    """Notify one person or many."""

    model_config = ConfigDict(json_schema_extra={"examples": [ONE_EXAMPLE, MANY_EXAMPLE, PLANNED_EXAMPLE]})


class Repeated(BaseModel):
    """A recipient whose key was used before."""

    index: int = Field(description="Its place among the recipients, from 0.")
    id: UUID = Field(description="The notification that the key was first used for.")
    differs: bool = Field(
        description="Whether that one says something else, or is for somebody else: then the key was probably reused by "
        "mistake."
    )


class Accepted(BaseModel):
    """The broker has it."""

    ids: list[UUID | None] = Field(
        description="The notifications' ids, in the order of the recipients; of a key that was used before, the first id; "
        "null: refused."
    )
    duplicate: bool = Field(description="Whether any `key` was used before, so that nobody is notified by it again.")
    differs: bool = Field(description="Whether any of these was used for something else.")
    duplicates: list[Repeated] = Field(description="Which these are.")
    refused: list[Unfit] = Field(description="Which recipients were not taken. Sending them again does not help.")
    test: bool = Field(
        False, description="The key is a test key, so no provider will be called. Left out with a real key."
    )


class Cancel(Body):
    """Stop notifications, by their ids or by the keys they were sent with; a single one also by `id` or `key`."""

    model_config = ConfigDict(json_schema_extra={"example": {"keys": ["order-4711-on-its-way"]}})

    ids: list[UUID] | None = Field(None, max_length=BATCH_LIMIT)
    keys: list[IdempotencyKey] | None = Field(None, max_length=BATCH_LIMIT)
    id: UUID | None = None
    key: IdempotencyKey | None = None
    project: ProjectName = Field(None, description="Whose these are; those of others are left alone.")
