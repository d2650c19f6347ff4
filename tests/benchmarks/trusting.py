"""Our worker as it is shipped, except that it trusts the stand-in's certificate: ``celery -A benchmarks.trusting worker``."""

from __future__ import annotations

import os

import certifi

certifi.where = lambda: os.environ["BENCHMARK_CA"]

from knocktwice_worker.celery import app  # noqa: E402

__all__ = ["app"]
