"""What a training does where the kernel of a gradient can't be made: it goes on, more slowly.

``unsupported`` makes forward kernels alone, which are all that inference needs, so this is found
out in the middle of a backward pass. ``native.kernel`` has said so then, once.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

from whatwhere.ops import raw
from whatwhere.ops.cpu.native import KernelError


def or_by_specification(backward: Callable[..., Any]) -> Callable[..., Any]:
    """A backward operation that is the specification's where its kernel can't be made."""
    specification = getattr(raw, backward.__name__)

    @wraps(backward)
    def run(*arguments: Any, **memory: Any) -> Any:
        try:
            return backward(*arguments, **memory)
        except KernelError:
            if memory:  # the specification can't be told where to write
                raise
            return specification(*arguments)

    return run
