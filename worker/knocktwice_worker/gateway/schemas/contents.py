"""What is said: the push, the SMS and other steps, with FCM's fields for each platform."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, cast

from pydantic import ConfigDict, Field, JsonValue, WithJsonSchema
from pydantic.config import JsonDict

from knocktwice_shared.channels import CONTENTS, Kind
from knocktwice_shared.messages import AFTER_LIMIT, PUSH_BYTES_LIMIT, SMS_CHARS_LIMIT, TTL_LIMIT, Priority, When
from knocktwice_shared.messages.platforms import PLATFORMS, Is
from knocktwice_worker.gateway.schemas.fields import Body, text_of

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
