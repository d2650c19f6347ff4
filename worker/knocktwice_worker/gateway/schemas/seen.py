"""``/v1/seen`` and ``/v1/me/seen``: what a person has seen elsewhere."""

from __future__ import annotations

from uuid import UUID

from pydantic import ConfigDict, Field

from knocktwice_shared.names import BATCH_LIMIT
from knocktwice_worker.gateway.schemas.fields import Body


class Seen(Body):
    """Notifications whose words somebody has seen elsewhere: inside the app, on another device, in an e-mail."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"notifications": ["01939e2b-6b43-7e5a-9f6e-2c7c0d6f8a11"]}}
    )

    notifications: list[UUID] = Field(min_length=1, max_length=BATCH_LIMIT, description="Their ids.")
