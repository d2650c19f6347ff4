"""``knocktwice lint``: what can be applied and would still disappoint: costs, delays and hours that do not fit.

Only history can tell some of it (``lint_history.py``); this module reads declarations and settings.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from knocktwice_shared.channels import MEDIA, SMS
from knocktwice_shared.errors import InvalidMessage
from knocktwice_shared.messages import Category
from knocktwice_worker.audience.opt_out_words import names_stop
from knocktwice_worker.channels.opened import require_carriers, with_settings
from knocktwice_worker.content import sms_parts, templates
from knocktwice_worker.content.sms_parts import Encoding
from knocktwice_worker.content.template_fallback import Fallback
from knocktwice_worker.notation import durations

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from knocktwice_worker.config import Settings
    from knocktwice_worker.content.templates import Definition
    from knocktwice_worker.limits.quiet_hours import QuietHours


class Rule(StrEnum):
    """The kinds of findings."""

    #: A few characters outside the GSM 7-bit alphabet make an SMS cost more parts.
    COSTLY_CHARACTER = "costly_character"
    #: An SMS of marketing does not say how to opt out.
    NO_OPT_OUT = "no_opt_out"
    #: A message that is due at night is of no use any more when the night ends.
    QUIET_FOR_EVER = "quiet_for_ever"
    #: A step does not wait as long as the app usually takes to report.
    DELAY_TOO_SHORT = "delay_too_short"
    #: A step waits for a report that the app never makes.
    NEVER_REPORTED = "never_reported"
    #: A step has media, and no provider takes them.
    MEDIA_UNTAKEN = "media_untaken"


@dataclass(frozen=True, slots=True)
class Flaw:
    """Something that would disappoint.

    Attributes:
        where: the field, from the file's top, or the setting.
        problem: what would happen.
        fix: what would mend it.
    """

    rule: Rule
    where: str
    problem: str
    fix: str


#: Characters outside the alphabet that have a twin within it.
_TWINS = {
    "\u2018": "'",
    "\u2019": "'",
    "\u201a": ",",
    "\u201c": '"',
    "\u201d": '"',
    "\u201e": '"',
    "\u2013": "-",
    "\u2014": "-",
    "\u2026": "...",
    "\u00a0": " ",
    "\u202f": " ",
    "\u2009": " ",
    "\u200b": "",
    "\u00ad": "",
    "\u2022": "-",
    "\u00b4": "'",
    "`": "'",
    "\t": " ",
}
#: What is filled in later. Its length is not known; a name or a code is about as long as what stands for it.
_MARKUP = re.compile(r"\{\{.*?\}\}|\{[1-9][0-9]?\}", re.DOTALL)
_VALUE = "value12345"
_TAGS = re.compile(r"\{%.*?%\}", re.DOTALL)
#: From so many different characters on a text is in another script, and no twin would help.
_SCRIPT = 4


def of_declarations(declared: Mapping[str, Mapping[str, Any]], settings: Settings) -> Iterator[Flaw]:
    """Yield what is wrong with an operator's file, as :func:`declarations.files.read` returns it."""
    for name, value in declared.get("templates", {}).items():
        yield from of_template(f"templates.{name}", templates.check(name, value), settings)
    for name, value in declared.get("blasts", {}).items():
        template = declared.get("templates", {}).get(value["template"])
        if template is None or value.get("category") != Category.MARKETING:
            continue
        if templates.check(value["template"], template).category is Category.MARKETING:
            # Found at the template itself.
            continue
        made = templates.check(value["template"], {**template, "category": value["category"]})
        yield from _of_marketing(f"blasts.{name}.template", made, settings)


def of_template(where: str, made: Definition, settings: Settings) -> Iterator[Flaw]:
    """Yield what is wrong with a template.

    Args:
        where: the path of the template.
    """
    for field, text in texts(made):
        yield from _characters(f"{where}.{field}", text)
    yield from _media(where, made, settings)
    if made.category is Category.MARKETING:
        yield from _of_marketing(where, made, settings)


def of_settings(settings: Settings) -> Iterator[Flaw]:
    """Yield what is wrong with the settings."""
    useful = settings.useless_after[Category.MARKETING]
    yield from _nights("KNOCKTWICE_USELESS_AFTER_MARKETING_S", useful, settings.quiet)


def steps(made: Definition) -> list[Fallback]:
    """Return the steps that follow a template's push."""
    if isinstance(made.fallback, Fallback):
        return [made.fallback]
    return list(made.fallback) if isinstance(made.fallback, list) else []


def texts(made: Definition) -> Iterator[tuple[str, str]]:
    """Yield each text of an SMS that a template may send, with the field where it stands, its signature before it."""
    if made.fallback == "never":
        return
    signature = f"{made.signature} " if made.signature else ""
    own = [step for step in steps(made) if step.channel == SMS]
    if not steps(made) or any(step.text is None for step in own):
        for locale, content in made.contents.items():
            field = "sms" if content.sms is not None else "push.body"
            yield (
                f"contents.{locale}.{field}",
                signature + (content.sms_words or ""),
            )
    for place, step in enumerate(steps(made)):
        if step.channel != SMS or step.text is None:
            continue
        field = f"{_step(made, place)}.text"
        said = step.text if isinstance(step.text, dict) else {"": step.text}
        for locale, text in said.items():
            yield f"{field}.{locale}".rstrip("."), signature + text


def _step(made: Definition, place: int) -> str:
    return f"fallback.{place}" if isinstance(made.fallback, list) else "fallback"


def _characters(where: str, text: str) -> Iterator[Flaw]:
    """Whether few characters make an SMS longer than it would be without them."""
    said = _literal(text)
    if sms_parts.encoding(said) is Encoding.GSM_7:
        return
    costly = [c for c in dict.fromkeys(said) if sms_parts.encoding(c) is Encoding.UCS_2]
    if len(costly) >= _SCRIPT:
        return
    mended = "".join(_twin(c) if c in costly else c for c in said)
    now, then = sms_parts.count(said), sms_parts.count(mended)
    if then >= now:
        return
    named = ", ".join(f"{_shown(c)} at character {text.index(c) + 1}" for c in costly)
    yield Flaw(
        Rule.COSTLY_CHARACTER,
        where,
        f"{named}: the SMS has {now} parts, and {then} without",
        "write "
        + ", ".join(f"{_twin(c)!r} for {_shown(c)}" if _twin(c) else f"nothing for {_shown(c)}" for c in costly),
    )


def _media(where: str, made: Definition, settings: Settings) -> Iterator[Flaw]:
    """Whether there are media that no provider takes."""
    for place, step in enumerate(made.plan if made.fallback != "never" else ()):
        try:
            require_carriers([step], with_settings(settings))
        except InvalidMessage:
            yield Flaw(
                Rule.MEDIA_UNTAKEN,
                f"{where}.{_step(made, place)}.{MEDIA}",
                "no SMS provider of this installation takes media: the step fails, and what follows it is taken",
                "give a provider in KNOCKTWICE_SMS_PROVIDERS_FILE a field for {media}, or leave the media out",
            )


def _literal(text: str) -> str:
    """Return what a text says, with something as long as usual for each value."""
    return _MARKUP.sub(_VALUE, _TAGS.sub("", text))


def _twin(character: str) -> str:
    """Return what stands for a character in the alphabet: its twin, or the letter without its accent; else nothing."""
    if character in _TWINS:
        return _TWINS[character]
    plain = "".join(c for c in unicodedata.normalize("NFKD", character) if not unicodedata.combining(c))
    return plain if plain and sms_parts.encoding(plain) is Encoding.GSM_7 else ""


def _shown(character: str) -> str:
    name = unicodedata.name(character, "")
    return f"{character!r} (U+{ord(character):04X}{' ' + name if name else ''})"


def _of_marketing(where: str, made: Definition, settings: Settings) -> Iterator[Flaw]:
    yield from _opt_outs(where, made)
    if any(texts(made)):
        yield from _nights(where, made.valid_for or settings.useless_after[made.category], settings.quiet)


def _opt_outs(where: str, made: Definition) -> Iterator[Flaw]:
    for field, text in texts(made):
        if not names_stop(_literal(text)):
            yield Flaw(
                Rule.NO_OPT_OUT,
                f"{where}.{field}",
                "an SMS of marketing does not say how to opt out, which many countries demand",
                "end it with words like: STOP to opt out",
            )


def _nights(where: str, useful: timedelta, quiet: QuietHours) -> Iterator[Flaw]:
    longest = _longest_night(quiet)
    if longest and useful < longest:
        yield Flaw(
            Rule.QUIET_FOR_EVER,
            where,
            f"marketing that is due when the quiet hours begin waits for {durations.written(longest)}, and is of use for {durations.written(useful)}: "
            "it is never sent",
            "lengthen its use beyond the quiet hours, or shorten KNOCKTWICE_QUIET_HOURS",
        )


def _longest_night(quiet: QuietHours) -> timedelta:
    day = datetime(2026, 1, 1)  # noqa: DTZ001 - a day as long as most
    length = datetime.combine(day, quiet.end) - datetime.combine(day, quiet.start)
    return length % timedelta(days=1)
