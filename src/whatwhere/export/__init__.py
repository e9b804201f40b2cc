"""Networks with gates as files that run elsewhere, each compared with the live network."""

from whatwhere.export.errors import ExportError
from whatwhere.export.int8 import Quantized, quantize
from whatwhere.export.network import Exported, Target, export

__all__ = ["ExportError", "Exported", "Quantized", "Target", "export", "quantize"]
