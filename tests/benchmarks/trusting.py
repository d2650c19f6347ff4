"""Our worker as it is shipped, but it trusts the stand-in and counts its statements:
``celery -A benchmarks.trusting worker``.
"""

from __future__ import annotations

import os

import certifi

certifi.where = lambda: os.environ["BENCHMARK_CA"]

from benchmarks.written import count_statements  # noqa: E402
from knocktwice_worker.celery import app  # noqa: E402

count_statements()

__all__ = ["app"]
