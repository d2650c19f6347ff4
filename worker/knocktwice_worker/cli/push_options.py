"""Options for how a push looks, sounds and opens: one option for each field of the contract."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from knocktwice_worker.cli import typed_values

if TYPE_CHECKING:
    from collections.abc import Sequence

_PANEL = "How the push looks and sounds"

Link = Annotated[
    str | None,
    typer.Option(help="What a click opens: https://… or the app's own, myapp://….", rich_help_panel=_PANEL),
]
Image = Annotated[str | None, typer.Option(help="Address of a picture.", rich_help_panel=_PANEL)]
Data = Annotated[
    list[str] | None, typer.Option(help="A text for the app as NAME=VALUE. Repeat.", rich_help_panel=_PANEL)
]
Subtitle = Annotated[str | None, typer.Option(help="Line between title and body, on iPhones.", rich_help_panel=_PANEL)]
Sound = Annotated[
    str | None,
    typer.Option(
        help="A sound file in the app; 'none' for no sound.", show_default="the phone's own", rich_help_panel=_PANEL
    ),
]
Badge = Annotated[
    int | None, typer.Option(help="Number on the app's icon, on iPhones; 0 removes it.", min=0, rich_help_panel=_PANEL)
]
ChannelId = Annotated[str | None, typer.Option(help="Notification channel, on Android.", rich_help_panel=_PANEL)]
PushPriority = Annotated[
    str | None,
    typer.Option("--priority", help="high, or normal: may wait until the phone is awake.", rich_help_panel=_PANEL),
]
Icon = Annotated[str | None, typer.Option(help="A drawable in the app, on Android.", rich_help_panel=_PANEL)]
Color = Annotated[str | None, typer.Option(help="The icon's, like #00aa55, on Android.", rich_help_panel=_PANEL)]
_JSON = "Fields of FCM's {} as JSON, like '{}'."
Android = Annotated[
    str | None,
    typer.Option(
        help=_JSON.format("AndroidConfig", '{"notification": {"visibility": "PRIVATE"}}'), rich_help_panel=_PANEL
    ),
]
Apns = Annotated[
    str | None,
    typer.Option(
        help=_JSON.format("ApnsConfig", '{"payload": {"aps": {"thread-id": "orders"}}}'), rich_help_panel=_PANEL
    ),
]
Webpush = Annotated[
    str | None,
    typer.Option(help=_JSON.format("WebpushConfig", '{"headers": {"Urgency": "low"}}'), rich_help_panel=_PANEL),
]


def fields(data: Sequence[str], objects: dict[str, str | None], **texts: object) -> dict[str, Any]:
    """Return the fields of a push that were given.

    Args:
        data: each ``--data``.
        objects: ``--android``, ``--apns`` and ``--webpush``, by their names.
        texts: the others as they are.
    """
    given = {name: value for name, value in texts.items() if value is not None}
    if data:
        given["data"] = typed_values.pairs(data, "--data")
    for name, text in objects.items():
        if text is not None:
            given[name] = typed_values.json_value(text, f"--{name}")
    return given
