"""Checkpoints: dialects of other code bases, and files that describe their own gates."""

from whatwhere.checkpoints.dialects import convert
from whatwhere.checkpoints.files import describe, load, save

__all__ = ["convert", "describe", "load", "save"]
