"""A segment's filter as a condition on ``users``. Every value, tag names too, is a bound parameter, never SQL text.

No condition is ever NULL: SQL's third truth value would make ``not`` leave people out of a filter and of its opposite.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

from sqlalchemy import Numeric, Text, and_, any_, case, cast, exists, false, func, literal, not_, or_, select, true
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from knocktwice_shared.channels import SMS
from knocktwice_worker.audience.segment_fields import Ago, Kind, Op, moment
from knocktwice_worker.audience.segment_filter import And, Condition, Everyone, Not, Or
from knocktwice_worker.database.schema.opt_outs import channel_opt_outs, opt_outs
from knocktwice_worker.database.schema.people import devices, phones, users

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import ColumnElement, Select

    from knocktwice_shared.messages import TagItem
    from knocktwice_worker.audience.segment_filter import Filter

#: The part of a locale that names a country: the "AT" of de-AT, de_AT and zh-Hant-AT.
_COUNTRY = "[-_]([A-Za-z]{2})(?![A-Za-z0-9])"
#: The part that names the language.
_LANGUAGE = "^[A-Za-z]{2,8}(?![A-Za-z0-9])"


def where(of: Filter, *, joins: bool = True) -> ColumnElement[bool]:
    """Return the condition on a row of ``users`` that is true of exactly those who belong.

    Args:
        joins: PostgreSQL may join the tables of devices and phones, which is the fastest way to ask about all people at
            once. Without, and under ``or`` and ``not``, where it would hash these tables instead, each person is looked
            up by index: the fastest way to ask about a page of them.
    """
    match of:
        case Everyone():
            return true()
        case And(parts=parts):
            return and_(*(where(part, joins=joins) for part in parts))
        case Or(parts=parts):
            return or_(*(where(part, joins=joins and len(parts) == 1) for part in parts))
        case Not(part=part):
            return not_(where(part, joins=joins and isinstance(part, Condition) and part.op is not Op.BELOW))
        case Condition(op=Op.IS_NOT):
            return not_(_condition(of.model_copy(update={"op": Op.IS}), joins))
        case Condition(op=Op.EXISTS):
            return _exists(of, joins) if of.value else not_(_exists(of, joins))
    return _condition(of, joins)


def _exists(of: Condition, joins: bool) -> ColumnElement[bool]:
    match of.kind:
        case Kind.TAG:
            return users.c.tags.has_key(of.tag)  # type: ignore[no-any-return]
        case Kind.PLATFORM:
            return _owns(joins, devices.c.platform.is_not(None))
        case Kind.TIME:
            return _owns(joins)
    return _word(of.kind).is_not(None)


def _condition(of: Condition, joins: bool) -> ColumnElement[bool]:
    """One of ``=``, ``in``, ``contains``, ``<`` and ``>``."""
    match of.kind:
        case Kind.TAG:
            return _tag(of)
        case Kind.FLAG:
            flag = _FLAGS[of.field](joins)
            return flag if of.value else not_(flag)
        case Kind.PLATFORM:
            return _owns(joins, devices.c.platform.in_(of.values))
        case Kind.TIME:
            return _seen(of, joins)
    return func.coalesce(_word(of.kind).in_([_NORMAL[of.kind](str(v)) for v in of.values]), false())


# -- tags ----------------------------------------------------------------------------------------------------------


def _tag(of: Condition) -> ColumnElement[bool]:
    # "@>" finds an equal value of the same type, and in a list an equal item; a GIN index serves it.
    match of.op:
        case Op.IS:
            return users.c.tags.contains({of.tag: of.value})
        case Op.CONTAINS:
            return users.c.tags.contains({of.tag: [of.value]})
        case Op.IN:
            wanted = [{of.tag: value} for value in of.values]
            return users.c.tags.bool_op("@>")(any_(literal(wanted, ARRAY(JSONB))))
    return _ordered(of.tag, of.op, of.values[0])


def _ordered(name: str, op: Op, value: TagItem) -> ColumnElement[bool]:
    """Compare numbers by value and texts by their code points, whatever the database's collation; a tag of another type
    is neither above nor below."""
    tag = users.c.tags[name]
    if isinstance(value, str):
        kind, left, right = "string", tag.astext.collate("C"), literal(value, Text)
    else:
        # By way of text, as JSON carries it: 0.1 is 0.1 and not the binary fraction next to it.
        kind, left, right = "number", cast(tag.astext, Numeric), literal(Decimal(str(value)), Numeric)
    ordered = left < right if op is Op.BELOW else left > right
    # CASE, because AND may look at its right side first and fail to read text as a number.
    return case((func.coalesce(func.jsonb_typeof(tag) == kind, false()), ordered), else_=false())


# -- locale, language, country -------------------------------------------------------------------------------------


def _word(kind: Kind) -> ColumnElement[str | None]:
    match kind:
        case Kind.LANGUAGE:
            return func.lower(func.substring(_locale(), _LANGUAGE).collate("C"))
        case Kind.COUNTRY:
            number = select(phones.c.region).where(phones.c.user_id == users.c.id).correlate(users).scalar_subquery()
            return func.coalesce(number, func.upper(func.substring(_locale(), _COUNTRY).collate("C")))
    return func.lower(func.replace(_locale(), "_", "-").collate("C"))


def _locale() -> ColumnElement[str | None]:
    """The person's own, or that of the device seen last of those that have one."""
    latest = (
        select(devices.c.locale)
        .where(devices.c.user_id == users.c.id, devices.c.locale.is_not(None))
        .order_by(devices.c.last_seen_at.desc(), devices.c.registration)
        .limit(1)
        .correlate(users)
        .scalar_subquery()
    )
    return func.coalesce(users.c.locale, latest)


_NORMAL = {
    Kind.LOCALE: lambda text: text.replace("_", "-").lower(),
    Kind.LANGUAGE: str.lower,
    Kind.COUNTRY: str.upper,
}


# -- devices and phones --------------------------------------------------------------------------------------------


def _owns(joins: bool, *which: ColumnElement[bool]) -> ColumnElement[bool]:
    return _there(joins, select(devices.c.user_id).where(devices.c.user_id == users.c.id, *which))


def _phone(joins: bool, *which: ColumnElement[bool]) -> ColumnElement[bool]:
    return _there(joins, select(phones.c.user_id).where(phones.c.user_id == users.c.id, *which))


def _there(joins: bool, rows: Select[Any]) -> ColumnElement[bool]:
    # PostgreSQL neither joins nor hashes an EXISTS with an OFFSET, even if that is zero.
    return exists((rows if joins else rows.offset(0)).correlate(users))


def _can_receive_sms(joins: bool) -> ColumnElement[bool]:
    opted_out = exists().where(opt_outs.c.number == phones.c.number).correlate(phones)
    out_of_sms = exists().where(channel_opt_outs.c.number == phones.c.number, channel_opt_outs.c.channel == SMS)
    return _phone(joins, phones.c.number.is_not(None), not_(opted_out), not_(out_of_sms.correlate(phones)))


_FLAGS: dict[str, Callable[[bool], ColumnElement[bool]]] = {
    "has_device": _owns,
    "notifications_enabled": lambda joins: _owns(joins, devices.c.notifications_enabled),
    "has_phone": lambda joins: _phone(joins, phones.c.number.is_not(None)),
    "can_receive_sms": _can_receive_sms,
    "consent": lambda joins: _phone(joins, phones.c.consented_at.is_not(None)),
}


def _seen(of: Condition, joins: bool) -> ColumnElement[bool]:
    at = moment(str(of.value))
    border = func.knocktwice_now() - literal(at.by) if isinstance(at, Ago) else literal(at)
    if of.op is Op.ABOVE:
        return _owns(joins, devices.c.last_seen_at > border)
    return and_(_owns(joins), not_(_owns(joins, devices.c.last_seen_at >= border)))
