"""Peak of the memory that a call allocates, from torch's own allocation events."""

from typing import Any

from torch.profiler import ProfilerActivity, profile

from whatwhere.bench.measure.timing import Call


def peak_bytes(call: Call) -> int:
    """The most bytes above what was allocated before that the call held at once, results too.

    Counts what goes through torch's CPU allocator: tensors of eager and of compiled code.
    """
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        result = call()
    inner: Any = profiler.profiler
    changes = [
        (event.start_ns(), event.nbytes())
        for event in inner.kineto_results.events()
        if event.name() == "[memory]"
    ]
    del result
    return highest(changes)


def highest(changes: list[tuple[int, int]]) -> int:
    """The highest running sum of (time, bytes) changes, at least 0.

    >>> highest([(2, -60), (1, 100), (3, 50)])
    100
    """
    held = top = 0
    for _, change in sorted(changes):
        held += change
        top = max(top, held)
    return top
