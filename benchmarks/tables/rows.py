"""A row of a paper's table: what is printed, and the count that it should be."""

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.tables.counted import Count

UNITS = {"parameters": 1e6, "macs": 1e9}


@dataclass(frozen=True)
class Row:
    """One row.

    Attributes:
        cells: what the row is of.
        parameters: millions as printed, None where nothing is.
        macs: printed "GFLOPs": multiply-accumulates in billions.
        count: of our network.
    """

    cells: Sequence[str]
    parameters: str | None
    macs: str | None
    count: Count

    def printed(self, key: str) -> str | None:
        """The figure as printed."""
        text: str | None = getattr(self, key)
        return text

    def ours(self, key: str) -> int:
        """The same of our network, exact."""
        number: int = getattr(self.count, key)
        return number

    def matches(self, key: str) -> bool:
        """Whether ours, rounded to as many digits, is what is printed."""
        text = self.printed(key)
        assert text is not None, f"nothing is printed of {self.cells}"
        return as_printed(self.ours(key) / UNITS[key], like=text) == text


def as_printed(value: float, *, like: str) -> str:
    """The value with as many decimals as the text has.

    >>> as_printed(3.857973, like="3.86")
    '3.86'
    """
    return f"{value:.{len(like.partition('.')[2])}f}"


def matching(rows: Sequence[Row], key: str) -> int:
    """How many rows match."""
    return sum(row.matches(key) for row in rows)
