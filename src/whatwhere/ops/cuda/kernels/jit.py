"""How kernels are compiled: for what decides their memory accesses, and for no other number.

Triton compiles a kernel anew for each integer that is 1, or begins or ceases to be a multiple of
16. Of the sizes and strides of x that is wanted, since rows of whole vectors are read as such; of
all other integers it would be a compilation now and then for nothing.
"""

from collections.abc import Callable
from typing import Any

import triton

LOOSE = (
    *("sample_from", "samples", "tiles", "tiles_c", "tiles_p", "splits", "split_row", "steps"),
    *("row", "gate_row", "channel_row", "spatial_row", "descriptors_row", "maps_row", "means_row"),
    *("dmaps_row", "ddescriptors_row", "map_means_row", "gate_at", "channel_at", "spatial_at"),
    *("descriptors_at", "hidden_at", "maps_at", "means_at", "map_means_at", "length", "number"),
    *("mean_at", "top_at", "std_at", "l2_at"),
    *("map_mean_at", "map_top_at", "map_std_at", "map_l2_at"),
    *("rows", "depth", "each", "weights", "kept", "kept_from", "place_splits"),
    *("frames", "height", "width", "kt", "kh", "wd", "wt", "wh", "ww"),
    *("map_programs", "programs", "shares"),
)


def kernel(function: Callable[..., Any]) -> Any:
    """A kernel that is launched from Python."""
    return triton.jit(function, do_not_specialize=LOOSE)
