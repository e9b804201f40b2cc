"""Which axes of a tensor hold the channels: followed from operation to operation."""

from collections.abc import Sequence
from typing import Any

Shape = Sequence[int]
# The channels' first axis and the one behind their last: (1, 2) for (N, C, H, W), and (1, 3) while
# they are split into groups, as for a shuffle.
Span = tuple[int, int]

PERMUTATIONS = ("permute", "transpose", "t")
VIEWS = ("view", "_unsafe_view", "reshape", "_reshape_alias", "flatten")
# Their result's channels are the last axis, whatever their input's are.
LINEAR = ("addmm", "mm", "linear", "_addmm_activation")
# They mix axes, or make tensors that are no feature maps.
UNKNOWN = ("bmm", "baddbmm", "einsum", "unfold", "im2col", "col2im", "as_strided", "stack")


def channel_span(
    operation: str, args: Sequence[Any], inputs: Sequence[tuple[Shape, Span | None]], shape: Shape
) -> Span | None:
    """The channels' axes of a result, None where they can't be told.

    Args:
        operation: name of the operation.
        args: its arguments.
        inputs: shape and channel axes of each of its inputs that are known.
        shape: of the result.

    >>> channel_span("permute", (None, [0, 2, 3, 1]), [((1, 8, 5, 5), (1, 2))], (1, 5, 5, 8))
    (3, 4)
    >>> channel_span("view", (), [((1, 5, 5, 8), (3, 4))], (25, 8))
    (1, 2)
    >>> channel_span("view", (), [((1, 8, 5, 5), (1, 2))], (1, 2, 4, 5, 5))
    (1, 3)
    >>> channel_span("unsqueeze", (None, 2), [((1, 8, 5), (1, 2))], (1, 8, 1, 5))
    (1, 2)
    """
    if "convolution" in operation:
        return 1, 2
    if operation in LINEAR:
        return len(shape) - 1, len(shape)
    if not inputs or operation in UNKNOWN or operation.startswith("_scaled_dot_product"):
        return None
    if operation in PERMUTATIONS:
        return _permuted(operation, args, *inputs[0])
    if operation in VIEWS:
        return _viewed(*inputs[0], shape)
    if operation in ("squeeze", "unsqueeze"):
        return _squeezed(operation, args, *inputs[0])
    # Broadcast operands say less than those of the result's size.
    whole = [span for size, span in inputs if tuple(size) == tuple(shape)]
    same_rank = [span for size, span in inputs if len(size) == len(shape)]
    spans = whole if whole else same_rank
    return spans[0] if spans else None


def _permuted(operation: str, args: Sequence[Any], shape: Shape, span: Span | None) -> Span | None:
    if span is None:
        return None
    order = list(range(len(shape)))
    if operation == "permute":
        order = [int(each) % len(shape) for each in args[1]]
    else:
        first, second = (0, 1) if operation == "t" else (int(each) for each in args[1:3])
        order[first], order[second] = order[second], order[first]
    places = sorted(order.index(axis) for axis in range(*span))
    if places != list(range(places[0], places[-1] + 1)):
        return None
    return places[0], places[-1] + 1


def _squeezed(operation: str, args: Sequence[Any], shape: Shape, span: Span | None) -> Span | None:
    if span is None:
        return None
    first, last = span
    if operation == "unsqueeze":
        shift = int(args[1] % (len(shape) + 1) <= first)
        return first + shift, last + shift
    chosen = range(len(shape)) if len(args) < 2 else args[1]
    axes = [chosen] if isinstance(chosen, int) else chosen
    gone = {axis % len(shape) for axis in axes if shape[axis] == 1}
    kept = [axis for axis in range(first, last) if axis not in gone]
    start = first - sum(axis < first for axis in gone)
    return (start, start + len(kept)) if kept else None


def _viewed(before: Shape, span: Span | None, after: Shape) -> Span | None:
    if span is None:
        return None
    before, after = tuple(before), tuple(after)
    first, last = span
    behind = len(before) - last
    # Split or merged among themselves; else unchanged up to the channels, or from them on.
    end = len(after) - behind
    if end > first and before[:first] == after[:first] and before[last:] == after[end:]:
        return first, end
    if before[:last] == after[:last]:
        return span
    # The batch put into the channels, as an instance norm does, and taken out again.
    if span == (1, 2) and before[2:] == after[2:] and 1 in (before[0], after[0]):
        return span
    width = len(before) - first
    if width <= len(after) and before[first:] == after[len(after) - width :]:
        return len(after) - width, len(after) - behind
    return None
