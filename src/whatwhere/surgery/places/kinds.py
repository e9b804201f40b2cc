"""Which finder finds which kind of place."""

from collections.abc import Callable

from torch import nn

from whatwhere.surgery.graph import Trace
from whatwhere.surgery.places.modules import channel_gates, separable_ends
from whatwhere.surgery.places.residual import branch_ends
from whatwhere.surgery.places.resolutions import bridges, skips, stage_ends
from whatwhere.surgery.places.site import Kind, Skipped, Wanted

Finder = Callable[[nn.Module, Trace], tuple[list[Wanted], list[Skipped]]]

FINDERS: dict[Kind, Finder] = {
    "blocks": branch_ends,
    "stages": stage_ends,
    "bridge": bridges,
    "skips": skips,
    "depthwise": separable_ends,
    "se": channel_gates,
}
