"""``python -m knocktwice_worker.cli`` is the ``knocktwice`` command."""

from knocktwice_worker.cli.main import main

main()
