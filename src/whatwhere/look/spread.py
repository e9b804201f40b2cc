"""Choosing a few of many."""


def evenly(count: int, most: int) -> list[int]:
    """At most ``most`` of the numbers below ``count``, evenly spread, first and last among them.

    >>> evenly(3, 8), evenly(16, 4), evenly(5, 1)
    ([0, 1, 2], [0, 5, 10, 15], [0])
    """
    if count <= most:
        return list(range(count))
    if most == 1:
        return [0]
    return [round(i * (count - 1) / (most - 1)) for i in range(most)]
