"""The operations on NVIDIA GPUs by Triton: the raw functions of ``ops.raw``, faster.

``tiles`` cuts x into pieces, ``steps`` and ``gradients`` run the kernels of ``kernels`` on them,
``network`` and ``maps`` what lies between in CBAM, ``primitives`` and ``cbam`` put all together.
Nothing waits for the device, and nothing is tuned at run time.
"""

import logging
from collections.abc import Callable, Sequence
from functools import cache, wraps
from typing import Any

import torch
import triton
from torch import Tensor

from whatwhere.ops.cuda import cbam as _cbam
from whatwhere.ops.cuda import primitives
from whatwhere.ops.cuda.primitives import like
from whatwhere.ops.implementations import CUDA_DTYPES

__all__ = [
    "apply_gates",
    "apply_gates_",
    "apply_gates_backward",
    "cbam",
    "cbam_",
    "cbam_backward",
    "pool_channels",
    "pool_channels_backward",
    "pool_positions",
    "pool_positions_backward",
    "unsupported",
]

logger = logging.getLogger("whatwhere")
# Addresses within a sample are 32-bit; a grid has at most 2³¹ programs.
LARGEST_SAMPLE, MOST_SAMPLES = 2**31, 2**24


def unsupported(op: str, x: Tensor, statistics: Sequence[str]) -> str | None:
    """Why kernels can't serve an operation on x, or None. The first call compiles a small one."""
    if x.dtype not in CUDA_DTYPES:
        return f"x has the dtype {x.dtype}"
    if op == "cbam" and not {"mean", "max"}.issuperset(statistics):
        return f"kernels have no {sorted(set(statistics) - {'mean', 'max'})} in this operation"
    if x.shape[0] >= MOST_SAMPLES:
        return f"x has {MOST_SAMPLES} samples or more"
    if x.numel() >= LARGEST_SAMPLE and x[0].numel() >= LARGEST_SAMPLE:
        return f"a sample of x has {LARGEST_SAMPLE} elements or more"
    return trouble(x.device)


@cache
def trouble(device: torch.device) -> str | None:
    """Why no kernel runs on a device, or None: found out by running one, once."""
    if device.type == "cpu":
        return None if triton.knobs.runtime.interpret else "Triton does not run on the CPU"
    if torch.version.hip is not None:
        return "the kernels were never run on AMD's devices"
    try:
        if torch.cuda.get_device_capability(device) < (8, 0):
            return "the device's compute capability is below 8.0"
        pool_positions(torch.zeros((1, 1, 1), device=device), ["mean"])
    except torch.OutOfMemoryError:  # which says nothing of the next time
        raise
    except Exception as error:  # of the driver, the compiler, or the C compiler that it needs
        reason = f"Triton can't run here: {type(error).__name__}: {error}"
        logger.warning("%s: %s; plain PyTorch serves", device, reason)
        return reason
    return None


def _on_device(run: Callable[..., Any]) -> Callable[..., Any]:
    # Triton launches on the current device, which need not be that of the tensors.
    @wraps(run)
    def there(first: Tensor, *arguments: Any) -> Any:
        if not first.is_cuda or first.device.index == torch.cuda.current_device():
            return run(first, *arguments)
        with torch.cuda.device(first.device):
            return run(first, *arguments)

    return there


pool_positions = _on_device(primitives.pool_positions)
pool_positions_backward = _on_device(primitives.pool_positions_backward)
pool_channels = _on_device(primitives.pool_channels)
pool_channels_backward = _on_device(primitives.pool_channels_backward)
apply_gates = _on_device(primitives.apply_gates)
apply_gates_ = _on_device(primitives.apply_gates_)
apply_gates_backward = _on_device(primitives.apply_gates_backward)


@_on_device
def cbam(x: Tensor, *arguments: Any) -> tuple[Tensor, Tensor]:
    """As ``raw.cbam``."""
    y = like(x)
    return y, _cbam.forward(x, arguments, y)


@_on_device
def cbam_(x: Tensor, *arguments: Any) -> None:
    """As ``raw.cbam_``."""
    _cbam.forward(x, arguments, x)


@_on_device
def cbam_backward(dy: Tensor, x: Tensor, saved: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    """As ``raw.cbam_backward``."""
    return _cbam.backward(dy, x, saved, arguments)
