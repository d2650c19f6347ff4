"""The gateway's routes, one module for each kind of thing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from knocktwice_worker.gateway.routes import health

if TYPE_CHECKING:
    from fastapi import APIRouter

#: Every router there is. Each route names the scope it needs (:func:`knocktwice_worker.gateway.access.requires`), or its path
#: is in :data:`PUBLIC`.
ROUTERS: tuple[APIRouter, ...] = (health.router,)

#: Beginnings of the paths that answer without a key.
PUBLIC = ("/healthz", "/readyz")
