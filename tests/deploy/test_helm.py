"""The chart for Kubernetes: what Helm makes of it fits Kubernetes' schemas, serves every queue,
and counts what is due.
"""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import sqlalchemy as sa
import yaml

from knocktwice_shared.ids import uuid7
from knocktwice_shared.messages import parse_batch
from knocktwice_shared.names import Queue
from knocktwice_worker.config import Settings
from knocktwice_worker.notifications.store.paused import Scope
from knocktwice_worker.switches import audit, pauses

if TYPE_CHECKING:
    from knocktwice_worker.services import Services
    from support.clock import Clock

DEPLOY = Path(__file__).parents[2] / "deploy"
CHART, EXAMPLES = DEPLOY / "helm" / "knocktwice", DEPLOY / "helm" / "examples"
HELM = Path(sys.executable).parent / "helm"
#: Kubernetes' versions whose schemas must hold; kinds of KEDA's are none of Kubernetes' own.
VERSIONS, FOREIGN = ("1.27", "1.33"), "keda.sh/v1alpha1"
RABBITMQ = ("--set", "autoscaling.enabled=true", "--set", "autoscaling.broker.rabbitmqKey=RABBITMQ_URL")
SCALED = ("--set", "autoscaling.enabled=true", "--set", "autoscaling.broker.address=valkey:6379")


def _helm(*words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HELM_CACHE_HOME": "/nonexistent", "HELM_CONFIG_HOME": "/nonexistent"}
    return subprocess.run([HELM, *words], capture_output=True, text=True, check=False, env=environment)


def _rendered(*words: str) -> list[dict[str, Any]]:
    done = _helm("template", "kt", str(CHART), "--namespace", "shop", *words)
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def _containers(documents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    pods = [d["spec"]["template"]["spec"] for d in documents if d["kind"] in ("Deployment", "Job")]
    assert pods
    return [container for pod in pods for container in pod["containers"]]


def test_helm_finds_nothing_to_complain_about() -> None:
    done = _helm("lint", "--strict", str(CHART))
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    "words", [(), SCALED, ("--values", str(EXAMPLES / "growing.values.yaml"))], ids=["default", "scaled", "growing"]
)
def test_what_it_makes_fits_kubernetes_schemas(words: tuple[str, ...]) -> None:
    documents = _rendered(*words)
    own = [document for document in documents if document["apiVersion"] != FOREIGN]
    assert {document["kind"] for document in own} == {"Deployment", "Job", "PodDisruptionBudget", "Service"}
    for document in own:
        for version in VERSIONS:
            kubernetes_validate.validate(document, version, strict=True)


def test_every_queue_is_served_and_every_argument_is_one_of_the_programs() -> None:
    served = [
        queue
        for container in _containers(_rendered())
        for word in container.get("args", ())
        if word.startswith("--queues=")
        for queue in word.removeprefix("--queues=").split(",")
    ]
    assert sorted(served) == sorted(Queue)


def test_pods_run_as_nobody_in_particular_and_write_nowhere() -> None:
    documents = _rendered(*SCALED)
    for document in documents:
        if document["kind"] in ("Deployment", "Job"):
            pod = document["spec"]["template"]["spec"]
            assert pod["securityContext"]["runAsNonRoot"]
            assert not pod["automountServiceAccountToken"]
    for container in _containers(documents):
        assert container["securityContext"]["readOnlyRootFilesystem"]
        assert container["envFrom"] == [{"secretRef": {"name": "knocktwice"}}]
        assert container["resources"]["limits"]["memory"]


def test_settings_of_the_chart_are_settings_of_the_program() -> None:
    known = {f"KNOCKTWICE_{name.upper()}" for name in Settings.model_fields}
    words = ("--set", "gateway.proxies={10.0.0.0/8}", "--set", "workers.push.concurrency=8")
    given = {
        entry["name"]
        for container in _containers(_rendered(*words))
        for entry in container["env"]
        if entry["name"].startswith("KNOCKTWICE_")
    }
    assert {"KNOCKTWICE_GATEWAY_PROXIES", "KNOCKTWICE_CONCURRENCY", "KNOCKTWICE_LEASE_S"} <= given
    assert given <= known


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--set", "workers.sms=null"), 'no group serves the queue "sms"'),
        (("--set", "workers.push.queues={pushes}"), "workers.push.queues.0"),
        (("--set", "worker.push.replicas=3"), "Additional property worker is not allowed"),
        (("--set", "autoscaling.enabled=true", "--set", "autoscaling.groups={mail}"), 'no group of workers "mail"'),
        (("--set", "autoscaling.enabled=true", "--set", "autoscaling.minReplicas=11"), "minReplicas is more than"),
        ((*SCALED, "--set", "autoscaling.broker.rabbitmqKey=RABBITMQ_URL"), "set one of them"),
        (("--set", "settings.TWILIO_AUTH_TOKEN=hush"), "TWILIO_AUTH_TOKEN"),
    ],
)
def test_wrong_values_are_refused_by_name(words: tuple[str, ...], said: str) -> None:
    done = _helm("template", "kt", str(CHART), *words)
    assert done.returncode != 0
    assert said in done.stderr


@pytest.mark.parametrize(
    ("words", "kind", "named"), [(SCALED, "redis", "listName"), (RABBITMQ, "rabbitmq", "queueName")]
)
def test_each_group_grows_by_its_own_queues_of_the_broker_that_there_is(
    words: tuple[str, ...], kind: str, named: str
) -> None:
    documents = _rendered(*words)
    keys = {
        document["metadata"]["name"]: {ref["parameter"] for ref in document["spec"]["secretTargetRef"]}
        for document in documents
        if document["kind"] == "TriggerAuthentication"
    }
    read = {
        document["metadata"]["name"]: [
            (trigger["metadata"][named], keys[trigger["authenticationRef"]["name"]])
            for trigger in document["spec"]["triggers"]
            if trigger["type"] == kind
        ]
        for document in documents
        if document["kind"] == "ScaledObject"
    }
    by = {"host"} if kind == "rabbitmq" else {"connection"}
    assert read == {f"kt-worker-{queue}": [(f"knocktwice.{queue}", by)] for queue in ("push", "fallback", "sms")}


def _ask(here: Services, name: str) -> set[int]:
    """Return what KEDA would read, for all groups of workers."""
    queries = {
        trigger["metadata"]["query"]
        for document in _rendered(*SCALED)
        if document["kind"] == "ScaledObject"
        for trigger in document["spec"]["triggers"]
        if trigger.get("name") == name
    }
    assert queries
    with here.engine.connect() as conn:
        return {int(conn.execute(sa.text(query)).scalar_one()) for query in queries}


def test_keda_counts_what_is_due_and_how_long_it_has_waited(working: Services, clock: Clock) -> None:
    wire: dict[str, Any] = {"v": 1, "id": str(uuid7()), "content": {"push": {"title": "Hello", "body": "Tea"}}}
    wire["content"]["sms"] = {"text": "Hello"}
    wire["plan"] = [{"channel": "sms", "when": "not_clicked", "after_s": 600}]
    people: list[dict[str, Any]] = [
        {"id": str(uuid7()), "registrations": [f"silent-{n}"], "phone": f"+1650555100{n}"} for n in range(3)
    ]
    working.pushes.send(parse_batch({**wire, "recipients": people}))
    assert (_ask(working, "due-rows"), _ask(working, "due-age")) == ({0}, {0})
    clock.advance(timedelta(seconds=640))
    assert _ask(working, "due-rows") == {3}
    (age,) = _ask(working, "due-age")
    assert 30 <= age < 100
    # What is paused needs no worker.
    with working.engine.begin() as conn:
        pauses.pause(conn, Scope("sms"), audit.By("ada@desk", "too many"))
    # A worker that has just started: one that looked at the pauses half a second ago does not look again.
    worker = working.with_settings(working.settings)
    worker.fallback.check([person["id"] for person in people])
    assert _ask(working, "due-rows") == {0}
