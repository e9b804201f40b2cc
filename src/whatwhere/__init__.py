"""What (channel), where (spatial) and when (temporal) attention for convolutional networks."""

from whatwhere.checkpoints import convert, load, save
from whatwhere.gates import (
    CBAM,
    ChannelAttention,
    Gate,
    Par,
    Seq,
    SpatialAttention,
    TemporalAttention,
    build,
    names,
)
from whatwhere.look import diagnose, record
from whatwhere.ops import implementation
from whatwhere.surgery import attached, attend, detach, parameter_groups, sites
from whatwhere.trim import fold, prune

__version__ = "0.1.0"

__all__ = [
    "CBAM",
    "ChannelAttention",
    "Gate",
    "Par",
    "Seq",
    "SpatialAttention",
    "TemporalAttention",
    "__version__",
    "attached",
    "attend",
    "build",
    "convert",
    "detach",
    "diagnose",
    "fold",
    "implementation",
    "load",
    "names",
    "parameter_groups",
    "prune",
    "record",
    "save",
    "sites",
]
