"""The ``knocktwice`` command, also as ``python -m knocktwice_worker.cli``. Names what it needs and is not installed."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line. Exits 2 if a package is missing that an extra of knocktwice would have brought."""
    try:
        from knocktwice_worker.cli import main as command

        command.main()
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if not package or package.startswith("knocktwice"):
            raise
        print(
            f"error: {package} is not installed. Sending from an application works without it; this command does not.\n"
            "The worker and this command:    pip install 'knocktwice[worker]'\n"
            "and what 'up' and 'demo' need:  pip install 'knocktwice[all]'\n"
            "In a clone write . instead of knocktwice: pip install '.[all]'",
            file=sys.stderr,
        )
        sys.exit(2)


if __name__ == "__main__":
    main()
