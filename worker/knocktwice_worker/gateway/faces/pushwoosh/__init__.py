"""Pushwoosh: ``/pushwoosh/json/1.3/…`` takes its messages, devices, tags and questions about a message's end."""

from knocktwice_worker.gateway.faces.pushwoosh.interface import FACE

__all__ = ["FACE"]
