"""Fingerprints of settings: whether two processes work with the same ones, without saying what they are."""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING

from pydantic import BaseModel, SecretStr

if TYPE_CHECKING:
    from collections.abc import Mapping

    from knocktwice_worker.config import Settings

#: Settings that may differ between the processes of one installation.
_OWN = {
    "home",
    "database_url",
    "broker_url",
    "state_url",
    "log_json",
    "heartbeat_file",
    "metrics",
    "concurrency",
    "provider_in_flight",
    "stop_grace_s",
    "durability",
    "durability_replicas",
    "outbox_database_url",
    "google_application_credentials",
    "sms_providers_file",
    "projects_file",
    "gateway_docs",
    "gateway_body_bytes",
    "gateway_per_s",
    "gateway_address_per_s",
    "gateway_metrics_from",
    "flower_actions",
    "flower_operators",
    "gateway_proxies",
}
#: The entry that stands for the secret itself. It is the key of all others, so a different one differs in everything.
SECRET = "secret"  # noqa: S105 - a name


def fingerprints(settings: Settings, secret: str) -> dict[str, str]:
    """Return setting → fingerprint, of all settings that the processes of an installation should share.

    Args:
        secret: the installation's; it keys the fingerprints, so that nobody can guess values.
    """

    def of(name: str, value: object) -> str:
        shown = value.get_secret_value() if isinstance(value, SecretStr) else _plain(value)
        return hmac.digest(secret.encode(), f"{name}={shown}".encode(), hashlib.sha256).hex()[:12]

    shared = {name: getattr(settings, name) for name in type(settings).model_fields if name not in _OWN}
    return {name: of(name, value) for name, value in shared.items() if name != SECRET} | {SECRET: of(SECRET, "")}


def _plain(value: object) -> str:
    """Return a value as text; sets, whose order differs between processes, sorted."""
    if isinstance(value, BaseModel):
        return repr({name: _plain(part) for name, part in value})
    return repr(sorted(map(str, value))) if isinstance(value, (set, frozenset)) else str(value)


def differences(one: Mapping[str, str], other: Mapping[str, str]) -> list[str]:
    """Return the names of settings in which two processes differ; of those with different secrets only this one."""
    if one.get(SECRET) != other.get(SECRET):
        return [SECRET]
    # A setting that only one of two versions knows is no difference.
    return sorted(name for name in one.keys() & other.keys() if one[name] != other[name])
