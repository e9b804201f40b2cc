"""Attention gates: the algebra, and the published modules stated on it."""

from whatwhere.gates.algebra import Activation, Gate, Kind, Mix, Start, Watcher
from whatwhere.gates.attention import ChannelAttention, SpatialAttention, TemporalAttention
from whatwhere.gates.cbam import CBAM, DIALECTS, Dialect
from whatwhere.gates.composition import Par, Seq
from whatwhere.gates.mixes import DenseMix, PositionConv
from whatwhere.gates.registry import build, gate_options, names

__all__ = [
    "CBAM",
    "DIALECTS",
    "Activation",
    "ChannelAttention",
    "DenseMix",
    "Dialect",
    "Gate",
    "Kind",
    "Mix",
    "Par",
    "PositionConv",
    "Seq",
    "SpatialAttention",
    "Start",
    "TemporalAttention",
    "Watcher",
    "build",
    "gate_options",
    "names",
]
