"""``/v1/blasts``: one notification to everybody in a segment, and what it would cost."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from knocktwice_shared.messages import SEGMENT_NAME_LIMIT, THROTTLE_LIMIT, Category
from knocktwice_worker.gateway.schemas.channel_fields import of_channels
from knocktwice_worker.gateway.schemas.fields import Described, IdempotencyKey, Params, ProjectName, text_of
from knocktwice_worker.gateway.schemas.notifications import SharedBody
from knocktwice_worker.gateway.schemas.segments import Filter

_EXAMPLE: dict[str, Any] = {
    "key": "tea-week-47",
    "segment": "tea",
    "template": "tea_week",
    "throttle_per_min": 6_000,
    "budget_parts": 5_000,
}


class BlastBody(SharedBody):
    """One notification to everybody in a segment."""

    model_config = ConfigDict(json_schema_extra={"example": _EXAMPLE})

    key: IdempotencyKey = Field(description="The same key never fires twice.")
    segment: Annotated[str, text_of(SEGMENT_NAME_LIMIT)] | dict[str, Any] | None = Field(
        None, description="A saved segment; or what `filter` takes, in its place."
    )
    filter: Filter | None = Field(None, description="Who it is for, as in a segment.")
    params: Params | list[Any] | None = Field(None, description="Everybody's.")
    throttle_per_min: int | None = Field(None, ge=1, le=THROTTLE_LIMIT, description="Most people in any minute.")
    budget_parts: int | None = Field(None, ge=0, description="Most SMS parts it may come to.")
    budget_cost: float | None = Field(
        None, ge=0, description="Most money it may come to, by the setting `KNOCKTWICE_SMS_PRICES`."
    )
    expected_fallback_share: float | None = Field(
        None, ge=0, le=1, description="Part of those pushed who will be texted; left out, that of the latest blasts."
    )


class BlastStarted(BaseModel):
    """It is started, now or before."""

    id: UUID
    key: str
    duplicate: bool = Field(description="Whether its key was used before: then this request changes nothing.")
    differs: bool = Field(description="Whether that was for other people or other words: probably a mistake.")
    test: bool = Field(description="Whether the key is a test key, so that no provider is called.")


class BlastAnswer(BaseModel):
    """The state of a blast."""

    id: UUID
    key: str
    project: ProjectName
    test: bool = Field(description="Whether it was made with a test key, so that no provider is called.")
    segment: str | None
    template: str | None
    schedule: str | None = Field(description="The recurring blast that it is one of.")
    state: str = Field(description="`running`, `paused`, `finished` or `aborted`.")
    reason: str | None
    throttle_per_min: int | None
    total: int = Field(description="People taken from the segment so far; all of them once `expanded_at` is set.")
    sent: int = Field(description="Of those, notified.")
    cancelled: int
    created_at: datetime
    started_at: datetime | None
    expanded_at: datetime | None
    finished_at: datetime | None


class BlastStatus(BlastAnswer):
    """The state of a blast, and the number of its notifications in each state."""

    outcomes: dict[str, int]


class RecurringDefinition(BaseModel):
    """A recurring blast as a file declares it."""

    segment: str
    template: str
    schedule: str = Field(description="As in a crontab.", examples=["0 18 * * fri"])
    time_zone: str = Field("UTC", description="Whose clock that is, as an IANA name.")
    params: Params | list[Any] | None = Field(None, description="Everybody's.")
    category: Category | None = None
    throttle_per_min: int | None = Field(None, description="Most people in any minute.")
    grace: str = Field("1h", description="How late it may start.")
    enabled: bool = True


class RecurringBlast(BaseModel):
    """A blast that is declared to come again."""

    name: str
    definition: Annotated[dict[str, Any], Described(RecurringDefinition)]
    next_at: datetime | None
    last_at: datetime | None
    outcome: str | None = Field(description="What became of the last one.")


class BlastList(BaseModel):
    """The latest blasts, and all recurring ones."""

    blasts: list[BlastAnswer]
    recurring: list[RecurringBlast]


_PREFLIGHT = of_channels(
    expected_channel="count",
    worst_channel="count",
    expected_channel_cost="number",
    worst_channel_cost="number",
    unpriced_channel="countries",
)


class PreflightAnswer(BaseModel):
    """The effect of a blast if it started now. Each person counts once in `push`, `sms_only` and `unreachable`.

    Beside the SMS parts there are messages over other channels, whose costs are part of the costs.
    """

    model_config = ConfigDict(extra="allow", json_schema_extra=_PREFLIGHT)

    users: int
    push: int
    sms_only: int
    unreachable: int
    no_phone: int
    opted_out: int
    no_consent: int
    country_blocked: int
    untextable: int = Field(description="Messages did not reach their numbers lately.")
    capped: int
    shared_number: int = Field(description="Somebody else has the same number, which is texted once.")
    quiet: int = Field(description="Who can be texted, but not at this hour.")
    fallback_share: float
    share_from: str = Field(description="Where that share is from.")
    expected_parts: int
    expected_cost: float
    worst_parts: int = Field(description="If nobody answers the push.")
    worst_cost: float
    unpriced: list[str] = Field(description="Countries without a price; their SMS are not in the costs.")
    over_budget: str | None = Field(description="Why it would not be started with this budget; null: it would.")
