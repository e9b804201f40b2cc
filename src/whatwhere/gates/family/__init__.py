"""The published gates, each an expression of the algebra."""

from collections.abc import Callable

from torch import nn

from whatwhere.gates.attention import ChannelAttention, SpatialAttention, TemporalAttention
from whatwhere.gates.cbam import CBAM
from whatwhere.gates.family import both, channel, clips, groups, profiles

__all__ = ["CLIPS", "FAMILY", "FRAMES"]

FAMILY: dict[str, Callable[..., nn.Module]] = {
    "cbam": CBAM,
    "channel": ChannelAttention,
    "spatial": SpatialAttention,
    "temporal": TemporalAttention,
    "se": channel.se,
    "ese": channel.ese,
    "eca": channel.eca,
    "ceca": channel.ceca,
    "ge": channel.ge,
    "ge_theta": channel.ge_theta,
    "ge_theta_plus": channel.ge_theta_plus,
    "srm": channel.srm,
    "gct": channel.gct,
    "fca": channel.fca,
    "gc": channel.gc,
    "cse": both.cse,
    "sse": both.sse,
    "scse": both.scse,
    "bam": both.bam,
    "simam": both.simam,
    "coordinate": profiles.coordinate,
    "ela": profiles.ela,
    "triplet": profiles.triplet,
    "project_excite": profiles.project_excite,
    "sge": groups.sge,
    "shuffle": groups.shuffle,
    "ema": groups.ema,
    "lka": groups.lka,
    "lska": groups.lska,
    "ma": clips.ma,
    "tab": clips.tab,
    "aia": clips.aia,
    "group_context": clips.group_context,
    "tea": clips.tea,
    "action": clips.action,
    "tam": clips.tam,
}
# Without frames and positions both, these have no equation.
CLIPS = frozenset({"ma", "tab", "aia", "group_context", "tea", "action"})
# These need an axis of frames, of clips or sequences.
FRAMES = frozenset({"temporal", "tam"})
