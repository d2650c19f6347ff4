"""Pushwoosh: ``/pushwoosh/json/1.3/…`` takes its messages, devices, tags and questions about what became of a message."""

from knocktwice_worker.gateway.faces.pushwoosh.interface import FACE

__all__ = ["FACE"]
