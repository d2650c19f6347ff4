"""The test side: everything is done but the provider's call.

A project has a test side, and so has an installation without projects. What belongs to it is marked by the end of its
project's name: ``shop~test``, or ``~test`` alone. So the mark goes wherever the project goes, on the wire and in rows;
and keys, cancellations and histories of tests are apart from the real ones, as those of two projects are. No project
can have such a name, and a release that does not know the mark refuses it.
"""

from __future__ import annotations

#: The end of a project's name by which a test is known.
MARK = "~test"


def is_test(project: str | None) -> bool:
    """Return whether what belongs to this is a test."""
    return project is not None and project.endswith(MARK)


def side_of_tests(project: str | None) -> str:
    """Return the test side of a project, or with ``None`` of what belongs to no project."""
    return f"{project or ''}{MARK}"


def real_side(project: str | None) -> str | None:
    """Return the project without the mark; ``None``: no project."""
    if project is None or not project.endswith(MARK):
        return project
    return project[: -len(MARK)] or None
