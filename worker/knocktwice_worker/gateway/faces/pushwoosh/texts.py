"""A message's texts: by language, with Pushwoosh's placeholders ``{Name|modifier|default}`` as our personal text.

A placeholder is the value of ``dynamic_content_placeholders``, else the person's tag of that name, else its default.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from knocktwice_shared.messages.problems import fail

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

#: Not inside ``{{ }}``, which is Liquid in both products.
_PLACE = re.compile(r"(?<!\{)\{([^{}|%]+)(?:\|([^{}|]*)(?:\|([^{}|]*))?)?\}(?!\})")
#: Pushwoosh's modifiers, lower case.
_MODIFIERS: dict[str, Callable[[str], str]] = {
    "": str,
    "regular": str,
    "capitalizefirst": lambda text: text[:1].upper() + text[1:],
    "capitalizeallfirst": lambda text: " ".join(word[:1].upper() + word[1:] for word in text.split(" ")),
    "uppercase": str.upper,
    "lowercase": str.lower,
}


#: The same of a person's tag, which is known only when the text is filled in: Liquid with the tag and the default.
_OWN = {
    "": "{{{{ {tag} | default: {default} }}}}",
    "regular": "{{{{ {tag} | default: {default} }}}}",
    "uppercase": '{{{{ {tag} | default: "" | upcase | default: {default} }}}}',
    "lowercase": '{{{{ {tag} | default: "" | downcase | default: {default} }}}}',
    "capitalizefirst": '{{% assign own_word = {tag} | default: "" | append: "" %}}'
    "{{% assign own_first = own_word | slice: 0 | upcase %}}"
    "{{{{ own_word | slice: 1, 1000 | prepend: own_first | default: {default} }}}}",
    "capitalizeallfirst": '{{% assign own_words = {tag} | default: "" | append: "" | split: " " %}}'
    "{{% for own_word in own_words %}}{{% assign own_first = own_word | slice: 0 | upcase %}}"
    '{{% unless forloop.first %}}{{% assign own_first = own_first | prepend: " " %}}{{% endunless %}}'
    "{{{{ own_word | slice: 1, 1000 | prepend: own_first }}}}{{% else %}}{{{{ {default} }}}}{{% endfor %}}",
}


class Texts:
    """Fills in texts. Values become parameters of their own, so that braces in them stay what they are.

    Args:
        placeholders: ``dynamic_content_placeholders``.
    """

    def __init__(self, placeholders: Mapping[str, Any]) -> None:
        self._given = placeholders
        #: Values of all texts, for Liquid's ``{{ name }}`` too.
        self.params: dict[str, Any] = {name: value for name, value in placeholders.items() if name.isidentifier()}
        self._names: dict[tuple[str, str], str] = {}

    def read(self, value: object, path: str) -> object:
        """Return a text for everybody, or texts by language, as our own requests have them.

        Raises:
            InvalidMessage: a placeholder has no value, or a modifier is not known.
        """
        if isinstance(value, dict):
            return {tag: self._filled(text, f"{path}.{tag}") for tag, text in value.items()}
        return self._filled(value, path)

    def _filled(self, text: object, path: str) -> object:
        if not isinstance(text, str):
            return text
        return _PLACE.sub(lambda found: self._place(found, path), text)

    def _place(self, found: re.Match[str], path: str) -> str:
        name, modifier, default = found[1].strip(), (found[2] or "").strip(), found[3]
        change = _MODIFIERS.get(modifier.lower())
        if change is None:
            return fail(path, f"has a modifier that is not known in {found[0][:60]!r}", "")
        value = self._given.get(name)
        if value is None and default is None:
            return fail(
                path,
                f"has {found[0][:60]!r}, which needs a value in dynamic_content_placeholders, or a default for people "
                "without such a tag",
                "",
            )
        if value is not None:
            return f"{{{{ {self._param(name, change(str(value)))} }}}}"
        if '"' in name and "'" in name:
            return fail(path, f"has {found[0][:60]!r}, which no tag can be called", "")
        quoted = f"'{name}'" if '"' in name else f'"{name}"'
        return _OWN[modifier.lower()].format(tag=f"user.tags[{quoted}]", default=self._param(name, str(default)))

    def _param(self, name: str, said: str) -> str:
        """Return the name of a parameter that has this value."""
        place = self._names.setdefault((name, said), f"place_{len(self._names) + 1}")
        self.params[place] = said
        return place


def default_locale(*texts: object) -> str | None:
    """Return the language of people of any other one: English if there is some, or else the first that is given."""
    tags = [tag for text in texts if isinstance(text, dict) for tag in text]
    if not tags:
        return None
    return "en" if "en" in tags else str(tags[0])
