"""A template written to eat the worker is stopped early, in time and in memory,
each in a process that has little of both.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from typing import Any

import pytest

from knocktwice_shared.errors import InvalidMessage
from knocktwice_shared.messages import Push
from knocktwice_worker.content.liquid_environment import FILTERS
from support.rendered import render

#: What a process may have to compile a template and fill it in. Python and Liquid themselves take the most of it.
MEMORY_MB, SECONDS = 512, 0.5

#: What comes with the recipient: up to 4 KB, of the nastiest kinds.
PARAMS: dict[str, Any] = {
    "x": "x" * 4_000,
    "words": "a " * 2_000,
    "amp": "&" * 4_000,
    "lines": "\n" * 2_000,
    "open": "<" * 4_000,
    "script": "<script" * 570,
    "comment": "<!--" * 1_000,
    "digits": "9" * 4_000,
    "sharp": "ß" * 2_000,
    "n": 10**9,
    "many": list(range(2_000)),
    "a": {},
}

HOSTILE = {
    "a loop": "{% for i in (1..100000000) %}x{% endfor %}",
    "a loop as long as a value says": "{% for i in (1..n) %}{% endfor %}",
    "a loop backwards": "{% for i in (1..100000000) reversed %}x{% endfor %}",
    "a loop from far away": "{% for i in (1..100000000) offset: 99999999 %}x{% endfor %}",
    "a loop beyond what a number holds": "{% for i in (1..99999999999999999999999) limit: 1 %}x{% endfor %}",
    "loops in loops": "{% for i in (1..900) %}{% for j in (1..900) %}x{% endfor %}{% endfor %}",
    "loops after loops": "{% for i in (1..999) %}{% for v in a %}{% endfor %}{% if x contains 'y' %}{% endif %}{% endfor %}" * 40,
    "a slow loop": "{% for i in (1..999) %}" + "{% if x contains 'xxxxxy' %}{% endif %}" * 90 + "{% endfor %}",
    "a table": "{% tablerow i in (1..100000000) cols:1 %}x{% endtablerow %}",
    "a table backwards": "{% tablerow i in (1..100000000) reversed %}x{% endtablerow %}",
    "much output": "{% for i in many %}{{ x }}{% endfor %}",
    "output that is kept": "{% capture c %}{{ x }}{% endcapture %}" + "{% capture c %}{{ c }}{{ c }}{% endcapture %}" * 80,
    "a text doubled": "{% assign s = x %}{% for i in (1..20) %}{% assign s = s | append: s %}{% endfor %}",
    "a number squared": "{% assign n = 9 %}{% for i in (1..900) %}{% assign n = n | times: n %}{% endfor %}",
    "a text that is measured, not written": "{% for i in (1..900) %}{{ x" + " | append: x" * 150 + " | size }}{% endfor %}",
    "a text that grows in each filter": "{{ amp" + " | escape" * 300 + " | size }}",
    "lines that grow in each filter": "{{ lines" + " | newline_to_br" * 180 + " | size }}",
    "letters that grow in each filter": "{{ sharp" + " | upcase | url_encode" * 100 + " | size }}",
    "a filter in a loop": "{% for i in (1..900) %}{% assign a = script | strip_html %}{% endfor %}",
    "words in a loop": "{% for i in (1..900) %}{% assign a = words | truncatewords: 99999 %}{% endfor %}",
    "markup that is never closed": "{" * 3_800,
    "placeholders that are never closed": "{{ " * 1_200,
    "tags that are never closed": "{%- if " * 540,
    "blanks": "{{" + " " * 3_600 + "}}",
    "blanks in a tag": "{% if" + " " * 3_600 + "%}",
    "tags in tags": "{% if x %}" * 380,
    "a long condition": "{% if x" + " or x" * 700 + " %}a{% endif %}",
    "parentheses": "{% if " + "(" * 3_000 + "x" + ")" * 600 + " %}a{% endif %}",
    "brackets": "{{ a" + "[a" * 1_200 + "]" * 1_200 + " }}",
    "a date of dates": "{{ 'now' | date: '" + "%c" * 1_800 + "' }}",
    "a list of a long range": "{{ (1..n) | join: ' ' }}",
    "a long range reversed": "{{ (1..100000000) | reverse | size }}",
    "a range beside a list": "{{ many | concat: (1..100000000) | size }}",
    "a text that is replaced by itself": "{{ x | replace: 'x', x" + " | replace: 'x', x" * 9 + " | size }}",
    "nothing replaced by much": "{% capture c %}{{ x }}{{ x }}{{ x }}{% endcapture %}{{ c | replace: '', c | size }}",
    "a list joined by much": "{{ many | join: x | size }}",
    "lists joined and split": "{% assign l = many %}" + "{% assign l = l | join: 'ab' | split: '' %}" * 20,
    "a list that doubles": "{% assign l = many %}" + "{% assign l = l | concat: l %}" * 30 + "{{ l | size }}",
    "unique ones of many": "{% for i in (1..900) %}{% assign u = many | uniq %}{% endfor %}",
    "sorted again and again": "{% for i in (1..900) %}{% assign u = many | sort %}{% endfor %}",
    "encoded again and again": "{{ x" + " | base64_encode" * 90 + " | size }}",
    "a file": "{% include '/etc/passwd' %}",
    "another template": "{% render 'x' %}",
}  # fmt: skip

#: Expensive to look at, but there is an answer.
HARMLESS = {
    "a tag of another language": "{{ open | strip_html | size }}",
    "half a script": "{{ script | strip_html | size }}",
    "half a comment": "{{ comment | strip_html | size }}",
    "digits": "{{ digits | divided_by: 3 | size }}",
    "a range": "{{ (1..1000000000000) | size }}",
    "a part of a long range": "{{ (1..n) | slice: 5, 3 | first }}",
}

PROGRAM = """
import json, resource, sys, time
resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
from knocktwice_shared.errors import InvalidMessage
from knocktwice_shared.messages import Push
from knocktwice_worker.content.pushes import PushForm
PushForm(Push("t", "{{ x }}")).fill({"x": "y"})
templates, params = json.load(sys.stdin)
results = {}
for name, template in templates.items():
    begun = time.process_time()
    try:
        PushForm(Push("t", template)).fill(params)
        problem = None
    except InvalidMessage as error:
        problem = str(error)
    results[name] = problem, time.process_time() - begun
json.dump(results, sys.stdout)
"""


@pytest.fixture(scope="module")
def outcomes() -> dict[str, tuple[str | None, float]]:
    """What became of each template: the problem, and the processor time it took."""
    program = PROGRAM.replace("MEMORY", str(MEMORY_MB * 2**20))
    given = json.dumps([HOSTILE | HARMLESS, PARAMS])
    done = subprocess.run([sys.executable, "-c", program], input=given, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_template_is_refused_soon(outcomes: dict[str, tuple[str | None, float]], name: str) -> None:
    problem, seconds = outcomes[name]
    assert problem is not None
    assert problem.startswith("content.push.body: ")
    assert seconds < SECONDS


@pytest.mark.parametrize("name", HARMLESS)
def test_an_expensive_question_is_answered_soon(outcomes: dict[str, tuple[str | None, float]], name: str) -> None:
    problem, seconds = outcomes[name]
    assert problem is None
    assert seconds < SECONDS


def test_a_broken_template_is_looked_at_once_for_all_recipients() -> None:
    text = "{% if " + "(" * 3_000 + "x %}a{% endif %}"
    begun = resource.getrusage(resource.RUSAGE_SELF).ru_utime
    for _ in range(500):
        with pytest.raises(InvalidMessage):
            render(Push("t", text), None, {})
    assert resource.getrusage(resource.RUSAGE_SELF).ru_utime - begun < 5


@pytest.mark.parametrize(
    "text",
    [
        "{{ x.__class__ }}",
        "{{ x['__class__'] }}",
        "{{ x.__class__.__mro__[1].__subclasses__ }}",
        "{{ ['__builtins__'] }}",
        "{{ x.format }}",
        "{{ x | attr: '__class__' }}",
        "{{ self }}",
        "{{ forloop.__init__.__globals__ }}",
        "{% for i in (1..1) %}{{ forloop.__init__ }}{% endfor %}",
        "{% for i in (1..1) %}{{ forloop.item.__class__ }}{% endfor %}",
    ],
)
def test_a_template_sees_values_and_not_what_python_knows_about_them(text: str) -> None:
    with pytest.raises(InvalidMessage, match=r"is undefined|unknown filter"):
        render(Push("t", text), None, {"x": "Ana"})


def test_no_filter_multiplies_or_writes_what_is_not_there() -> None:
    assert {"json", "safe", "escapejs"}.isdisjoint(FILTERS)
