"""A step over WhatsApp, in the application's words."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from knocktwice.content import LaterStep, require_timedelta
from knocktwice_shared.channels import whatsapp
from knocktwice_shared.messages import When

if TYPE_CHECKING:
    from collections.abc import Mapping

    from knocktwice_shared.messages import Text


@dataclass(frozen=True, slots=True)
class WhatsApp(LaterStep):
    """A WhatsApp message: a content template of Twilio's that WhatsApp has approved. In ``steps`` of a notification.

    Args:
        content_sid: the template, ``HX…``; or one for each language, as texts.
        variables: its variables, by name or number; their texts may have ``{{ name }}`` placeholders.
        when, after, sender: as for :class:`~knocktwice.content.Sms`; ``not_clicked`` of the step behind it means that
        nobody read it.

    Raises:
        InvalidMessage: ``after`` is not a timedelta. Everything else is checked when the message is sent.
    """

    content_sid: Text
    variables: Mapping[str, str] = field(default_factory=dict)
    _: KW_ONLY
    when: When | str | int = When.NOT_DELIVERED
    after: timedelta = timedelta(minutes=5)
    sender: str | None = None

    def __post_init__(self) -> None:
        require_timedelta("whatsapp.after", self.after)

    @property
    def channel(self) -> str:
        """WhatsApp."""
        return whatsapp.CONTENT.channel

    @property
    def said(self) -> Mapping[str, Any]:
        """The template and its variables."""
        given: dict[str, Any] = {"content_sid": self.content_sid}
        return given | {"variables": self.variables} if self.variables else given
