"""The limits and rights of the gateway, of Flower and of webhooks."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, SecretStr

from knocktwice_worker.config.values import Days, Group, Network, Origin, PerSecond, Seconds


class GatewaySettings(Group):
    """Gateway, webhooks and Flower."""

    # Webhooks to the application
    webhook_urls: frozenset[str] = Field(
        frozenset(), description='Where every event is told, like ["https://shop.example/hooks"]; see docs/webhooks.md.'
    )
    webhook_secret: SecretStr | None = Field(
        None,
        description="Keys of webhook signatures, separated by commas, all sign and the first is shown; empty: from KNOCKTWICE_SECRET.",
    )
    webhook_private: bool = Field(False, description="Webhooks may go to private addresses, and over http.")
    webhook_give_up_s: Seconds = Field(259_200, description="An endpoint that fails for so long is disabled.")
    webhook_keep_days: Days = Field(30, ge=1, le=3650, description="How long events are kept for a replay.")

    # Flower
    flower_actions: bool = Field(
        False,
        description="Whoever may open Flower may also act in its tab Notifications: pause, resume, unmask, start blasts.",
    )
    flower_operators: frozenset[str] = Field(
        frozenset(),
        description='Only they act there, like ["ada", "bob@shop.example"]: names as Flower\'s login has them; all others read. '
        "None: KNOCKTWICE_FLOWER_ACTIONS decides for all.",
    )

    # OneSignal's clients
    onesignal_title: str | None = Field(
        None,
        max_length=200,
        description="Title of pushes that OneSignal's clients send without headings: the app's name, which OneSignal shows; "
        "empty: such pushes are refused.",
    )
    onesignal_sms_fallback: str | None = Field(
        None,
        pattern=r"^(notifications_disabled|not_delivered|not_clicked)( after [0-9]+[smhd])?$",
        description='SMS behind pushes of OneSignal\'s clients that say nothing of it, like "not_clicked after 10m"; empty: none.',
    )

    # Gateway
    gateway_docs: bool = Field(False, description="The gateway shows its interface to everybody, at /docs.")
    gateway_body_bytes: int = Field(1_048_576, ge=1_024, description="Largest body that the gateway takes.")
    gateway_per_s: PerSecond = Field(1_000, description="Requests per second that one key may make.")
    gateway_address_per_s: PerSecond = Field(
        1_000, description="Requests per second without a key (receipts, links) from one address, to each process."
    )
    gateway_origins: frozenset[Origin] = Field(
        frozenset(),
        description='Pages that may call the gateway with a user token, like ["https://shop.example"]; none: no page.',
    )
    tpns_strict: bool = Field(
        False, description="A push of Tencent's is refused unless all of it can be met, its SMS and its looks included."
    )
    tpns_signature: Literal["[]", "【】", ""] = Field(
        "[]", description="How sms_sign_name stands before an SMS of Tencent's: [], 【】 or, empty, not at all."
    )
    pushwoosh_title: str = Field(
        "New message",
        min_length=1,
        description="The title of a push of Pushwoosh's that has none; often the app's name.",
    )
    gateway_metrics_from: frozenset[Network] = Field(
        frozenset(),
        description='Who may read /metrics without a key, like ["10.1.0.0/16"]; everybody else needs a key for admin.',
    )
    gateway_proxies: frozenset[Network] = Field(
        frozenset(),
        description='Proxies whose X-Forwarded-For is believed, like ["10.0.0.0/8"]; any other proxy is one address.',
    )
