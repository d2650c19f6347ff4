"""The textbook: the same service as most of us would write it first. One Celery task per notification and step.

ORM rows, ``firebase_admin.messaging.send``, Twilio's SDK, a countdown for the wait. Run with prefork and two children.
It is written to be quick within its design: late acknowledgement, no results, connections kept, one commit per step,
the limits in one pipeline. What it leaves out is its design's, not ours: no recovery, no ledger, no second look at
anything.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from celery import Celery
from celery.signals import worker_process_init
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from knocktwice_worker.embedded.installation import connect_redis

if TYPE_CHECKING:
    from redis import Redis
    from twilio.rest import Client

#: The countdown of the fallback.
COUNTDOWN_S = float(os.environ.get("TEXTBOOK_COUNTDOWN_S", "3"))

app = Celery("textbook", broker=os.environ.get("KNOCKTWICE_BROKER_URL"))
app.conf.update(
    task_ignore_result=True,
    task_acks_late=True,
    task_default_queue="textbook",
    worker_send_task_events=True,
    broker_connection_retry_on_startup=True,
)


class Base(DeclarativeBase):
    """The models."""


class Person(Base):
    """Who is notified."""

    __tablename__ = "textbook_people"
    id: Mapped[str] = mapped_column(primary_key=True)
    token: Mapped[str]
    phone: Mapped[str]


class Notification(Base):
    """One notification on its way."""

    __tablename__ = "textbook_notifications"
    id: Mapped[str] = mapped_column(primary_key=True)
    person_id: Mapped[str]
    title: Mapped[str]
    body: Mapped[str]
    state: Mapped[str]
    push_name: Mapped[str | None]
    sms_sid: Mapped[str | None]
    delivered_at: Mapped[datetime | None] = mapped_column(sa.DateTime(timezone=True))
    created_at: Mapped[datetime] = mapped_column(sa.DateTime(timezone=True))
    finished_at: Mapped[datetime | None] = mapped_column(sa.DateTime(timezone=True))


@cache
def engine() -> sa.Engine:
    """Connections of this process."""
    url = os.environ["KNOCKTWICE_DATABASE_URL"].replace("postgresql://", "postgresql+psycopg2://")
    return sa.create_engine(url, pool_size=2)


@cache
def redis() -> Redis:
    """The limits' Redis."""
    return connect_redis(os.environ["KNOCKTWICE_BROKER_URL"])


@cache
def twilio() -> Client:
    """Twilio's SDK, with a kept connection."""
    from twilio.rest import Client

    client = Client(os.environ["TWILIO_ACCOUNT_SID"], os.environ["TWILIO_AUTH_TOKEN"])
    client.api.base_url = os.environ["KNOCKTWICE_TWILIO_URL"]
    return client


@worker_process_init.connect  # type: ignore[untyped-decorator]
def connect_firebase(**_: Any) -> None:
    """Firebase's SDK, with a kept connection."""
    import firebase_admin
    from firebase_admin import messaging

    warnings.simplefilter("ignore", DeprecationWarning)
    messaging._MessagingService.FCM_URL = os.environ["KNOCKTWICE_FCM_URL"] + "/v1/projects/{0}/messages:send"
    firebase_admin.initialize_app()


@app.task  # type: ignore[untyped-decorator]
def send_push(id_: str, person_id: str, title: str, body: str) -> None:
    """Write the row, push, start the countdown."""
    from firebase_admin import messaging

    with Session(engine()) as session:
        person = session.get_one(Person, person_id)
        row = Notification(
            id=id_, person_id=person_id, title=title, body=body, state="new", created_at=datetime.now(UTC)
        )
        session.add(row)
        session.flush()
        message = messaging.Message(
            token=person.token,
            notification=messaging.Notification(title=title, body=body),
            data={"id": id_},
            android=messaging.AndroidConfig(priority="high", ttl=COUNTDOWN_S),
        )
        row.push_name = messaging.send(message)
        row.state = "pushed"
        session.commit()
    check_fallback.apply_async((id_,), countdown=COUNTDOWN_S)


@app.task  # type: ignore[untyped-decorator]
def record_delivered(id_: str) -> None:
    """Note a receipt."""
    with Session(engine()) as session:
        row = session.get(Notification, id_)
        if row is not None:
            row.delivered_at = datetime.now(UTC)
        session.commit()


@app.task  # type: ignore[untyped-decorator]
def check_fallback(id_: str) -> None:
    """Decide whether the SMS follows."""
    with Session(engine()) as session:
        row = session.get_one(Notification, id_)
        if row.state != "pushed":
            return
        if row.delivered_at:
            row.state, row.finished_at = "reached", datetime.now(UTC)
        elif not _allowed(session.get_one(Person, row.person_id).phone, row.body):
            row.state, row.finished_at = "suppressed", datetime.now(UTC)
        else:
            send_sms.delay(id_)
        session.commit()


@app.task  # type: ignore[untyped-decorator]
def send_sms(id_: str) -> None:
    """Send it."""
    with Session(engine()) as session:
        row = session.get_one(Notification, id_)
        if row.state != "pushed":
            return
        person = session.get_one(Person, row.person_id)
        sent = twilio().messages.create(to=person.phone, from_=os.environ["KNOCKTWICE_TWILIO_FROM"], body=row.body)
        row.sms_sid, row.state, row.finished_at = sent.sid, "texted", datetime.now(UTC)
        session.commit()


def _allowed(phone: str, body: str) -> bool:
    day = f"day:{phone}:{datetime.now(UTC):%Y%m%d}"
    pipe = redis().pipeline()
    pipe.set(f"content:{phone}:{hashlib.sha256(body.encode()).hexdigest()}", 1, nx=True, ex=30)
    pipe.incr(day)
    pipe.expire(day, 172_800)
    fresh, today, _ = pipe.execute()
    return bool(fresh) and int(today) <= 10
