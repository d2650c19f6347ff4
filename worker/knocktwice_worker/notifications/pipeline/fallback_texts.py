"""The text of a step that falls back: filled in, with its links and its sender, ready to be reserved."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from knocktwice_shared.channels import SMS
from knocktwice_shared.errors import InvalidMessage
from knocktwice_shared.messages import Push
from knocktwice_worker.channels.opened import NO_CARRIER
from knocktwice_worker.content import plans, rendering
from knocktwice_worker.content.links import link_store
from knocktwice_worker.content.rendering import fingerprint
from knocktwice_worker.lifecycle import Refusal
from knocktwice_worker.notifications import store
from knocktwice_worker.notifications.pipeline.decision_case import planned_step

if TYPE_CHECKING:
    from collections.abc import Callable

    from knocktwice_worker.channels.opened import Channels
    from knocktwice_worker.content.links.short_links import Tracker
    from knocktwice_worker.notifications.pipeline.decision_case import Case
    from knocktwice_worker.projects.file import Projects

#: Batch and locale → push and SMS text: read once for all who have the same.
Texts = dict[tuple[str, str | None], tuple[Push | None, str | None]]


@dataclass(frozen=True, kw_only=True)
class FallbackTexts:
    """Writes the messages of steps.

    Attributes:
        channels: the channels of later steps.
        projects: what projects have of their own.
        links: returns what makes the links in a step's message, if anything does.
    """

    channels: Channels
    projects: Projects
    links: Callable[[str, int], Tracker | None]

    def write(self, case: Case, address: str, batch: store.BatchContents, texts: Texts) -> store.Reservation | None:
        """Return the message of a step; ``None``, and the verdict says why, if it cannot be written or sent."""
        entry = self.channels.entry(case.row.channel)
        links = self.links(case.id, case.row.step)
        try:
            own = texts.get((case.row.batch_id, case.row.locale))
            if own is None:
                own = rendering.of(batch.content, case.row.locale)
                texts[case.row.batch_id, case.row.locale] = own
            step = planned_step(case.row, batch)
            said = plans.words(step, *own, case.row.locale, case.row.params, links=links, wording=entry.wording)
        except InvalidMessage as error:
            # The push, or another step, could be written, so the notification was accepted. Only this step fails.
            case.verdict, case.problem = Refusal.INVALID_CONTENT, str(error)
            return None
        if not self.channels.carriers(entry.name, said.text):
            case.verdict, case.problem = Refusal.INVALID_CONTENT, NO_CARRIER
            return None
        sender = said.sender or self._usual_sender(case, batch)
        if not self.projects.may_use(case.row.project, sender):
            case.verdict, case.problem = Refusal.INVALID_CONTENT, "the sender belongs to another project"
            return None
        same = said.text
        if links is not None and links.targets:
            case.links = [link_store.Link(t, case.id, case.row.step, target) for t, target in links.targets.items()]
            # Each message has its own short links. The fingerprint uses the links' targets, so that equal messages are
            # found.
            same = links.content(said.text)
        return store.Reservation(
            case.id, address, said.text, fingerprint(same), entry.size(said.text), sender, case.test
        )

    def _usual_sender(self, case: Case, batch: store.BatchContents) -> str | None:
        # The sender of a template is a sender of SMS.
        named = batch.content.get("sender") if case.row.channel == SMS else None
        own = self.projects.sender(case.row.project, case.row.channel)
        return named or own or self.channels[case.row.channel].sender
