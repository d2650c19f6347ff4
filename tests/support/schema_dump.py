"""A database's schema as pg_dump tells it, for comparing two of them."""

from __future__ import annotations

import subprocess

import sqlalchemy as sa

from knocktwice_worker.embedded.server import postgres_program


def schema_lines(url: str) -> list[str]:
    """Return the schema with its comments, line by line, sorted so that the order of creation does not matter."""
    parsed = sa.make_url(url)
    command = [str(postgres_program("pg_dump")), "--schema-only", "--no-owner", "--exclude-table=alembic_version"]
    command += ["-h", str(parsed.query["host"]), "-U", str(parsed.username), str(parsed.database)]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    lines = (line.strip().rstrip(",;") for line in text.splitlines())
    # A schema "public" that was made anew is listed, the original one is not.
    return sorted(line for line in lines if line and not line.startswith(("--", "\\")) and "SCHEMA public" not in line)
