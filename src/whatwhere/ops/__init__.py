"""Arithmetic on tensors, without parameters: what every gate is made of.

The rules every implementation keeps:

* **Ties.** A maximum belongs to its first occurrence in row-major order of the pooled axes, and
  that element alone receives the gradient.
* **NaN** in a pooled set makes its mean and its maximum NaN.
* **Accumulation.** Sums over float16 and bfloat16 run in float32, and the descriptors stay there.
* **Empty.** A batch of 0 samples gives 0 descriptors; pooling over 0 elements is refused.
"""

from whatwhere.ops.dispatch import apply_gates, cbam, pool_channels, pool_frames, pool_positions
from whatwhere.ops.implementations import ImplementationName, implementation
from whatwhere.ops.reference import (
    ACTIVATIONS,
    STATISTICS,
    ActivationName,
    Statistic,
    accumulation_dtype,
    activate,
    apply_gate,
    pool,
    two_layers,
    without_autocast,
)
from whatwhere.ops.routing import implementation_of
from whatwhere.ops.with_gates import cbam_with_gates

__all__ = [
    "ACTIVATIONS",
    "STATISTICS",
    "ActivationName",
    "ImplementationName",
    "Statistic",
    "accumulation_dtype",
    "activate",
    "apply_gate",
    "apply_gates",
    "cbam",
    "cbam_with_gates",
    "implementation",
    "implementation_of",
    "pool",
    "pool_channels",
    "pool_frames",
    "pool_positions",
    "two_layers",
    "without_autocast",
]
