"""Attention gates: the algebra, and the published modules stated on it."""

from whatwhere.gates.activations import ACTIVATIONS, Activation, Watcher
from whatwhere.gates.algebra import Gate, Mix, Start
from whatwhere.gates.attention import ChannelAttention, SpatialAttention, TemporalAttention
from whatwhere.gates.axes import Kind
from whatwhere.gates.cbam import CBAM, DIALECTS, Dialect
from whatwhere.gates.composition import Seq
from whatwhere.gates.mixes import DenseMix, PositionConv
from whatwhere.gates.parallel import LOGIT_JOINS, Par, Split
from whatwhere.gates.registry import build, gate_options, names, needed_options

__all__ = [
    "ACTIVATIONS",
    "CBAM",
    "DIALECTS",
    "LOGIT_JOINS",
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
    "Split",
    "Start",
    "TemporalAttention",
    "Watcher",
    "build",
    "gate_options",
    "names",
    "needed_options",
]
