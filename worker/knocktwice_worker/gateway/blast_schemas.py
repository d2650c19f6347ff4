"""What requests about blasts and numbers look like, and their answers. As in :mod:`schemas`, bodies are not checked by these."""

from __future__ import annotations

from datetime import date, datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

from knocktwice_shared.messages import SEGMENT_NAME_LIMIT, THROTTLE_LIMIT
from knocktwice_worker.gateway.schemas import IdempotencyKey, Params, SharedBody, text_of
from knocktwice_worker.reporting import figures
from knocktwice_worker.reporting.figures import Dimension

_EXAMPLE: dict[str, Any] = {
    "key": "tea-week-47",
    "segment": "tea",
    "template": "tea_week",
    "throttle_per_min": 6_000,
    "budget_parts": 5_000,
}

if TYPE_CHECKING:
    from collections.abc import Callable


class BlastBody(SharedBody):
    """One notification to everybody in a segment."""

    model_config = ConfigDict(json_schema_extra={"example": _EXAMPLE})

    key: IdempotencyKey = Field(description="The same key never fires twice.")
    segment: Annotated[str, text_of(SEGMENT_NAME_LIMIT)] | None = Field(
        None, description="A saved segment; or `filter`."
    )
    filter: dict[str, Any] | None = Field(None, description="Who it is for, as in a segment.")
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


class BlastAnswer(BaseModel):
    """Where a blast stands."""

    id: UUID
    key: str
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
    """Where a blast stands, and how many of its notifications are in which state."""

    outcomes: dict[str, int]


class RecurringBlast(BaseModel):
    """A blast that is declared to come again."""

    name: str
    definition: dict[str, Any]
    next_at: datetime | None
    last_at: datetime | None
    outcome: str | None = Field(description="What became of the last one.")


class BlastList(BaseModel):
    """The latest blasts, and all recurring ones."""

    blasts: list[BlastAnswer]
    recurring: list[RecurringBlast]


def _of_channels(**fields: str) -> Callable[[JsonDict], None]:
    """Return what adds fields to a schema for each channel but SMS.

    Args:
        fields: type by name; ``channel`` in a name stands for the channel's.
    """

    def add(schema: JsonDict) -> None:
        properties = cast("dict[str, JsonDict]", schema["properties"])
        required = cast("list[str]", schema["required"])
        for channel in figures.others():
            for name, kind in fields.items():
                properties[name.replace("channel", channel)] = dict(_TYPES[kind])
                required.append(name.replace("channel", channel))

    return add


_TYPES: dict[str, JsonDict] = {
    "count": {"type": "integer"},
    "number": {"type": "number"},
    "money": {"anyOf": [{"type": "string"}, {"type": "null"}]},
    "countries": {"type": "array", "items": {"type": "string"}},
}
_PREFLIGHT = _of_channels(
    expected_channel="count",
    worst_channel="count",
    expected_channel_cost="number",
    worst_channel_cost="number",
    unpriced_channel="countries",
)
_FIGURES = _of_channels(
    channel_sent="count",
    channel_delivered="count",
    channel_read="count",
    channel_unknown="count",
    unpriced_channel="count",
    channel_cost="money",
)


class PreflightAnswer(BaseModel):
    """What a blast would do now. Each person is counted once in `push`, `sms_only` and `unreachable`.

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
    capped: int
    quiet: int = Field(description="Who can be texted, but not at this hour.")
    fallback_share: float
    share_from: str = Field(description="Where that share is from.")
    expected_parts: int
    expected_cost: float
    worst_parts: int = Field(description="If nobody answers the push.")
    worst_cost: float
    unpriced: list[str] = Field(description="Countries without a price; their SMS are not in the costs.")
    over_budget: str | None = Field(description="Why it would not be started with this budget; null: it would.")


class FiguresAnswer(BaseModel):
    """What became of notifications. Shares are from 0 to 1, money is text; null: nothing to divide by, or no price."""

    model_config = ConfigDict(extra="allow", json_schema_extra=_FIGURES)

    accepted: int
    duplicates: int
    cancelled: int
    failed: int
    pushed: int
    delivered: int
    clicked: int
    fell_back: int
    sms_sent: int
    sms_delivered: int
    sms_undelivered: int
    sms_unknown: int
    sms_wasted: int
    sms_parts: int
    unpriced_parts: int
    reached: int
    suppressed: dict[str, int]
    fell_back_rate: float | None
    delivery_rate: float | None
    response_rate: float | None
    wasted_rate: float | None
    sms_cost: str | None
    cost: str | None
    cost_per_delivered: str | None
    sms_only_cost: str | None
    saved: str | None


class StatsLine(FiguresAnswer):
    """Figures of one value of the dimension, which stands under its own name."""

    template: str | None = None
    country: str | None = None
    day: str | None = None
    blast: str | None = None
    category: str | None = None


class StatsAnswer(BaseModel):
    """Figures by one dimension."""

    by: Dimension
    since: date
    until: date
    zone: str = Field(description="The time zone whose days these are.")
    as_of: datetime | None = Field(description="What happened later is not counted yet.")
    lines: list[StatsLine]
    total: FiguresAnswer


class DelayPoint(BaseModel):
    """One delay of the curve."""

    after_s: float
    sms: int = Field(description="How many of the pushes an SMS would have followed.")
    confirmed_later: int = Field(description="How many of those were confirmed afterwards: SMS that nobody needed.")


class AdviceAnswer(BaseModel):
    """The delay curve of a template."""

    template: str
    when: Literal["not_delivered", "not_clicked"]
    pushes: int
    confirmed: int
    horizon_s: float = Field(description="Longer delays cannot be judged.")
    suggested_s: float | None
    curve: list[DelayPoint]
