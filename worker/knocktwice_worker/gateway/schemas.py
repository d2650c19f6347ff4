"""What requests and answers look like, for the OpenAPI document.

Bodies of requests are not checked by these: the contract's validator is the judge, here and in the worker. Tests prove
that both agree.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal, cast
from uuid import UUID

from fastapi import Query
from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, RootModel, WithJsonSchema
from pydantic.config import JsonDict

from knocktwice_shared.channels import CONTENTS, Kind
from knocktwice_shared.messages import (
    AFTER_LIMIT,
    PUSH_BYTES_LIMIT,
    SMS_CHARS_LIMIT,
    STEPS_LIMIT,
    TEMPLATE_NAME_LIMIT,
    TTL_LIMIT,
    Category,
    Platform,
    When,
)
from knocktwice_shared.names import BATCH_LIMIT
from knocktwice_worker.lifecycle import NotificationState

#: Something else than white space, without NUL.
VISIBLE = r"^[^\x00]*[^\s\x00][^\x00]*$"
_LOCAL_TIME = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?$"


def text_of(limit: int) -> Any:
    """A field of text that is not only blanks."""
    return Field(min_length=1, max_length=limit, pattern=VISIBLE)


def Visible(limit: int, description: str | None = None) -> Any:  # noqa: N802 - stands where FastAPI's Query would
    """A parameter of text that is not only blanks."""
    return Query(min_length=1, max_length=limit, pattern=VISIBLE, description=description)


def no_number(value: object) -> object:
    """Refuse a number where a time is meant."""
    # pydantic takes numbers for times, too.
    if isinstance(value, str) and value.replace(".", "", 1).lstrip("+-").isdigit():
        raise ValueError("must be an ISO 8601 time with an offset, like 2026-11-21T09:30:00Z")
    return value


Time = Annotated[AwareDatetime, BeforeValidator(no_number)]
UserId = Annotated[str, text_of(200), Field(description="Your own id of the person.", examples=["u-17"])]
TakenBy = Annotated[
    str | None,
    Field(description="Who took the message; null for a push, and while nobody has.", examples=["acme"]),
]
Registration = Annotated[str, text_of(4_096), Field(description="FCM registration token or FID.")]
Phone = Annotated[
    str,
    Field(
        pattern=r"^\+[ .()-]*[1-9]([ .()-]*[0-9]){6,14}[ .()-]*$",
        description="Number in E.164; blanks, dots, dashes and parentheses in it do no harm.",
        examples=["+16505550100"],
    ),
]
Locale = Annotated[
    str,
    Field(max_length=64, pattern=r"^[A-Za-z]{2,8}([-_][A-Za-z0-9]{1,8})*$", description="Like `de-AT`."),
]
IdempotencyKey = Annotated[
    str, text_of(200), Field(description="The same key never notifies twice.", examples=["order-4711-on-its-way"])
]
Params = Annotated[
    dict[str, Any],
    Field(description="Values for `{{ name }}`; at most 4 KB.", examples=[{"courier": "Ana"}]),
]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class PushBody(_Body):
    """What the push shows; placeholders are filled from `params`."""

    title: Annotated[str, text_of(PUSH_BYTES_LIMIT)] = Field(examples=["Your order is on its way"])
    body: Annotated[str, text_of(PUSH_BYTES_LIMIT)] = Field(examples=["{{ courier }} arrives at 19:30."])
    data: dict[str, str] | None = Field(None, description="Handed to the app, invisible to the person.")
    link: str | None = Field(None, max_length=2_000, pattern="^https?://", description="What a click opens.")
    image: str | None = Field(None, max_length=2_000, pattern="^https?://", description="Address of a picture.")


Condition = When | Annotated[int, Field(ge=0, le=2)]


class SmsBody(_Body):
    """The SMS that follows if the condition still holds."""

    text: Annotated[str, text_of(SMS_CHARS_LIMIT)] | None = Field(None, description="Left out: the push's body.")
    when: Condition | None = Field(
        None, description="The condition, or Tencent's number of it; left out, `not_delivered`."
    )
    after_s: float | None = Field(
        None, ge=0, le=AFTER_LIMIT.total_seconds(), description="Seconds from the push to the SMS; left out, 300."
    )


def _step_fields(schema: JsonDict) -> None:
    """Name the channels, and what each asks for, in the document."""
    properties = cast("dict[str, JsonDict]", schema["properties"])
    properties["channel"]["enum"] = [*CONTENTS]
    for content in CONTENTS.values():
        for name, field in content.fields.items():
            text: JsonDict = {"type": "string", "maxLength": field.limit}
            if field.pattern is not None:
                text["pattern"] = f"^{field.pattern}$"
            texts: JsonDict = {"type": "object", "additionalProperties": text}
            kind: JsonDict = texts if field.kind is Kind.TEXTS else text
            properties.setdefault(name, {"anyOf": [kind, {"type": "null"}], "default": None, "description": field.help})
    schema["additionalProperties"] = False


class StepBody(_Body):
    """One step of a plan. Each counts from the step before it; without a push the first goes at once, without `when`.

    Beside these fields it has those that its channel asks for. They are checked as the contract has it.
    """

    model_config = ConfigDict(extra="allow", json_schema_extra=_step_fields)

    channel: str
    when: Condition | None = Field(None, description="The condition, or Tencent's number of it.")
    after_s: float | None = Field(
        None, ge=0, le=AFTER_LIMIT.total_seconds(), description="Seconds from the step before."
    )
    text: Annotated[str, text_of(SMS_CHARS_LIMIT)] | None = Field(
        None, description="For `sms`; left out, what `sms` or the template says, or the push's body."
    )
    sender: Annotated[str, text_of(64)] | None = Field(None, description="Another sender than the setting's.")


class LocalTimeBody(_Body):
    """A time by the clock on the recipient's wall."""

    local: Annotated[str, Field(pattern=_LOCAL_TIME)] = Field(
        description="Without an offset.", examples=["2026-11-22T09:00:00"]
    )


class RecipientBody(_Body):
    """One person: `user`, or `registrations` and/or `phone`."""

    user: UserId | None = None
    registrations: list[Registration] | None = Field(None, max_length=100)
    phone: Phone | None = None
    params: Params | None = None
    key: IdempotencyKey | None = None
    locale: Locale | None = None


class SharedBody(_Body):
    """What all recipients share."""

    push: PushBody | None = Field(None, description="What to say; or else `template`.")
    template: Annotated[str, text_of(TEMPLATE_NAME_LIMIT)] | None = Field(
        None, description="The name of a template that says it."
    )
    sms: SmsBody | None = Field(None, description="Left out: none follows, or what the template says.")
    plan: list[StepBody] | None = Field(
        None,
        max_length=STEPS_LIMIT,
        description="Steps in place of `sms`, which may then only give the `text` that they share; none: no SMS follows.",
    )
    only: Literal["sms"] | None = Field(None, description="Only the SMS, at once; nothing is pushed.")
    send_at: AwareDatetime | LocalTimeBody | None = Field(
        None, description='When, with an offset, or `{"local": …}` by the recipient\'s own clock; left out, now.'
    )
    category: Category | None = Field(None, description="Left out: `transactional`, or the template's.")
    ttl_s: float | None = Field(None, ge=0, le=TTL_LIMIT.total_seconds(), description="How long the push may wait.")
    reference: dict[str, Any] | None = Field(None, description="Your own ids; at most 4 KB.")


class NotifyOne(SharedBody, RecipientBody):
    """Notify one person."""


class NotifyMany(SharedBody):
    """Notify up to 500 people with the same content. All are accepted, or none."""

    recipients: list[RecipientBody] = Field(min_length=1, max_length=BATCH_LIMIT)


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


class Accepted(BaseModel):
    """The broker has it."""

    ids: list[UUID] = Field(description="The notifications' ids, in the order of the recipients.")


class Queued(BaseModel):
    """The broker has it; a worker will do it in a moment."""

    status: Literal["accepted"] = "accepted"


class Cancel(_Body):
    """Stop notifications, by their ids or by the keys they were sent with."""

    model_config = ConfigDict(json_schema_extra={"example": {"keys": ["order-4711-on-its-way"]}})

    ids: list[UUID] | None = Field(None, max_length=BATCH_LIMIT)
    keys: list[IdempotencyKey] | None = Field(None, max_length=BATCH_LIMIT)


class StepAnswer(BaseModel):
    """Where one step stands."""

    step: int
    channel: str
    state: str
    reason: str | None
    due_at: datetime | None
    provider: TakenBy
    provider_id: str | None = Field(description="What that provider calls it.")
    provider_status: str | None = Field(
        description="What the provider reported last; `unknown` if it never did within its time."
    )
    provider_error: int | str | None = Field(
        description="The provider's error code, a whole number or a word.", examples=[30003, "INVALID_NUMBER"]
    )
    price: str | None = Field(description="What the provider charged, with the currency.", examples=["0.0083 USD"])


class MomentAnswer(BaseModel):
    """One line of the ledger."""

    at: datetime
    kind: str = Field(description="What happened, or the verdict.")
    sentence: str = Field(description="The same for people.")


class Summary(BaseModel):
    """Where a notification stands."""

    id: UUID
    state: NotificationState
    reason: str | None
    user: str | None
    created_at: datetime
    finished_at: datetime | None


class StoryAnswer(Summary):
    """A notification with its steps and what happened, oldest first. Numbers are masked, texts left out."""

    id: UUID
    category: str
    steps: list[StepAnswer]
    moments: list[MomentAnswer]


class HistoryStep(BaseModel):
    """Where one step of a notification stands."""

    channel: str
    state: str
    reason: str | None
    provider: TakenBy


class HistoryEntry(Summary):
    """One notification of the history."""

    category: str
    template: str | None
    key: str | None
    steps: list[HistoryStep]


class History(BaseModel):
    """A page of the history, newest first."""

    messages: list[HistoryEntry]
    next: UUID | None = Field(description="Ask for the next page with `before=` this; null: that was all.")


class Device(_Body):
    """A device of a person."""

    model_config = ConfigDict(json_schema_extra={"example": {"platform": "android", "notifications_enabled": True}})

    platform: Platform | None = None
    notifications_enabled: bool | None = Field(None, description="Left out: true.")
    locale: Annotated[str, text_of(64)] | None = None
    time_zone: Annotated[str, text_of(64)] | None = Field(None, description="IANA name.")
    app_version: Annotated[str, text_of(64)] | None = None


class PhoneBody(_Body):
    """A person's number."""

    model_config = ConfigDict(json_schema_extra={"example": {"phone": "+1 650 555 0100"}})

    phone: Phone


_ITEM = {"type": ["string", "number", "boolean"]}
TagValue = Annotated[Any, WithJsonSchema({"anyOf": [_ITEM, {"type": "array", "items": _ITEM}, {"type": "null"}]})]


class Tags(_Body):
    """What is said about a person; tags that are not named stay, and null removes one."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"tags": {"plan": "gold", "interests": ["tea"]}, "locale": "de-AT"}}
    )

    tags: dict[Annotated[str, text_of(64)], TagValue]
    locale: Annotated[str, text_of(64)] | None = None
    time_zone: Annotated[str, text_of(64)] | None = None


class Consent(_Body):
    """Whether a person agrees to marketing by SMS, and where they said so."""

    model_config = ConfigDict(json_schema_extra={"example": {"granted": True, "source": "checkout, box 2"}})

    granted: bool
    source: Annotated[str, text_of(200)]


class Changes(_Body):
    """Up to 500 changes of people, devices, numbers, tags and consent, as the contract has them."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "changes": [
                    {"change": "register_device", "user": "u-17", "registration": "token-of-a-phone"},
                    {"change": "bind_phone", "user": "u-17", "phone": "+1 650 555 0100"},
                ]
            }
        }
    )

    changes: list[dict[str, Any]] = Field(min_length=1, max_length=BATCH_LIMIT)


class Changed(BaseModel):
    """What became of what was saved."""

    name: str
    change: Literal["created", "updated", "unchanged"]


class TemplateBody(_Body):
    """A template, as a file for `knocktwice apply` declares it."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "default_locale": "en",
                "fallback": {"when": "not_clicked", "after": "10m"},
                "contents": {"en": {"push": {"title": "Your order is ready", "body": "{{ courier }} arrives."}}},
            }
        }
    )

    default_locale: str | None = Field(description="For people of any other language; null refuses them.")
    category: Category = Category.TRANSACTIONAL
    fallback: Literal["never"] | dict[str, Any] | None = None
    signature: Annotated[str, Field(min_length=1, max_length=50)] | None = None
    contents: dict[str, Any] = Field(min_length=1, description="What it says, by language.")


class TemplateLine(BaseModel):
    """One line of the list."""

    name: str
    version: int
    locales: list[str]
    updated_at: datetime


class TemplateList(BaseModel):
    """All templates, by name."""

    templates: list[TemplateLine]


class TemplateAnswer(BaseModel):
    """A template. `version` counts its changes."""

    name: str
    version: int
    updated_at: datetime
    parameters: list[str]
    definition: dict[str, Any]


class PreviewBody(_Body):
    """Who somebody is for whom a template is filled in."""

    model_config = ConfigDict(json_schema_extra={"example": {"params": {"courier": "Ana"}, "locale": "de-AT"}})

    params: dict[str, Any] | list[Any] | None = None
    locale: Locale | None = None


def _preview_fields(schema: JsonDict) -> None:
    """Name what the steps of each channel say, in the document."""
    properties = cast("dict[str, JsonDict]", schema["properties"])
    for content in CONTENTS.values():
        for name, field in content.fields.items():
            kind: JsonDict = {"type": "string"}
            if field.kind is Kind.TEXTS:
                kind = {"type": "object", "additionalProperties": {"type": "string"}}
            properties.setdefault(name, {"anyOf": [kind, {"type": "null"}], "default": None})


class PreviewStep(BaseModel):
    """A step of a template's plan, filled in; what it says is shown as its channel has it."""

    model_config = ConfigDict(extra="allow", json_schema_extra=_preview_fields)

    step: int
    channel: str
    when: str | None = None
    after_s: float
    sender: str | None = None
    text: str | None = Field(None, description="Of an SMS.")
    encoding: str | None = None
    sms_parts: int | None = None


class PreviewAnswer(BaseModel):
    """A template filled in, and what that costs."""

    locale: str
    push: dict[str, Any]
    push_bytes: int
    push_bytes_limit: int
    sms: str
    encoding: str
    sms_parts: int
    steps: list[PreviewStep] = Field(description="What follows the push; empty if whoever sends it says what does.")
    fallback: bool = Field(description="Whether anything may follow the push.")


_FILTER: JsonDict = {"field": "tags.interests", "op": "contains", "value": "tea"}


class SegmentBody(_Body):
    """A saved filter."""

    model_config = ConfigDict(json_schema_extra={"example": {"filter": _FILTER, "description": "Who likes tea."}})

    filter: dict[str, Any]
    description: Annotated[str, Field(max_length=1_000)] = ""


class SegmentPreviewBody(_Body):
    """A filter to be tried out."""

    model_config = ConfigDict(json_schema_extra={"example": {"filter": _FILTER, "sample": 5}})

    filter: dict[str, Any]
    sample: int = Field(0, ge=0, le=100, description="Ids of so many of them, drawn at random.")


class SegmentAnswer(BaseModel):
    """A saved filter."""

    name: str
    description: str
    filter: dict[str, Any]
    updated_at: datetime


class SegmentList(BaseModel):
    """All segments, by name."""

    segments: list[SegmentAnswer]


class MembersAnswer(BaseModel):
    """How many people belong now, and the ids of some."""

    count: int
    sample: list[str]
