"""What became of the studies on which a fault was tried."""

import re
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks.faults.study import Ended, Study


def without_folders(line: str) -> str:
    """The line with the paths' last parts alone.

    >>> without_folders("no room to write in /a/b/c.npz: make some")
    'no room to write in …/c.npz: make some'
    """
    return re.sub(r"(/[^\s/'():;,]+)+(/[^\s/'():;,]+)", r"…\2", line)


@dataclass
class Outcome:
    """One kind of fault: how often it was tried, how it ended, and what was checked."""

    fault: str
    how: str
    times: int = 0
    said: int = 0  # ended with a line that says what and what to do
    studies: int = 0  # brought to their end afterwards, and equal to an undisturbed one
    records: int = 0  # finished records checked to be the same bytes at the end
    line: str = ""  # the last such line, as an example
    moments: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    def ended(self, study: Study, ended: Ended, *, expect: int | None = None) -> None:
        """Check how a process ended; with ``expect``, its exit code as well."""
        if expect is not None and ended.code != expect:
            study.problems.append(f"expected the exit code {expect}, got {ended.code}")
        if not ended.clear:
            study.problems.append(f"ended without a word: {ended.text[-400:]}")
        self.said += ended.code != 0 and ended.clear
        self.note(ended)

    def note(self, ended: Ended) -> None:
        """Keep the line as an example."""
        if ended.line != "":
            self.line = without_folders(ended.line)

    def finish(self, study: Study, undisturbed: Study | None) -> None:
        """Check the study's results, and take its problems over."""
        if undisturbed is not None and not study.problems:
            study.compare(undisturbed)
        self.studies += not study.problems
        self.records += len(study.seen)
        self.problems += [
            without_folders(f"{study.out.name}: {problem}") for problem in study.problems
        ]

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self) | {"moments": dict(self.moments)}
