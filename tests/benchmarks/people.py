"""As many invented people as one likes; the same ones for the same seed, in any number of runs."""

from __future__ import annotations

import sqlalchemy as sa

#: The filter of a segment that three of five people belong to, and everybody in it has a device.
GOLD = {"and": [{"field": "tags.plan", "op": "=", "value": "gold"}, {"field": "has_device", "op": "=", "value": True}]}

#: Everything about the person with number ``i`` follows from ``h``, which looks random and is not.
_PEOPLE = "(SELECT i, abs(hashint8extended(i, :seed)) AS h FROM generate_series(1, :count) i) p"
# What somebody belongs to follows from the number itself, so that the segment has exactly so many.
_GOLD = "(i + :seed) % 5 < 3"

# What is put together here are the constants above.
_FILL = (
    f"""
    INSERT INTO users (id, tags, locale, time_zone)
    SELECT 'user-' || to_char(h % 1000, 'FM000') || '-' || i,
           jsonb_build_object('plan', CASE WHEN {_GOLD} THEN 'gold' ELSE 'free' END, 'orders', h % 40),
           (ARRAY['de-AT', 'de-DE', 'en-US', 'en-GB', 'pt-BR', NULL])[1 + h / 1000 % 6],
           (ARRAY['Europe/Vienna', 'America/New_York', 'Asia/Tokyo', NULL])[1 + h / 7000 % 4]
    FROM {_PEOPLE}
    """,  # noqa: S608
    f"""
    INSERT INTO devices (registration, user_id, platform, notifications_enabled)
    SELECT md5(i::text) || ':' || md5('t' || i), 'user-' || to_char(h % 1000, 'FM000') || '-' || i,
           (ARRAY['android', 'ios', 'web'])[1 + h % 3], h / 100 % 10 > 0
    FROM {_PEOPLE} WHERE {_GOLD} OR h / 10 % 2 = 0
    """,  # noqa: S608
    f"""
    INSERT INTO phones (user_id, number, region, consented_at)
    SELECT 'user-' || to_char(h % 1000, 'FM000') || '-' || i, '+1650' || (2000000 + i), 'US',
           CASE WHEN h / 300 % 3 = 0 THEN knocktwice_now() END
    FROM {_PEOPLE} WHERE h / 20 % 4 > 0
    """,  # noqa: S608
)


def fill(engine: sa.Engine, count: int, seed: int = 7) -> int:
    """Put people, and nobody else, into a database; return how many belong to :data:`GOLD`.

    Args:
        count: a multiple of five.
    """
    with engine.begin() as conn:
        conn.execute(sa.text("TRUNCATE users CASCADE"))
        for statement in _FILL:
            conn.execute(sa.text(statement), {"count": count, "seed": seed})
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
        conn.execute(sa.text("VACUUM ANALYZE users, devices, phones"))
    return count // 5 * 3
