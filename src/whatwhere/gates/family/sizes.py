"""Numbers that gates derive from their arguments."""

from whatwhere.checks import check_positive


def largest_divisor(channels: int, most: int) -> int:
    """The largest divisor of a number of channels that is not above another number.

    >>> largest_divisor(64, 16), largest_divisor(24, 16), largest_divisor(7, 3)
    (16, 12, 1)
    """
    check_positive("gate", "channels", channels)
    check_positive("gate", "groups", most)
    return next(n for n in range(min(channels, most), 0, -1) if channels % n == 0)


def per_axis(owner: str, name: str, value: int | tuple[int, ...], ndim: int) -> tuple[int, ...]:
    """One number for each position axis.

    Raises:
        ValueError: there are more or fewer.

    >>> per_axis("gate", "size", 7, 2), per_axis("gate", "size", (3, 5), 2)
    ((7, 7), (3, 5))
    """
    values = value if isinstance(value, tuple) else (value,) * ndim
    for each in values:
        check_positive(owner, name, each)
    if len(values) != ndim:
        raise ValueError(f"{owner}: expected {name} of {ndim} position axes, got {value!r}")
    return values
