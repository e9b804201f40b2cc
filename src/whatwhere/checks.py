"""Argument checks: each raises a ValueError that states what was expected and what came."""

from collections.abc import Sequence

from torch import Tensor

LAYOUTS = {3: "(N, C, L)", 4: "(N, C, H, W)", 5: "(N, C, T, H, W)"}


def check_positive(owner: str, name: str, value: int) -> None:
    """Refuse anything but an integer of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{owner}: expected {name} to be an integer >= 1, got {value!r}")


def check_choice(owner: str, name: str, value: object, choices: Sequence[object]) -> None:
    """Refuse a value that is not among the choices."""
    if value not in choices:
        listed = ", ".join(repr(choice) for choice in choices)
        raise ValueError(f"{owner}: expected {name} to be one of {listed}, got {value!r}")


def check_distinct(owner: str, name: str, values: Sequence[str], choices: Sequence[str]) -> None:
    """Refuse an empty sequence, repeated entries and entries outside the choices."""
    if isinstance(values, str) or not values or len(set(values)) != len(values):
        raise ValueError(f"{owner}: expected {name} to be distinct names, got {values!r}")
    for value in values:
        check_choice(owner, name, value, choices)


def check_odd(owner: str, name: str, values: Sequence[int]) -> None:
    """Refuse even sizes: padding of k // 2 keeps the size for odd k only."""
    for value in values:
        check_positive(owner, name, value)
        if value % 2 == 0:
            raise ValueError(
                f"{owner}: expected {name} to be odd, because padding keeps the size only then, "
                f"got {value}"
            )


def check_feature_map(owner: str, x: Tensor, ranks: Sequence[int]) -> None:
    """Refuse tensors that are not floating-point feature maps of one of the ranks."""
    if not isinstance(x, Tensor):
        raise ValueError(f"{owner}: expected x to be a tensor, got {type(x).__name__}")
    if x.ndim not in ranks:
        expected = " or ".join(LAYOUTS[rank] for rank in ranks)
        raise ValueError(f"{owner}: expected x of shape {expected}, got {tuple(x.shape)}")
    if not x.is_floating_point():
        raise ValueError(f"{owner}: expected x of a floating-point dtype, got {x.dtype}")
    if 0 in x.shape[1:]:
        raise ValueError(
            f"{owner}: expected at least one element on every axis but N, got {tuple(x.shape)}"
        )


def check_axis_size(owner: str, x: Tensor, axis: int, name: str, size: int) -> None:
    """Refuse tensors whose axis has another size than the module was built for."""
    if x.shape[axis] != size:
        raise ValueError(
            f"{owner}: expected {size} {name} on axis {axis} of x, "
            f"got {x.shape[axis]} in shape {tuple(x.shape)}"
        )
