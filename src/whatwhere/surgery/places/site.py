"""What is said of a place: a site, a place that can't be one, and all of a network's."""

from dataclasses import dataclass
from typing import Literal, get_args

from whatwhere.surgery.graph import Node

Kind = Literal["blocks", "stages", "bridge", "skips", "depthwise", "se", "named"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class Site:
    """A place for a gate: a feature map that a module hands over.

    Attributes:
        name: qualified name of the module.
        kind: what is special about the place; the words that ``attend(where=...)`` takes.
        channels: of the feature map.
        resolution: of the feature map, in the run that found it; () for one without positions.
        runs: how often the module ran.
        argument: None where the feature map is the module's output; else which of its arguments
            it is, by position or keyword.
        channels_last: whether it is (N, *resolution, channels).
        note: what else a gate there does, if anything.
    """

    name: str
    kind: Kind
    channels: int
    resolution: tuple[int, ...]
    runs: int = 1
    argument: int | str | None = None
    channels_last: bool = False
    note: str = ""

    @property
    def ndim(self) -> int:
        """Position axes of the feature map."""
        return len(self.resolution)

    def __str__(self) -> str:
        """The site in a line."""
        size = "×".join(str(length) for length in self.resolution)
        line = f"{self.name}  {self.kind}  {self.channels} channels  {size}"
        if self.argument is not None:
            line += f"  its argument {self.argument!r}"
        if self.runs > 1:
            line += f"  runs {self.runs} times"
        return line + (f"  ({self.note})" if self.note else "")


@dataclass(frozen=True)
class Skipped:
    """A place that was looked at and can't take a gate."""

    name: str
    reason: str


@dataclass(frozen=True)
class Survey:
    """The sites found, and the places looked at in vain."""

    sites: tuple[Site, ...]
    skipped: tuple[Skipped, ...]


@dataclass(frozen=True)
class Wanted:
    """A tensor that a finder would have gated.

    Attributes:
        node: what made it.
        label: what to call the place if no module hands the tensor over.
        users: the operations that are to see it gated; None for all.
        note: for the site.
    """

    node: Node
    label: str
    users: tuple[Node, ...] | None = None
    note: str = ""
