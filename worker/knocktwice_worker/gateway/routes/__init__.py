"""The gateway's routes, one module for each kind of thing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from knocktwice_worker.gateway.routes import (
    audience,
    blasts,
    brakes,
    callbacks,
    dead_letters,
    document,
    figures,
    gonative,
    health,
    inbound,
    links,
    me,
    metrics,
    notifications,
    opt_outs,
    own_phone,
    people,
    receipts,
    scripts,
    seen,
    segments,
    switches,
    templates,
    trials,
)

if TYPE_CHECKING:
    from fastapi import APIRouter

#: Every router there is. Each route names the scope it needs (:func:`knocktwice_worker.gateway.auth.access.requires`),
#: or its path is in :data:`PUBLIC`.
ROUTERS: tuple[APIRouter, ...] = (
    # The busiest first: they are looked through in this order.
    receipts.router,
    notifications.router,
    seen.router,
    audience.router,
    me.router,
    own_phone.router,
    gonative.router,
    people.router,
    opt_outs.router,
    inbound.router,
    templates.router,
    segments.router,
    links.router,
    scripts.router,
    blasts.router,
    brakes.router,
    switches.router,
    dead_letters.router,
    figures.router,
    trials.router,
    callbacks.router,
    document.router,
    health.router,
    metrics.router,
)

#: Beginnings of the paths that answer without a key.
PUBLIC = ("/healthz", "/readyz", "/r/", "/l/", "/v1/receipts", "/callbacks/", "/knocktwice")
