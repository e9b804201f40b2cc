"""CBAM weights from one code base's names and function to another's, proven on random input."""

from whatwhere.checkpoints.conversion.convert import Conversion, convert
from whatwhere.checkpoints.conversion.convert_file import convert_file
from whatwhere.checkpoints.conversion.dialects import DIALECTS

__all__ = ["DIALECTS", "Conversion", "convert", "convert_file"]
