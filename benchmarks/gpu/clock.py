"""Times of calls on a GPU, between two events, interleaved round by round."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch

from whatwhere.bench.measure.timing import rotated

ROUNDS, WARM_ROUNDS = 30, 3
# Bytes that are written before a call whose cache is to be cold: more than any device caches.
FLUSHED = 2**29
Call = Callable[[], Any]


class Clock(Protocol):
    """What the tables need of one."""

    def timed(self, calls: Mapping[str, Call], *, cold: bool) -> dict[str, list[float]]:
        """Milliseconds of each call in every round."""
        ...

    def graphed(self, call: Call) -> Call:
        """The same kernels without Python; what it returns is what the call returned."""
        ...


class EventClock:
    """The time between two events of the current device.

    Python's part of a launch is in it where the device waits for that. Cold calls find other
    people's data in the cache, warm ones what they left there themselves.
    """

    def __init__(self) -> None:
        self.scratch = torch.empty(FLUSHED, dtype=torch.int8, device="cuda")

    def timed(self, calls: Mapping[str, Call], *, cold: bool) -> dict[str, list[float]]:
        """As ``Clock``."""
        times: dict[str, list[float]] = {name: [] for name in calls}
        for index in range(WARM_ROUNDS + ROUNDS):
            for name in rotated(list(calls), index):
                if cold:
                    self.scratch.zero_()
                else:
                    calls[name]()
                torch.cuda.synchronize()
                start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
                start.record()
                calls[name]()
                end.record()
                end.synchronize()
                if index >= WARM_ROUNDS:
                    times[name].append(start.elapsed_time(end))
        return times

    def graphed(self, call: Call) -> Call:
        """As ``Clock``; fails where a call waits for the device."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                call()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            result = call()

        def replay() -> Any:
            graph.replay()
            return result

        return replay
