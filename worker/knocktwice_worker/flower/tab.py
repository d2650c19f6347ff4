"""Puts our pages into Flower: its list of handlers, its templates and its menu, before Flower is built."""

from __future__ import annotations

from pathlib import Path

import flower.urls
from tornado.template import Loader, Template
from tornado.web import url

from knocktwice_worker.flower import pages
from knocktwice_worker.flower.listings import PAGES

_OURS = Path(__file__).parent / "templates"
#: Behind this item our own goes into Flower's menu.
_AFTER = """>Broker</a>
        </li>
"""
_ITEM = """        <li class="nav-item">
          <a class="nav-link{% if active_tab == 'notifications' %} active{% end %}"
            href="{{ reverse_url('notifications') }}"
            {% if active_tab == 'notifications' %}aria-current="page"{% end %}>Notifications</a>
        </li>
"""


class Templates(Loader):
    """Flower's templates and ours. Flower's menu gets our item."""

    def resolve_path(self, name: str, parent_path: str | None = None) -> str:  # noqa: ARG002 - Tornado passes it
        """Return a template's name as it is: no template here includes another by a relative path."""
        return name

    def _create_template(self, name: str) -> Template:
        own = _OURS / name
        path = own if own.is_file() else Path(self.root) / name
        source = path.read_text()
        if name == "navbar.html":
            source = source.replace(_AFTER, _AFTER + _ITEM)
        return Template(source, name=name, loader=self)


def install() -> None:
    """Add the tab. Call it once, before Flower reads its options."""
    settings = flower.urls.settings
    settings["template_loader"] = Templates(str(settings["template_path"]))
    flower.urls.handlers[:0] = [
        url(r"/notifications", pages.Now, name="notifications"),
        url(r"/notifications/find", pages.Find, name="notifications-find"),
        url(r"/notifications/one/([0-9a-f-]{36})", pages.One, name="notifications-one"),
        url(r"/notifications/blasts", pages.Blasts, name="notifications-blasts"),
        url(r"/notifications/switches", pages.Switches, name="notifications-switches"),
        url(r"/notifications/(parked)", pages.Parked),
        url(rf"/notifications/({'|'.join(PAGES)})", pages.Listed, name="notifications-listing"),
        url(r"/notifications/style.css", pages.Style, name="notifications-style"),
    ]
