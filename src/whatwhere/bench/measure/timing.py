"""Wall times of calls, interleaved round by round, and what else the machine did meanwhile."""

import gc
import os
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from whatwhere.bench.settings import Settings

WARM_ROUNDS = 2
BASES = ("copy", "ours", "plain")
# Whoever shows the progress takes the time of a core for it.
SECONDS_BETWEEN_TOLD = 1.0
Call = Callable[[], object]
Say = Callable[[str], None]


def interleave(
    calls: Mapping[str, Call], settings: Settings, *, before: Call, say: Say
) -> dict[str, list[float]]:
    """Seconds of each call in every round.

    A round runs each call once. The order rotates from round to round, and every second round runs
    backwards, so that no call always has the same one before it. ``before`` runs untimed before
    each call. What a call returns is freed after its time has been taken.

    Returns:
        One list per call, of the same length: index i of each was measured in one round.
    """
    names = list(calls)
    times: dict[str, list[float]] = {name: [] for name in names}
    with _no_collection():
        started = told = perf_counter()
        for index in range(WARM_ROUNDS + settings.most_rounds):
            if index == WARM_ROUNDS:
                started = perf_counter()
            done = index - WARM_ROUNDS
            if done >= settings.least_rounds and perf_counter() - started > settings.seconds:
                break
            if perf_counter() - told > SECONDS_BETWEEN_TOLD:
                told = perf_counter()
                say(f"round {done}" if done >= 0 else "warming up")
            for name in rotated(names, index):
                before()
                start = perf_counter()
                result = calls[name]()
                times[name].append(perf_counter() - start)
                del result
    return {name: every[WARM_ROUNDS:] for name, every in times.items()}


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


@dataclass
class Load:
    """Cores that other processes kept busy, on average, and the load averages at the end."""

    others: float | None
    averages: tuple[float, ...]


@contextmanager
def watching_load() -> Iterator[Load]:
    """Watch the machine for the length of a block; what is yielded is filled in at its end."""
    load = Load(None, ())
    started, own, busy = perf_counter(), _own_seconds(), _busy_seconds()
    yield load
    wall = perf_counter() - started
    busy_after = _busy_seconds()
    if busy is not None and busy_after is not None:
        load.others = max(0.0, (busy_after - busy - (_own_seconds() - own)) / wall)
    if hasattr(os, "getloadavg"):
        load.averages = os.getloadavg()


def _own_seconds() -> float:
    # Of children too: compilers run there, and are counted as ours once they have ended.
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _busy_seconds() -> float | None:
    try:
        fields = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:]
    except OSError:
        return None  # not Linux: the load average has to do
    user, nice, system, _idle, _waiting, irq, softirq, steal = (int(field) for field in fields[:8])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


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
