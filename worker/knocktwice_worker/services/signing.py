"""The keys that sign tokens, links and webhooks, each from its own setting or from the installation's secret."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from knocktwice_worker.content.links.receipt_urls import ReceiptTokens, ReceiptUrls
from knocktwice_worker.content.links.short_links import ShortLinks
from knocktwice_worker.embedded.installation import secret
from knocktwice_worker.services.connections import Connections

if TYPE_CHECKING:
    from pydantic import SecretStr

    from knocktwice_worker.content.links.short_links import Tracker


@dataclass(frozen=True)
class Signing(Connections):
    """The parts that sign, and that read what was signed, by name. Each part is built when it is first used."""

    @cached_property
    def webhook_secrets(self) -> list[str]:
        """The secrets of webhook signatures, the newest first."""
        return _listed(self.settings.webhook_secret) or [secret(self.settings)]

    @cached_property
    def receipt_tokens(self) -> ReceiptTokens:
        """Signs and reads the receipt tokens in pushes."""
        secrets = _listed(self.settings.receipt_secret) or [secret(self.settings)]
        return ReceiptTokens([s.encode() for s in secrets], self.settings.receipt_valid)

    @cached_property
    def user_token_secrets(self) -> list[str]:
        """The secrets of user tokens; the first signs."""
        return _listed(self.settings.user_token_secret) or [secret(self.settings)]

    @cached_property
    def receipt_urls(self) -> ReceiptUrls | None:
        """Makes the addresses to which apps report; ``None`` without a public URL."""
        url = self.settings.public_url
        return ReceiptUrls(url, self.receipt_tokens) if url else None

    @cached_property
    def short_links(self) -> ShortLinks | None:
        """Makes short links; ``None`` without an address for links."""
        url = self.settings.link_address
        return ShortLinks(url, secret(self.settings).encode()) if url else None

    def links(self, notification: str, step: int) -> Tracker | None:
        """Return the maker of the short links in a step's message; ``None``: links stay as they are."""
        return self.short_links.of(notification, step) if self.short_links else None


def _listed(secrets: SecretStr | None) -> list[str]:
    """Return the secrets of a setting that may have several, separated by commas."""
    return [] if secrets is None else [s.strip() for s in secrets.get_secret_value().split(",") if s.strip()]
