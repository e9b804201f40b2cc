"""How kernels are compiled: for what decides their memory accesses, and for no other number.

Triton compiles a kernel anew for each integer that is 1, or begins or ceases to be a multiple of
16. Of the sizes and strides of x that is wanted, since rows of whole vectors are read as such; of
all other integers it would be a compilation now and then for nothing.
"""

from collections.abc import Callable
from typing import Any

import triton

LOOSE = (
    *("tiles", "tiles_c", "tiles_p", "tiles_kept", "splits", "split_row", "steps", "place_splits"),
    *("row", "gate_row", "channel_row", "spatial_row", "descriptors_row", "maps_row"),
    *("dmaps_row", "ddescriptors_row", "gate_at", "channel_at", "spatial_at", "descriptors_at"),
    *("hidden_at", "maps_at", "mean_at", "top_at", "map_mean_at", "map_top_at", "length"),
    *("rows", "depth", "samples", "each", "weights", "kept", "kept_from"),
    *("frames", "height", "width", "kt", "kh", "kw"),
)


def kernel(function: Callable[..., Any]) -> Any:
    """A kernel that is launched from Python."""
    return triton.jit(function, do_not_specialize=LOOSE)
