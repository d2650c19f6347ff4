"""``python -m knocktwice_worker`` is the ``knocktwice`` command."""

from knocktwice_worker.cli import main

main()
