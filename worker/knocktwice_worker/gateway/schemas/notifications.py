"""``/v1/notifications``: who gets what, and what follows; examples of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, cast
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, JsonValue, RootModel, WithJsonSchema
from pydantic.config import JsonDict

from knocktwice_shared.channels import CONTENTS, Kind
from knocktwice_shared.messages import (
    AFTER_LIMIT,
    PUSH_BYTES_LIMIT,
    SMS_CHARS_LIMIT,
    STEPS_LIMIT,
    TEMPLATE_NAME_LIMIT,
    TTL_LIMIT,
    VALID_FOR_LIMIT,
    Category,
    Priority,
    When,
)
from knocktwice_shared.messages.platforms import PLATFORMS, Is
from knocktwice_shared.names import BATCH_LIMIT
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

_LOCAL_TIME = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?$"


#: A text for everybody, or one for each language.
_Said = Annotated[str, text_of(PUSH_BYTES_LIMIT)]
_ADDRESS = Field(min_length=1, max_length=2_000, pattern=r"^\S+$|\{\{|\{%")
_Name = Annotated[str, text_of(200)]
_OF_ONE_LANGUAGE: list[JsonDict] = [
    {"type": "string", "minLength": 1, "maxLength": 2_000},
    {"type": "array", "items": {"type": "string", "minLength": 1, "maxLength": 2_000}, "minItems": 1, "maxItems": 10},
]
_Media = Annotated[
    Any,
    WithJsonSchema(
        {"anyOf": [*_OF_ONE_LANGUAGE, {"type": "object", "additionalProperties": {"anyOf": _OF_ONE_LANGUAGE}}]}
    ),
]
_SmsText = Annotated[str, text_of(SMS_CHARS_LIMIT)]


def _platform(name: str, schema: str) -> Any:
    """FCM's fields for one platform, with their types, for the document."""
    says = f"Fields of FCM's `{schema}`; they win over the others here. Tags, collapse ids and times to live are ours."
    return Annotated[dict[str, Any], WithJsonSchema({**_fields(PLATFORMS[name]), "description": says})]


def _fields(table: Mapping[str, Any]) -> JsonDict:
    ours = ("tag", "ttl", "collapse_key")
    properties: JsonDict = {name: _field(takes) for name, takes in table.items() if name not in ours}
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _field(takes: Any) -> JsonDict:
    if isinstance(takes, dict):
        return _fields(takes)
    if isinstance(takes, tuple):
        # Generators name the members of an enum after its words, in capitals.
        spellings: list[JsonValue] = [[*takes], [word.lower() for word in takes]]
        return {"anyOf": [{"type": "string", "enum": words} for words in spellings]}
    return _TAKES[takes]


_TEXT: JsonDict = {"type": "string"}
_DURATION: JsonDict = {"type": "string", "pattern": r"^[0-9]+(\.[0-9]{1,9})?s$"}
_TAKES: Mapping[Is, JsonDict] = {
    Is.TEXT: _TEXT,
    Is.FLAG: {"type": "boolean"},
    Is.WHOLE: {"type": "integer", "minimum": 0, "maximum": 2**31 - 1},
    Is.NUMBER: {"type": "number", "minimum": 0, "maximum": 1},
    Is.DURATION: _DURATION,
    Is.MOMENT: {"type": "string", "format": "date-time"},
    Is.LIST: {"type": "array", "items": _TEXT},
    Is.DURATIONS: {"type": "array", "items": _DURATION},
    Is.DATA: {"type": "object", "additionalProperties": _TEXT},
    Is.HEADERS: {"type": "object", "additionalProperties": _TEXT},
    Is.ANY: {"type": "object"},
}


class PushBody(Body):
    """The content of the push. Placeholders are filled from `params`."""

    title: _Said | dict[str, _Said] = Field(
        description="One text, or one for each language.",
        examples=["Your order is on its way", {"en": "Your order is on its way", "de": "Ihre Bestellung kommt"}],
    )
    body: _Said | dict[str, _Said] = Field(
        description="One text, or one for each language.", examples=["{{ courier }} arrives at 19:30."]
    )
    data: dict[str, str] | None = Field(None, description="Handed to the app, invisible to the person.")
    link: Annotated[str, _ADDRESS] | dict[str, Annotated[str, _ADDRESS]] | None = Field(
        None,
        description="What a click opens: an address of the web or of the app; or one for each language.",
        examples=["https://shop.example/orders/{{ id }}", "myapp://orders/7"],
    )
    image: Annotated[str, _ADDRESS] | dict[str, Annotated[str, _ADDRESS]] | None = Field(
        None, description="`http` or `https` address of a picture; or one for each language."
    )
    subtitle: _Said | dict[str, _Said] | None = Field(
        None, description="Line between title and body, on iPhones; or one for each language."
    )
    sound: _Name | None = Field(
        None,
        description="A sound file in the app; left out, the phone's own; `none`: no sound.",
        examples=["chime.caf"],
    )
    badge: (
        Annotated[int, Field(ge=0, lt=2**31)] | Annotated[str, Field(pattern=r"\{\{.*\}\}", max_length=200)] | None
    ) = Field(None, description="Number on the app's icon, on iPhones; 0 removes it.")
    channel_id: _Name | None = Field(None, description="Notification channel, on Android.")
    priority: Priority | None = Field(None, description="Left out, `high`.")
    icon: _Name | None = Field(None, description="A drawable in the app, on Android.")
    color: str | None = Field(
        None,
        max_length=200,
        pattern=r"^#[0-9A-Fa-f]{6}$|\{\{.*\}\}",
        description="The icon's, on Android.",
        examples=["#00aa55"],
    )
    android: _platform("android", "AndroidConfig") | None = None  # type: ignore[valid-type]
    apns: _platform("apns", "ApnsConfig") | None = None  # type: ignore[valid-type]
    webpush: _platform("webpush", "WebpushConfig") | None = None  # type: ignore[valid-type]


Condition = When | Annotated[int, Field(ge=0, le=2)]

#: A span of time as people write it.
Written = Annotated[str, Field(pattern=r"^\s*[0-9]+(\.[0-9]+)?\s*[smhd]\s*$", examples=["10m"])]
AfterS = Annotated[float, Field(ge=0, le=AFTER_LIMIT.total_seconds())] | Written
TtlS = Annotated[float, Field(ge=0, le=TTL_LIMIT.total_seconds())] | Written


class SmsBody(Body):
    """The SMS that follows if the condition still holds; without a push and a template it goes at once."""

    text: _SmsText | dict[str, _SmsText] | None = Field(
        None, description="One text, or one for each language. Left out: the push's body."
    )
    media: _Media = Field(
        None,
        description="Pictures or other files that go with the text: one `https` address, a list of up to ten, or either "
        "for each language. The provider fetches them.",
        examples=[["https://shop.example/parcels/{{ id }}.png"]],
    )
    when: Condition | None = Field(
        None, description="The condition, or Tencent's number of it; left out, `not_delivered`."
    )
    after_s: AfterS | None = Field(None, description="Seconds from the push to the SMS; left out, 300.")
    after: AfterS | None = Field(None, description='The same, also like `"10m"`; give one of the two.')
    sender: Annotated[str, text_of(64)] | None = Field(None, description="Another sender than the setting's.")


def _step_fields(schema: JsonDict) -> None:
    """Name the channels, and what each asks for, in the document."""
    properties = cast("dict[str, JsonDict]", schema["properties"])
    properties["channel"]["enum"] = [*CONTENTS]
    for content in CONTENTS.values():
        for name, field in content.fields.items():
            if field.kind is Kind.ADDRESSES:
                properties.setdefault(name, {"default": None, "description": field.help})
                continue
            text: JsonDict = {"type": "string", "maxLength": field.limit}
            if field.pattern is not None:
                text["pattern"] = f"^{field.pattern}$"
            texts: JsonDict = {"type": "object", "additionalProperties": text}
            kinds: list[JsonValue] = [texts] if field.kind is Kind.TEXTS else [text]
            kinds += [texts] if field.localised else []
            properties.setdefault(
                name, {"anyOf": [*kinds, {"type": "null"}], "default": None, "description": field.help}
            )
    schema["additionalProperties"] = False


class StepBody(Body):
    """One step of a plan. Each counts from the step before it; without a push the first goes at once, without `when`.

    Beside these fields it has those that its channel asks for. They are checked as the contract has it.
    """

    model_config = ConfigDict(extra="allow", json_schema_extra=_step_fields)

    channel: str
    when: Condition | None = Field(
        None, description="The condition, or Tencent's number of it; left out, `not_delivered`."
    )
    after_s: AfterS | None = Field(None, description="Seconds from the step before; left out, 300.")
    after: AfterS | None = Field(None, description='The same, also like `"10m"`; give one of the two.')
    text: _SmsText | dict[str, _SmsText] | None = Field(
        None,
        description="For `sms`: one text, or one for each language; left out, what `sms` or the template says, or the "
        "push's body.",
    )
    sender: Annotated[str, text_of(64)] | None = Field(None, description="Another sender than the setting's.")


class LocalTimeBody(Body):
    """A time by the clock on the recipient's wall."""

    local: Annotated[str, Field(pattern=_LOCAL_TIME)] = Field(
        description="Without an offset.", examples=["2026-11-22T09:00:00"]
    )


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
