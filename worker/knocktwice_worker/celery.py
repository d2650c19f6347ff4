"""The Celery application, which ``celery -A knocktwice_worker worker | beat | flower`` start with stock options."""

from __future__ import annotations

import gc
import logging
import os
import sys
from typing import TYPE_CHECKING, Any

import click
from celery import Celery
from celery.schedules import crontab
from celery.signals import celeryd_init, setup_logging, worker_ready, worker_shutting_down
from click.core import ParameterSource
from kombu import Exchange
from kombu import Queue as KombuQueue

from knocktwice_shared.names import ROUTES, Queue, Task
from knocktwice_worker import config
from knocktwice_worker.embedded import installation
from knocktwice_worker.queues.lengths import ARGUMENTS
from knocktwice_worker.runtime import error_reports, flower_guard, logs, pools, redis_channel, shutdown
from knocktwice_worker.runtime.announcing import Announce
from knocktwice_worker.runtime.background import Background
from knocktwice_worker.runtime.dispatcher import Dispatcher
from knocktwice_worker.runtime.heartbeat import Heartbeat
from knocktwice_worker.runtime.publishing import BOUNDS

if TYPE_CHECKING:
    from collections.abc import Mapping

settings = config.load()
broker = installation.celery_broker(settings)

redis_channel.install()

# By default Flower listens on every interface, its pages have no password, and whoever reads them can stop workers.
# Flower reads these variables after it has loaded this module, so the stock command is safe, too.
os.environ.setdefault("FLOWER_ADDRESS", "127.0.0.1")
os.environ.setdefault("FLOWER_READ_ONLY", "true")
# Celery loads the commands of installed packages before the application.
if "flower.command" in sys.modules:
    flower_guard.install(broker.sentinels)

_REDIS_OPTIONS = {
    # Tasks are short, so if a message is not acknowledged within 180 s, its worker has died. Its rows are due long
    # before that.
    "visibility_timeout": 180,
    "socket_timeout": 5,
    "socket_connect_timeout": 5,
    "socket_keepalive": True,
    "health_check_interval": 5,
}

app = Celery(
    "knocktwice",
    broker=broker.url,
    include=["knocktwice_worker.tasks"],
    task_cls="knocktwice_worker.runtime.private_task:DiscreetTask",
)
app.conf.update(
    # The state of notifications is in Postgres, so Celery keeps no results.
    task_ignore_result=True,
    task_store_errors_even_if_ignored=False,
    # Every task is safe to run twice, so a message is acknowledged only when its work is done.
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    # Each queue has its own exchange and key: what is published to one queue reaches no other.
    task_queues=[
        KombuQueue(
            queue.value,
            Exchange(queue.value),
            routing_key=queue.value,
            queue_arguments=ARGUMENTS if broker.rabbitmq else None,
        )
        for queue in Queue
    ],
    task_routes={task.value: {"queue": queue.value} for task, queue in ROUTES.items()},
    task_default_queue=Queue.EVENTS.value,
    task_serializer="json",
    accept_content=["json"],
    # A worker mostly waits for Postgres and for the one HTTP engine that all its threads share. To use more cores,
    # start more workers.
    worker_pool="threads",
    worker_concurrency=settings.concurrency,
    worker_prefetch_multiplier=1,
    worker_consumer="knocktwice_worker.runtime.consumer:Consumer",
    worker_send_task_events=True,
    worker_cancel_long_running_tasks_on_connection_loss=False,
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    # RabbitMQ: quorum queues take no bound for a whole connection, so Celery sets one for each queue. Newer versions
    # refuse queues that are neither durable nor exclusive, so those for Flower's questions and events are exclusive. A
    # host that is gone without a word is noticed after two heartbeats.
    worker_detect_quorum_queues=True,
    control_queue_exclusive=True,
    control_queue_durable=False,
    event_queue_exclusive=True,
    event_queue_durable=False,
    broker_heartbeat=10,
    # Flower reads TLS options only here, not in the URL.
    broker_use_ssl=broker.tls or False,
    broker_transport_options=broker.options if broker.rabbitmq else {**broker.options, **_REDIS_OPTIONS},
    timezone="UTC",
    beat_scheduler="knocktwice_worker.runtime.beat:BeatScheduler",
    beat_schedule={
        "housekeeping": {"task": Task.HOUSEKEEPING.value, "schedule": crontab(minute=17), "options": BOUNDS},
        # Ticks older than a minute are dropped; the next one covers them.
        "recurring blasts": {
            "task": Task.START_BLASTS.value,
            "schedule": crontab(),
            "options": {"expires": 60, **BOUNDS},
        },
        "bring reports": {"task": Task.BRING_REPORTS.value, "schedule": crontab(), "options": BOUNDS},
        "collect reports": {
            "task": Task.COLLECT_REPORTS.value,
            "schedule": crontab(minute=47, hour=3),
            "options": BOUNDS,
        },
    },
)
app.steps["consumer"].add(Dispatcher)
app.steps["consumer"].add(Background)
app.steps["consumer"].add(Announce)
app.steps["consumer"].add(Heartbeat)


# Celery's command line has read its plugins by now, and "flower" among its words says which one runs. Flower is built
# later, from the lists to which the tab is added here.
if "flower" in sys.argv[1:] and "flower.urls" in sys.modules:
    from knocktwice_worker.flower import tab

    tab.install()


@worker_ready.connect
def _collect_garbage_rarely(**_: Any) -> None:
    # A batch has tens of thousands of objects without cycles, which reference counts free. The cycle collector examined
    # them and all loaded modules again and again, which took a tenth of a worker's time. So it runs rarely.
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 20)


@worker_shutting_down.connect
def _end_within_grace(**_: Any) -> None:
    shutdown.end_within(settings.stop_grace_s)


@celeryd_init.connect
def _refuse_unfit_pools(options: Mapping[str, Any], **_: Any) -> None:
    pools.refuse_unfit(options.get("pool") or options.get("pool_cls") or app.conf.worker_pool)


@celeryd_init.connect
def _report_errors(**_: Any) -> None:
    error_reports.start(settings.error_reports_to, "worker")


@setup_logging.connect
def _configure_logging(loglevel: int = logging.INFO, logfile: str | None = None, **_: Any) -> None:
    context = click.get_current_context(silent=True)
    # Celery's own default is WARNING; ours is to tell what is done.
    typed = context is not None and context.get_parameter_source("loglevel") is not ParameterSource.DEFAULT
    logs.configure(as_json=settings.log_json, level=loglevel if typed else logging.INFO, file=logfile)
