"""OneSignal's HTTP API, so that its clients send through this gateway when only their address and key are changed.

``docs/moving/onesignal.md`` says field by field what maps and what is refused. Users, tags, devices and numbers are
those of our own routes. Ids of subscriptions are aliases, so ids that an application stored at OneSignal work on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from knocktwice_worker.gateway.faces.face import Face, FaceRoute
from knocktwice_worker.gateway.faces.onesignal import ownership, people, players, saved_segments, sending, viewing
from knocktwice_worker.gateway.faces.onesignal.answers import answer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request
    from starlette.responses import Response

_APP, _USER = "/apps/{app}", "/apps/{app}/users/by/{label}/{id}"
_SUBSCRIPTION = "/apps/{app}/subscriptions/{subscription}"
#: What stands before the paths: today's clients say nothing, the older ones end their address with this.
_BEGINNINGS = ("", "/api/v1")

#: Method and path → what serves it.
_SERVED: tuple[tuple[str, str, Callable[[Request], Awaitable[Response]]], ...] = (
    ("POST", "/notifications", sending.create),
    ("GET", "/notifications", viewing.list_latest),
    ("GET", "/notifications/{id}", viewing.view),
    ("DELETE", "/notifications/{id}", viewing.cancel),
    ("POST", "/notifications/{id}/history", viewing.history),
    ("POST", f"{_APP}/users", people.create),
    ("PUT", f"{_APP}/users/{{user}}", people.edit_tags),
    ("GET", _USER, people.view),
    ("PATCH", _USER, people.update),
    ("DELETE", _USER, people.delete),
    ("GET", f"{_USER}/identity", ownership.view_names),
    ("PATCH", f"{_USER}/identity", ownership.add_names),
    ("DELETE", f"{_USER}/identity/{{label_to_delete}}", ownership.remove_name),
    ("POST", f"{_USER}/subscriptions", ownership.create),
    ("PATCH", _SUBSCRIPTION, ownership.update),
    ("DELETE", _SUBSCRIPTION, ownership.delete),
    ("PATCH", f"{_SUBSCRIPTION}/owner", ownership.transfer),
    ("GET", f"{_SUBSCRIPTION}/user/identity", ownership.view_names),
    ("PATCH", f"{_SUBSCRIPTION}/user/identity", ownership.add_names),
    ("PATCH", f"{_APP}/subscriptions_by_token/{{kind}}/{{token}}", ownership.update),
    ("POST", f"{_APP}/segments", saved_segments.create),
    ("GET", f"{_APP}/segments", saved_segments.list_all),
    ("GET", f"{_APP}/segments/{{id}}", saved_segments.view),
    ("PATCH", f"{_APP}/segments/{{id}}", saved_segments.update),
    ("DELETE", f"{_APP}/segments/{{id}}", saved_segments.delete),
    ("POST", "/players", players.create),
    ("GET", "/players", players.list_all),
    ("POST", "/players/csv_export", players.refused),
    ("GET", "/players/{id}", players.view),
    ("PUT", "/players/{id}", players.update),
    ("DELETE", "/players/{id}", players.delete),
    ("POST", "/players/{id}/on_session", players.session),
    ("POST", "/players/{id}/on_focus", players.focus),
    ("POST", "/players/{id}/on_purchase", players.refused),
)

FACE = Face(
    prefix="/onesignal",
    routes=[
        FaceRoute(beginning + path, handler, methods=[method])
        for beginning in _BEGINNINGS
        for method, path, handler in _SERVED
    ],
    answer=answer,
)
