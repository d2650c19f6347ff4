"""The recipients of a payload: tokens and accounts become recipients, tags become a segment's filter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from knocktwice.tpns.problems import Problems

_LISTS = {"token": "token_list", "token_list": "token_list", "account": "account_list", "account_list": "account_list"}
_GROUPS = ("tag", "all")
_PLATFORMS = ("android", "ios")
_PACKAGES = ("package_account_push", "package_token_push")
_ITEM = {"tags", "tags_operator", "items_operator", "is_not", "tag_type"}

Filter = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Targets:
    """People, or a group of them.

    Args:
        field: where the payload names them.
        names: tokens or accounts; those of a group are not known here.
        filter: of whom the group consists, as ``docs/segments.md`` describes it.
    """

    field: str
    names: tuple[str, ...] = ()
    filter: Filter | None = None

    @property
    def are_accounts(self) -> bool:
        """Whether the names are users, not registrations."""
        return self.field == "account_list"


def targets(payload: Mapping[str, Any], problems: Problems, lost: Problems) -> Targets | None:
    """Read ``audience_type`` and what belongs to it; ``None`` if something is wrong.

    Args:
        problems: gets what is wrong.
        lost: gets the wishes that cannot be met, though the push can go.
    """
    platform = problems.text(payload, "platform", "platform") if payload.get("platform") else None
    if platform not in (None, *_PLATFORMS, "all"):
        problems.add("platform", "must be android, ios or all")
        platform = None
    kind = problems.text(payload, "audience_type", "audience_type", required=True)
    if kind is None:
        return None
    if kind in _GROUPS:
        found = segment_filter(payload, problems)
        if found is not None and platform in _PLATFORMS:
            found = _narrowed(found, {"field": "platform", "op": "=", "value": platform})
        return None if found is None else Targets("tag_rules" if payload.get("tag_rules") else "tag_list", filter=found)
    if kind not in _LISTS:
        advice = "read the file and give token_list or account_list" if kind in _PACKAGES else "misspelt?"
        problems.add("audience_type", f"must be one of {', '.join((*_LISTS, *_GROUPS))}; {advice}")
        return None
    field = _LISTS[kind]
    names = problems.texts(payload, field, field, required=True)
    if names is None:
        return None
    if field == "account_list":
        _note_accounts(payload, platform, problems, lost)
    # "Messages are pushed to the device with the first token only", says Tencent, and likewise of accounts.
    return Targets(field, tuple(names[:1] if kind in ("token", "account") else names))


def _note_accounts(payload: Mapping[str, Any], platform: str | None, problems: Problems, lost: Problems) -> None:
    """Name the wishes for some of an account's devices: a push goes to all of them."""
    if problems.number(payload, "account_push_type", "account_push_type", 0, 1) == 0:
        lost.add("account_push_type", "is ignored; a push goes to all devices of an account, not to the latest alone")
    if platform in _PLATFORMS:
        lost.add("platform", "is ignored; a push goes to all devices of an account")


def _narrowed(found: Filter, more: Filter) -> Filter:
    if "everyone" in found:
        return more
    return {"and": [*found["and"], more]} if "and" in found else {"and": [found, more]}


def segment_filter(payload: Mapping[str, Any], problems: Problems) -> Filter | None:
    """Return the segment that ``audience_type`` ``tag`` or ``all`` means; ``None`` if something is wrong.

    A tag of Tencent's is a label. Here it is a tag of that name whose value is ``true``.
    """
    before = len(problems)
    if payload.get("audience_type") == "all":
        return {"everyone": True}
    # "If both tag_rules and tag_list are specified, tag_list becomes invalid automatically."
    if payload.get("tag_rules") is not None:
        made = _rules(payload["tag_rules"], problems)
    else:
        made = _tag_list(payload, problems)
    return made if len(problems) == before else None


def _tag_list(payload: Mapping[str, Any], problems: Problems) -> Filter | None:
    tag_list = problems.object(payload, "tag_list", "tag_list", required=True)
    if tag_list is None:
        return None
    problems.unknown(tag_list, {"tags", "op"}, "tag_list.", {})
    tags = problems.texts(tag_list, "tags", "tag_list.tags", required=True)
    op = _operator(tag_list, "op", "tag_list.op", problems)
    return _joined(op, [_label(tag) for tag in tags]) if tags and op else None


def _rules(value: object, problems: Problems) -> Filter | None:
    made: Filter | None = None
    for rule, path in _objects(value, "tag_rules", problems):
        problems.unknown(rule, {"tag_items", "operator", "is_not"}, f"{path}.", {})
        inner: Filter | None = None
        for item, item_path in _objects(rule.get("tag_items"), f"{path}.tag_items", problems):
            inner = _followed_by(inner, item, "items_operator", item_path, _item(item, item_path, problems), problems)
        negated = problems.flag(rule, "is_not", f"{path}.is_not")
        made = _followed_by(made, rule, "operator", path, {"not": inner} if negated else inner, problems)
    return made


def _item(item: Mapping[str, Any], path: str, problems: Problems) -> Filter | None:
    problems.unknown(item, _ITEM, f"{path}.", {})
    tags = problems.texts(item, "tags", f"{path}.tags", required=True)
    op = _operator(item, "tags_operator", f"{path}.tags_operator", problems)
    kind = item.get("tag_type") or "xg_user_define"
    negated = problems.flag(item, "is_not", f"{path}.is_not")
    if kind not in ("xg_user_define", "xg_auto_country"):
        advice = "tag people yourself, by Client.tag_user"
        problems.add(f"{path}.tag_type", f"must be xg_user_define or xg_auto_country; {advice}")
        return None
    if not tags or not op:
        return None
    country = kind == "xg_auto_country"
    made = _joined(op, [_country(tag) if country else _label(tag) for tag in tags])
    return {"not": made} if negated else made


def _followed_by(
    before: Filter | None, holder: Mapping[str, Any], name: str, path: str, next_: Filter | None, problems: Problems
) -> Filter | None:
    """Join to what stands before. The operator of the first has nothing to join."""
    if next_ is None or before is None:
        return next_
    op = _operator(holder, name, f"{path}.{name}", problems)
    if op in before:
        return {op: [*before[op], next_]}
    return _joined(op, [before, next_]) if op else None


def _objects(value: object, path: str, problems: Problems) -> Sequence[tuple[Mapping[str, Any], str]]:
    if not isinstance(value, list) or not value or not all(isinstance(item, dict) for item in value):
        problems.add(path, "must be a list of objects, and not empty")
        return []
    return [(item, f"{path}[{place}]") for place, item in enumerate(value)]


def _operator(holder: Mapping[str, Any], name: str, path: str, problems: Problems) -> str | None:
    value = holder.get(name)
    if isinstance(value, str) and value.upper() in ("AND", "OR"):
        return value.lower()
    problems.add(path, "is missing; AND or OR" if value is None else "must be AND or OR")
    return None


def _joined(op: str, parts: list[Filter]) -> Filter:
    return parts[0] if len(parts) == 1 else {op: parts}


def _label(tag: str) -> Filter:
    return {"field": f"tags.{tag}", "op": "=", "value": True}


def _country(code: str) -> Filter:
    return {"field": "country", "op": "=", "value": code}
