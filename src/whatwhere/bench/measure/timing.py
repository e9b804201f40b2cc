"""Wall times of calls, interleaved round by round, while nothing else keeps the machine busy."""

import gc
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from whatwhere.bench.measure.load import LoadWatch
from whatwhere.bench.settings import QUIET, Settings

WARM_ROUNDS = 2
BASES = ("copy", "ours", "plain")
WINDOW_SECONDS = 0.5
PATIENCE = 3
Call = Callable[[], object]
Say = Callable[[str], None]


@dataclass(frozen=True)
class Timed:
    """Seconds of each call in every round that counts.

    ``others`` are the cores that other processes kept busy on average meanwhile, None where the
    system does not tell. ``disturbed`` is true where too few rounds were quiet, so that all count.
    """

    times: dict[str, list[float]]
    others: float | None
    disturbed: bool
    dropped: int

    def as_dict(self) -> dict[str, Any]:
        """For a record: quartiles in place of the times."""
        return {
            "times": summarise(self.times),
            "rounds": len(next(iter(self.times.values()))),
            "dropped_rounds": self.dropped,
            "others": self.others,
            "disturbed": self.disturbed,
        }


def interleave(calls: Mapping[str, Call], settings: Settings, *, before: Call, say: Say) -> Timed:
    """Time every call once a round, round after round, while the machine is otherwise quiet.

    The order rotates from round to round, and every second round runs backwards, so that no call
    always has the same one before it. ``before`` runs untimed before each call. What a call returns
    is freed after its time has been taken. Rounds run in windows of half a second or more; those in
    which other processes kept more than ``QUIET`` cores busy don't count, unless waiting for quiet
    ones takes too long.
    """
    windows: list[_Window] = []
    index = 0

    def play() -> dict[str, float]:
        nonlocal index
        index += 1
        return _round(calls, rotated(list(calls), index), before)

    with _no_collection():
        for _ in range(WARM_ROUNDS):
            play()
        while not _enough(windows, settings):
            windows.append(_window(play, min(WINDOW_SECONDS, settings.seconds)))
            say(f"round {sum(len(window.rounds) for window in windows)}")
    quiet = [window for window in windows if window.quiet]
    disturbed = sum(len(window.rounds) for window in quiet) < settings.least_rounds
    counted = windows if disturbed else quiet
    rounds = [each for window in counted for each in window.rounds][: settings.most_rounds]
    seconds = sum(window.seconds for window in counted)
    others = [window.others * window.seconds for window in counted if window.others is not None]
    return Timed(
        {name: [each[name] for each in rounds] for name in calls},
        sum(others) / seconds if others else None,
        disturbed,
        sum(len(window.rounds) for window in windows) - len(rounds),
    )


@dataclass(frozen=True)
class _Window:
    rounds: list[dict[str, float]]
    seconds: float
    others: float | None

    @property
    def quiet(self) -> bool:
        return self.others is None or self.others <= QUIET


def _window(play: Callable[[], dict[str, float]], seconds: float) -> _Window:
    watch = LoadWatch()
    rounds = [play()]
    while watch.seconds() < seconds:
        rounds.append(play())
    return _Window(rounds, watch.seconds(), watch.others())


def _round(calls: Mapping[str, Call], order: Sequence[str], before: Call) -> dict[str, float]:
    times = {}
    for name in order:
        before()
        start = perf_counter()
        result = calls[name]()
        times[name] = perf_counter() - start
        del result
    return times


def _enough(windows: Sequence[_Window], settings: Settings) -> bool:
    quiet = [window for window in windows if window.quiet]
    rounds = sum(len(window.rounds) for window in quiet)
    if rounds >= settings.most_rounds:
        return True
    if rounds >= settings.least_rounds and _total(quiet) >= settings.seconds:
        return True
    played = sum(len(window.rounds) for window in windows)
    if played < settings.least_rounds:
        return False
    needed = max(settings.seconds, settings.least_rounds * _total(windows) / played)
    return _total(windows) >= PATIENCE * needed


def _total(windows: Sequence[_Window]) -> float:
    return sum(window.seconds for window in windows)


def rotated(names: Sequence[str], index: int) -> list[str]:
    """The order of a round.

    >>> rotated("abc", 0), rotated("abc", 1), rotated("abc", 2)
    (['a', 'b', 'c'], ['a', 'c', 'b'], ['c', 'a', 'b'])
    """
    shift = index % len(names)
    order = [*names[shift:], *names[:shift]]
    return order[::-1] if index % 2 else order


def quartiles(values: Sequence[float]) -> list[float]:
    """Lower quartile, median, upper quartile.

    >>> quartiles([5.0, 1.0, 2.0, 3.0, 4.0]), quartiles([7.0])
    ([2.0, 3.0, 4.0], [7.0, 7.0, 7.0])
    """
    if len(values) == 1:
        return [values[0]] * 3
    return statistics.quantiles(values, n=4, method="inclusive")


def summarise(times: Mapping[str, Sequence[float]]) -> dict[str, dict[str, list[float]]]:
    """Per call: quartiles of its seconds, and of its ratio to each base in the same round.

    The bases are "copy", "ours" and "plain", where they are among the calls.

    >>> summary = summarise({"copy": [1.0, 2.0], "ours": [3.0, 8.0]})
    >>> summary["ours"]["to_copy"], summary["copy"]["seconds"]
    ([3.25, 3.5, 3.75], [1.25, 1.5, 1.75])
    """
    summary = {}
    for name, every in times.items():
        summary[name] = {"seconds": quartiles(every)}
        for base in BASES:
            if base in times:
                ratios = [own / other for own, other in zip(every, times[base], strict=True)]
                summary[name][f"to_{base}"] = quartiles(ratios)
    return summary


@contextmanager
def _no_collection() -> Iterator[None]:
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
