"""Checkpoints: dialects of other code bases, and files that rebuild their networks."""

from whatwhere.checkpoints.dialects import convert
from whatwhere.checkpoints.files import describe, load, save

__all__ = ["convert", "describe", "load", "save"]
