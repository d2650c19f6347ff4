"""The wording of a step's message for one person. Each channel has its own; the one for plain texts is here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from knocktwice_shared.channels.step_content import MEDIA
from knocktwice_shared.errors import InvalidMessage
from knocktwice_shared.messages.pushes import address_problem
from knocktwice_shared.records import record
from knocktwice_worker.content import media, rendering, sms_parts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from knocktwice_shared.messages import Push
    from knocktwice_worker.content.links.short_links import Tracker


@record
class Filling:
    """The values that fill a step for one person.

    Attributes:
        push, sms_text: the person's content.
        locale: which of a template's contents the person has.
        params: the person's values.
        path: what an error calls the step.
        links: makes the step's short links; ``None``: links stay as they are.
    """

    push: Push | None
    sms_text: str | None
    locale: str | None
    params: Mapping[str, Any]
    path: str = "plan"
    links: Tracker | None = None

    def own(self, value: str | Mapping[str, str] | None) -> str | None:
        """Return what is for everybody, or for this person's locale."""
        return value if value is None or isinstance(value, str) else value[str(self.locale)]

    def fill(self, field: str, text: str) -> str:
        """Fill a text in; ``field`` is where it stands in the step.

        Raises:
            InvalidMessage: a parameter is missing, or the text is broken.
        """
        return rendering.fill_in(f"{self.path}.{field}", text, self.params, self.links)

    def fill_addresses(self, field: str, given: Sequence[str] | Mapping[str, Sequence[str]]) -> list[str]:
        """Fill in the addresses of media, and judge them.

        Args:
            field: where they stand in the step.
            given: for everybody, or by locale.

        Raises:
            InvalidMessage: one is no address when it is filled in; or as for :meth:`fill`.
        """
        own = given[str(self.locale)] if isinstance(given, Mapping) else given
        filled = []
        for place, text in enumerate(own):
            path = f"{self.path}.{field}[{place}]"
            filled.append(rendering.fill_in(path, text, self.params, address=True))
            if problem := address_problem(MEDIA, filled[-1]):
                raise InvalidMessage(path, f"{problem}, when filled in")
        return filled


class Wording(Protocol):
    """Writes and shows the messages of a channel's steps."""

    def write(self, step: Mapping[str, Any], filling: Filling) -> str:
        """Return what a step says to one person, as its row keeps it (``deliveries.text``).

        Args:
            step: as ``batches.plan`` keeps it.
            filling: the person's.

        Raises:
            InvalidMessage: a parameter is missing, a text is broken, or the result is too long; the field is named.
        """
        ...

    def shown(self, text: str) -> Mapping[str, Any]:
        """Return what :meth:`write` wrote, field by field, for a preview."""
        ...


class PlainText:
    """A text of the step's own, or else what the content says; with its media, if it has any."""

    def write(self, step: Mapping[str, Any], filling: Filling) -> str:
        """Return the text, as :func:`~knocktwice_worker.content.media.joined` keeps it with its media."""
        given = step.get(MEDIA)
        return media.joined(self._text(step, filling), filling.fill_addresses(MEDIA, given) if given else ())

    def _text(self, step: Mapping[str, Any], filling: Filling) -> str:
        own = filling.own(step.get("text"))
        if own is None:
            return rendering.render_sms(filling.push, filling.sms_text, filling.params, links=filling.links)
        return rendering.render_sms(None, own, filling.params, f"{filling.path}.text", filling.links)

    def shown(self, text: str) -> Mapping[str, Any]:
        """Return the text, how many parts an SMS of it has or counts as, and the media."""
        said, addresses = media.parted(text)
        shown = {"text": said, "encoding": sms_parts.encoding(said), "sms_parts": media.parts(text)}
        return {**shown, MEDIA: addresses} if addresses else shown


#: The wording of all channels that say texts.
PLAIN_TEXT: Wording = PlainText()
