"""Checkpoints: dialects of other code bases, and files that rebuild their networks."""

from whatwhere.checkpoints.conversion import Conversion, convert, convert_file
from whatwhere.checkpoints.files import describe, load, save

__all__ = ["Conversion", "convert", "convert_file", "describe", "load", "save"]
