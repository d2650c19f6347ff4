"""The Celery application, which ``celery -A knocktwice_worker worker | beat | flower`` start with stock options."""

from __future__ import annotations

import gc
import os
import sys
from typing import Any

from celery import Celery
from celery.schedules import crontab
from celery.signals import setup_logging, worker_ready, worker_shutting_down
from kombu import Queue as KombuQueue
from kombu.transport import redis as kombu_redis

from knocktwice_shared.names import ROUTES, Queue, Task
from knocktwice_worker import config
from knocktwice_worker.embedded import installation
from knocktwice_worker.runtime import logs, redis_channel, shutdown
from knocktwice_worker.runtime.background import Background
from knocktwice_worker.runtime.dispatcher import Dispatcher

settings = config.load()


kombu_redis.Transport.Channel = redis_channel.Channel

# By default Flower listens on every interface, and its pages have no password. Flower reads this variable after it has
# loaded this module, so the stock command is safe, too.
os.environ.setdefault("FLOWER_ADDRESS", "127.0.0.1")

app = Celery(
    "knocktwice",
    broker=installation.broker_url(settings),
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
    task_queues=[KombuQueue(queue.value) for queue in Queue],
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
    # Tasks are short, so if a message is not acknowledged within 180 s, its worker has died. Its rows are due long
    # before that.
    broker_transport_options={
        "visibility_timeout": 180,
        "socket_timeout": 5,
        "socket_connect_timeout": 5,
        "socket_keepalive": True,
        "health_check_interval": 5,
    },
    timezone="UTC",
    beat_schedule={
        "housekeeping": {"task": Task.HOUSEKEEPING.value, "schedule": crontab(minute=17)},
        # Ticks older than a minute are dropped; the next one covers them.
        "recurring blasts": {"task": Task.START_BLASTS.value, "schedule": crontab(), "options": {"expires": 60}},
        "bring reports": {"task": Task.BRING_REPORTS.value, "schedule": crontab()},
        "collect reports": {"task": Task.COLLECT_REPORTS.value, "schedule": crontab(minute=47, hour=3)},
    },
)
app.steps["consumer"].add(Dispatcher)
app.steps["consumer"].add(Background)


# Celery's command line has read its plugins by now, and "flower" among its words says which one runs. Flower is built later,
# from the lists to which the tab is added here.
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


@setup_logging.connect
def _configure_logging(**_: Any) -> None:
    logs.configure(as_json=settings.log_json)
