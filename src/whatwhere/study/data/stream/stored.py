"""One sample as a shard has it, whatever the shard's format."""

from dataclasses import dataclass, replace

# In JSON and in tables, the first of these that is there is the label.
LABEL_NAMES = ("label", "labels", "cls", "class", "target", "fine_label")


@dataclass(frozen=True)
class Stored:
    """A sample's place and content, or what is wrong with it.

    ``place`` is the first byte in a tar shard, and the row within its group in a table.
    ``block`` tells the neighbours that are read together: runs of bytes, by number; row groups, by
    number; record batches, by their first byte.
    """

    name: str
    place: int
    size: int  # bytes of the content
    content: bytes
    label: str | None
    problem: str | None = None
    block: int = 0

    def in_block(self, block: int) -> "Stored":
        """The same in a block."""
        return replace(self, block=block)
