"""``/v1/templates``: what templates say, and what they look like filled in."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, JsonValue
from pydantic.config import JsonDict

from knocktwice_shared.channels import CONTENTS, Kind
from knocktwice_shared.messages import PUSH_BYTES_LIMIT, SMS_CHARS_LIMIT, Category
from knocktwice_worker.gateway.schemas.contents import AfterS, Condition, PushBody
from knocktwice_worker.gateway.schemas.fields import Body, Described, Locale, UserId, text_of

_Text = Annotated[str, text_of(PUSH_BYTES_LIMIT)]
_Address = Annotated[str, Field(min_length=1, max_length=2_000, pattern=r"^\S+$|\{\{|\{%")]


class TemplatePush(PushBody):
    """The content of the push in one language."""

    title: _Text = Field(examples=["Your order is on its way"])
    body: _Text | None = Field(None, description="Left out: `text`.")  # type: ignore[assignment]
    link: _Address | None = Field(None, description="What a click opens: an address of the web or of the app.")
    image: _Address | None = Field(None, description="`http` or `https` address of a picture.")
    subtitle: _Text | None = Field(None, description="Line between title and body, on iPhones.")


class ContentBody(Body):
    """The texts in one language."""

    text: Annotated[str, text_of(SMS_CHARS_LIMIT)] | None = Field(
        None, description="What every channel says that has no text of its own."
    )
    push: TemplatePush | None = Field(None, description="Left out in all languages: the first step goes at once.")
    sms: Annotated[str, text_of(SMS_CHARS_LIMIT)] | None = Field(
        None, description="Left out: `text`, or else the push's body."
    )


def _channel_fields(schema: JsonDict) -> None:
    """Name the channels, and what each asks for, once for everybody or by language."""
    properties = cast("dict[str, JsonDict]", schema["properties"])
    properties["channel"]["enum"] = [*CONTENTS]
    for content in CONTENTS.values():
        for name, field in content.fields.items():
            text: JsonDict = {"type": "string"}
            texts: JsonDict = {"type": "object", "additionalProperties": text}
            if field.kind is Kind.ADDRESSES:
                properties.setdefault(name, {"description": field.help})
                continue
            kinds: list[JsonValue] = [{"type": "null"}, texts if field.kind is Kind.TEXTS else text]
            if field.localised:
                kinds.append({"type": "object", "additionalProperties": kinds[1]})
            properties.setdefault(name, {"anyOf": kinds, "description": field.help})
    schema["additionalProperties"] = False


class FollowUp(Body):
    """A step behind the push. Beside these fields it has those that its channel asks for."""

    model_config = ConfigDict(extra="allow", json_schema_extra=_channel_fields)

    channel: str = "sms"
    when: Condition | None = Field(
        None, description="The condition, or Tencent's number of it; left out only in a first step without a push."
    )
    after: AfterS | None = Field(
        None, description="How long the step before it gets: seconds, or a time like `10m`; left out likewise."
    )
    text: str | dict[str, str] | None = Field(
        None, description="Its own, for everybody or by language; left out, the content's."
    )
    sender: Annotated[str, text_of(64)] | None = Field(None, description="Another sender than the setting's.")


class TemplateBody(Body):
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
    valid_for: str | float | None = Field(None, description="How long it is of use after it was due, like `10m`.")
    fallback: Literal["never"] | FollowUp | Annotated[list[FollowUp], Field(min_length=1)] | None = Field(
        None, description="What follows the push: one step or several; `never` forbids all, also to the sender."
    )
    signature: Annotated[str, Field(min_length=1, max_length=50)] | None = None
    sender: Annotated[str, text_of(64)] | None = Field(None, description="Another sender than the setting's.")
    contents: dict[str, ContentBody] = Field(min_length=1, description="What it says, by language.")


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
    definition: Annotated[dict[str, Any], Described(TemplateBody)]


class PreviewBody(Body):
    """The person for whom a template is filled in."""

    model_config = ConfigDict(json_schema_extra={"example": {"params": {"courier": "Ana"}, "locale": "de-AT"}})

    params: dict[str, Any] | list[Any] | None = None
    locale: Locale | None = Field(None, description="Left out, that of `user`.")
    user: UserId | None = Field(None, description="Whose tags, language and zone fill it in.")


def _preview_fields(schema: JsonDict) -> None:
    """Name what the steps of each channel say, in the document."""
    properties = cast("dict[str, JsonDict]", schema["properties"])
    for content in CONTENTS.values():
        for name, field in content.fields.items():
            kind: JsonDict = {"type": "string"}
            if field.kind is Kind.TEXTS:
                kind = {"type": "object", "additionalProperties": {"type": "string"}}
            if field.kind is Kind.ADDRESSES:
                kind = {"type": "array", "items": {"type": "string"}}
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
    push: dict[str, Any] | None
    push_bytes: int
    push_bytes_limit: int
    sms: str
    encoding: str
    sms_parts: int
    steps: list[PreviewStep] = Field(description="What follows the push; empty if whoever sends it says what does.")
    fallback: bool = Field(description="Whether anything may follow the push.")
