"""The people of a segment in groups that are alike for a blast: in language, country and obstacles."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import String, and_, bindparam, case, cast, exists, func, literal_column, not_, or_, select, text

from knocktwice_shared.channels import SMS
from knocktwice_shared.messages import Category
from knocktwice_worker.audience.segment_sql import where
from knocktwice_worker.audience.untextable import FORBIDS
from knocktwice_worker.database.schema.notifications import deliveries
from knocktwice_worker.database.schema.opt_outs import channel_opt_outs, opt_outs, untextable
from knocktwice_worker.database.schema.people import devices, phones, users

if TYPE_CHECKING:
    from sqlalchemy import Select

    from knocktwice_worker.audience.segment_filter import Filter
    from knocktwice_worker.config import Settings

#: Digits of a number, its plus included, from which its time zone can be told.
_PREFIX = 8


def alike(
    wanted: Filter, settings: Settings, category: Category, texting: bool, only: Select[Any] | None = None
) -> Select[Any]:
    """One row for people who are alike in all that counts, with how many they are and one of their numbers.

    Args:
        only: a query for users; others are not looked at.
    """
    latest = (
        select(devices.c.locale)
        .where(devices.c.user_id == users.c.id, devices.c.locale.is_not(None))
        .order_by(devices.c.last_seen_at.desc())
        .limit(1)
        .correlate(users)
        .scalar_subquery()
    )
    pushable = exists().where(devices.c.user_id == users.c.id, devices.c.notifications_enabled).correlate(users)
    full = (
        select(deliveries.c.number)
        .where(
            deliveries.c.number.is_not(None),
            deliveries.c.counted_at >= bindparam("since"),
            deliveries.c.state.in_(["reserved", "sending", "sent", "unknown"]),
        )
        .group_by(deliveries.c.number)
        .having(func.count() >= bindparam("cap"))
        .subquery()
    )
    number = phones.c.number
    out_of_sms = (
        exists().where(channel_opt_outs.c.number == number, channel_opt_outs.c.channel == SMS).correlate(phones)
    )
    u = untextable.alias("u")
    remembered = select(u.c.number).where(u.c.channel == SMS, text(FORBIDS)).subquery()
    blocked = phones.c.region.not_in(sorted(settings.sms_countries)) if settings.sms_countries else None
    obstacles = [
        ("no_phone", number.is_(None)),
        ("opted_out", or_(opt_outs.c.number.is_not(None), out_of_sms)),
        ("no_consent", phones.c.consented_at.is_(None) if category is Category.MARKETING else None),
        ("country_blocked", or_(phones.c.region.is_(None), blocked) if blocked is not None else None),
        ("untextable", remembered.c.number.is_not(None)),
        ("capped", full.c.number.is_not(None)),
    ]
    obstacle = case(*((holds, name) for name, holds in obstacles if holds is not None), else_="")
    # Time zones matter only for marketing. The number counts only if neither a device nor the application names a zone.
    stated: Any = literal_column("NULL", String)
    prefix: Any = literal_column("NULL", String)
    if texting and category is Category.MARKETING:
        zone_of_device = (
            select(devices.c.time_zone)
            .where(devices.c.user_id == users.c.id, devices.c.time_zone.is_not(None))
            .order_by(devices.c.last_seen_at.desc())
            .limit(1)
            .correlate(users)
            .scalar_subquery()
        )
        stated = func.coalesce(zone_of_device, users.c.time_zone)
        prefix = case((stated.is_(None), func.left(number, _PREFIX)), else_=None)
    # Of those who share a number and can be texted, one gets the message.
    first = func.row_number().over(partition_by=(number, obstacle), order_by=users.c.id) == 1
    people = (
        select(
            func.coalesce(users.c.locale, latest).label("locale"),
            pushable.label("pushable"),
            case((and_(obstacle == "", not_(first)), "shared_number"), else_=obstacle).label("obstacle"),
            phones.c.region.label("region"),
            cast(stated, String).label("zone"),
            cast(prefix, String).label("prefix"),
            number.label("number"),
        )
        .select_from(
            users.outerjoin(phones, phones.c.user_id == users.c.id)
            .outerjoin(opt_outs, opt_outs.c.number == number)
            .outerjoin(full, full.c.number == number)
            .outerjoin(remembered, remembered.c.number == number)
        )
        .where(where(wanted, joins=False), *(() if only is None else (users.c.id.in_(only),)))
        .subquery()
    )
    alike = [people.c[name] for name in ("locale", "pushable", "obstacle", "region", "zone", "prefix")]
    return select(*alike, func.count().label("n"), func.min(people.c.number).label("number")).group_by(*alike)
