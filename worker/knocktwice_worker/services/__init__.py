"""Services: the long-lived parts of a process, built from the settings on first use.

``connections.py`` opens what outlives a change of the settings, ``signing.py`` has the keys, ``parts.py`` wires the
rooms together, ``accepted_work.py`` carries out messages of the contract, and ``process.py`` keeps one instance for
each process. It may import every room below; a room below must not know services, and names the values that it needs.
"""

from __future__ import annotations

from knocktwice_worker.services.connections import CONNECTIONS
from knocktwice_worker.services.parts import Services
from knocktwice_worker.services.process import services, steered

__all__ = ["CONNECTIONS", "Services", "services", "steered"]
