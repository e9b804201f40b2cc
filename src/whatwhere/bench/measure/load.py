"""What other processes do meanwhile: how many cores they keep busy."""

import os
from pathlib import Path
from time import perf_counter


class LoadWatch:
    """From its making on: the seconds passed, and the cores that other processes kept busy."""

    def __init__(self) -> None:
        self._start = perf_counter()
        self._own = _own_seconds()
        self._busy = _busy_seconds()

    def seconds(self) -> float:
        """Since it was made."""
        return perf_counter() - self._start

    def others(self) -> float | None:
        """Cores on average, to a few hundredths in half a second; None where nothing tells."""
        busy = _busy_seconds()
        if busy is None or self._busy is None:
            return None
        return max(0.0, (busy - self._busy - (_own_seconds() - self._own)) / self.seconds())


def _own_seconds() -> float:
    times = os.times()
    return times.user + times.system


def _busy_seconds() -> float | None:
    # All cores together; "steal" is what other virtual machines took of ours.
    try:
        fields = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:]
    except OSError:
        return None  # not Linux
    user, nice, system, _idle, _waiting, irq, softirq, steal = (int(field) for field in fields[:8])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
