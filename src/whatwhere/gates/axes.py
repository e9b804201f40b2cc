"""The axes of feature maps by letter: C, then T of sequences, H, W of images, T, H, W of clips."""

from typing import Literal

from whatwhere.checks import LAYOUTS

Kind = Literal["what", "where", "when", "joint"]

POSITIONS = {3: "T", 4: "HW", 5: "THW"}


def check_keep(owner: str, keep: str) -> None:
    """Refuse what names no axes: letters of C, T, H, W, each once, or S for all positions."""
    letters = keep.replace("S", "THW") if isinstance(keep, str) else ""
    if not letters or len(set(letters)) != len(letters) or not set(letters) <= set("CTHW"):
        raise ValueError(
            f"{owner}: expected axes as letters, of C, T, H and W or S for all positions, each "
            f"once, got {keep!r}"
        )


def ranks_of(keep: str) -> tuple[int, ...]:
    """The ranks of tensors that have all these axes.

    >>> ranks_of("C"), ranks_of("CT"), ranks_of("W")
    ((3, 4, 5), (3, 5), (4, 5))
    """
    wanted = set(keep) - {"C", "S"}
    return tuple(rank for rank, letters in POSITIONS.items() if wanted <= set(letters))


def axes_of(keep: str, rank: int) -> tuple[int, ...]:
    """Their numbers in a tensor of this rank, in the tensor's order.

    >>> axes_of("S", 4), axes_of("CW", 5), axes_of("T", 3)
    ((2, 3), (1, 4), (2,))
    """
    letters = "C" + POSITIONS[rank]
    wanted = keep.replace("S", POSITIONS[rank])
    if not set(wanted) <= set(letters):
        raise ValueError(f"expected axes of {LAYOUTS[rank]}, got {keep!r}")
    return tuple(1 + place for place, letter in enumerate(letters) if letter in wanted)


def all_but(keep: str, ndim: int) -> str:
    """The letters of C and all positions but these.

    >>> all_but("H", 2), all_but("C", 3)
    ('CW', 'THW')
    """
    return "".join(letter for letter in "C" + POSITIONS[ndim + 2] if letter not in keep)


def kind_of(keep: str) -> Kind:
    """What a gate that keeps these axes attends to.

    >>> kind_of("C"), kind_of("HW"), kind_of("T"), kind_of("CT"), kind_of("CS")
    ('what', 'where', 'when', 'when', 'joint')
    """
    if keep == "C":
        return "what"
    if set(keep) <= {"C", "T"}:
        return "when"
    return "joint" if "C" in keep else "where"
