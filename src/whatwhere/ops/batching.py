"""How ``torch.func.vmap`` batches the raw operations.

All but ``cbam`` and its backward compute every sample by itself, so the mapped axis becomes part
of N. So does that of ``cbam`` if only x and the residual are mapped; else, with parameters of
their own for each element, or gradients of the parameters, the elements run one after another.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

OPERATORS = torch.ops.whatwhere
Rule = Callable[..., tuple[Any, Any]]


def _merged(op: str, size: int, in_dims: Sequence[Any], arguments: Sequence[Any]) -> Any:
    """Run with the mapped axis in N; arguments with the axis N that lack it are repeated."""
    merged = [
        argument if not isinstance(argument, Tensor) else _into_batch(argument, size, dim)
        for argument, dim in zip(arguments, in_dims, strict=True)
    ]
    return getattr(OPERATORS, op)(*merged)


def _into_batch(value: Tensor, size: int, dim: int | None) -> Tensor:
    if dim is None:
        return value.expand(size, *value.shape).flatten(0, 1)
    return value.movedim(dim, 0).flatten(0, 1)


def _split(outputs: Any, size: int) -> tuple[Any, Any]:
    """Outputs with the mapped axis apart from N again; those of shape (0,) have none."""
    alone = isinstance(outputs, Tensor)
    parts = (outputs,) if alone else tuple(outputs)
    absent = [part.ndim == 1 for part in parts]
    values = tuple(
        part if none else part.unflatten(0, (size, part.shape[0] // size))
        for part, none in zip(parts, absent, strict=True)
    )
    dims = tuple(None if none else 0 for none in absent)
    return (values[0], dims[0]) if alone else (values, dims)


def _by_samples(op: str) -> Rule:
    def rule(info: Any, in_dims: Sequence[Any], *arguments: Any) -> tuple[Any, Any]:
        size = info.batch_size
        return _split(_merged(op, size, in_dims, arguments), size)

    return rule


def _one_by_one(op: str) -> Rule:
    def rule(info: Any, in_dims: Sequence[Any], *arguments: Any) -> tuple[Any, Any]:
        outputs = []
        for index in range(info.batch_size):
            element = [
                argument.select(dim, index) if isinstance(dim, int) else argument
                for argument, dim in zip(arguments, in_dims, strict=True)
            ]
            outputs.append(getattr(OPERATORS, op)(*element))
        stacked = tuple(torch.stack(parts) for parts in zip(*outputs, strict=True))
        return stacked, (0,) * len(stacked)

    return rule


def _cbam(info: Any, in_dims: Sequence[Any], *arguments: Any) -> tuple[Any, Any]:
    if any(dim is not None for dim in in_dims[1:7]):  # a parameter
        return _one_by_one("cbam")(info, in_dims, *arguments)
    size = info.batch_size
    x, *shared, residual, relu = arguments
    x = _into_batch(x, size, in_dims[0])
    if residual is not None:
        residual = _into_batch(residual, size, in_dims[-2])
    return _split(OPERATORS.cbam(x, *shared, residual, relu), size)


RULES: dict[str, Rule] = {
    "pool_positions": _by_samples("pool_positions"),
    "pool_positions_backward": _by_samples("pool_positions_backward"),
    "pool_channels": _by_samples("pool_channels"),
    "pool_channels_backward": _by_samples("pool_channels_backward"),
    "apply_gates": _by_samples("apply_gates"),
    "apply_gates_backward": _by_samples("apply_gates_backward"),
    "cbam": _cbam,
    "cbam_backward": _one_by_one("cbam_backward"),
}
