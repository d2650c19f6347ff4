"""The part of the SMS providers' file about callbacks: their verification, and the paths of the values in them."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, StrictInt, StrictStr, field_validator, model_validator

from knocktwice_worker.channels.http_sms import json_paths
from knocktwice_worker.channels.http_sms.terms import BasicAuth, HeaderName, Path, Scalar, Secret, Strict
from knocktwice_worker.lifecycle import ProviderState, Untextable

if TYPE_CHECKING:
    from collections.abc import Mapping


#: An error code as the file writes it. The empty text is not allowed: it would match a message without a code.
Code = StrictInt | Annotated[StrictStr, Field(min_length=1)]


#: What is wrong, in the operator's own words.
Sentence = Annotated[StrictStr, Field(min_length=1, max_length=200)]


class Reported(StrEnum):
    """The state of a message in a callback, in the file's words."""

    #: The message is on its way to the mobile operator.
    SENT = "sent"
    #: The message is on the phone.
    DELIVERED = "delivered"
    #: The mobile operator did not deliver the message.
    UNDELIVERED = "undelivered"
    #: The provider could not send the message.
    FAILED = "failed"
    #: A person opened the message.
    READ = "read"
    #: The provider could not send the message, because the recipient has opted out.
    OPTED_OUT = "opted_out"

    @property
    def state(self) -> ProviderState:
        """The state that a message gets by it."""
        return ProviderState.FAILED if self is Reported.OPTED_OUT else ProviderState(self)


class Hmac(Strict):
    """A header with the HMAC of the unchanged body.

    Attributes:
        header: the header's name.
        secret: the key of the HMAC.
        algorithm: the hash function.
        encoding: the encoding of the HMAC in the header.
    """

    header: HeaderName
    secret: Secret
    algorithm: Literal["sha256", "sha512", "sha1"] = "sha256"
    encoding: Literal["hex", "base64"] = "hex"
    #: A fixed text before the HMAC in the header, such as ``sha256=``.
    prefix: str = Field("", max_length=40)


class Verification(Strict):
    """The proofs by which a callback is verified. All that are set must be right."""

    #: An HMAC of the body, in a header.
    hmac: Hmac | None = None
    #: A secret in the callback address, as ``?token=``.
    token: Secret | None = None
    #: User and password of HTTP basic authentication.
    basic_auth: BasicAuth | None = None

    @model_validator(mode="after")
    def _by_something(self) -> Self:
        if not (self.hmac or self.token or self.basic_auth):
            raise ValueError("say by what a callback is believed: hmac, token or basic_auth")
        return self


class Arrivals(Strict):
    """The parts that all requests of a provider have: their proofs, and the place of the messages in them."""

    #: The proofs that a request comes from the provider.
    verify: Verification
    #: The part of the request that contains the values: a JSON body, a form, or the query.
    source: Literal["json", "form", "query"] = Field(alias="from", default="json")
    #: The path of the list, if one request is about several messages.
    items: Path | None = None
    #: The path of the provider's id of the message.
    id: Path
    #: Our answer, as the provider expects it.
    reply: str | None = Field(None, min_length=1, max_length=200)

    @model_validator(mode="after")
    def _can_be_read(self) -> Self:
        if self.source == "query" and self.verify.hmac:
            raise ValueError("an hmac is of a body, and 'from: query' has none; verify by token or basic_auth")
        if self.source != "json" and self.items:
            raise ValueError("items is a list in a JSON body; leave it out, or say 'from: json'")
        return self


class InboundRules(Arrivals):
    """The texts that people write to a provider's senders, as the provider passes them on."""

    #: The path of the writer's number.
    number: Path
    #: The path of the text.
    text: Path
    #: The path of our sender to which it was written.
    to: Path | None = None


class CallbackRules(Arrivals):
    """A provider's callbacks."""

    #: The path of our own id, if the provider returns it.
    reference: Path | None = None
    #: The path of the message's status.
    status: Path
    #: The provider's word for a status → our state. Other statuses are ignored.
    statuses: dict[Scalar, Reported] = Field(min_length=1)
    #: The path of the error code.
    error: Path | None = None
    #: Error codes that mean "the recipient has opted out".
    opt_out_errors: tuple[Code, ...] = ()
    #: Error codes that speak of the number → why it cannot be texted. Such numbers are passed over for a while.
    number_errors: dict[Scalar, Untextable] = Field({})
    #: Error codes that speak of the account or the sender → what the operator must mend. Each must mean that the
    #: message went to nobody, because it is sent again later.
    operator_errors: dict[Scalar, Sentence] = Field({})
    #: The path of the price.
    price: Path | None = None
    #: The path of the price's currency, an ISO 4217 code.
    price_unit: Path | None = None

    @field_validator("statuses")
    @classmethod
    def _distinct(cls, value: dict[Scalar, Reported]) -> dict[Scalar, Reported]:
        if len(words(value)) < len(value):
            raise ValueError("one word is there twice, as a text and as a number")
        return value

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.opt_out_errors and not self.error:
            raise ValueError("opt_out_errors are codes: say with 'error' where a code is")
        if self.number_errors and not self.error:
            raise ValueError("number_errors are codes: say with 'error' where a code is")
        if self.operator_errors and not self.error:
            raise ValueError("operator_errors are codes: say with 'error' where a code is")
        others = {json_paths.word(code) for code in (*self.number_errors, *self.opt_out_errors)}
        if twice := sorted(others.intersection(map(json_paths.word, self.operator_errors))):
            raise ValueError(f"the code {twice[0]} cannot speak both of you (operator_errors) and of the number")
        if self.price_unit and not self.price:
            raise ValueError("price_unit belongs to price; name both, or none")
        return self


def words(statuses: Mapping[Scalar, Reported]) -> dict[str, Reported]:
    """Return the provider's words in the form for comparison: a text ``2`` and a number 2 are equal."""
    return {json_paths.word(name): reported for name, reported in statuses.items()}
