"""What ends a study rather than one trial of it, said in a line; and signals that end processes.

A trial that goes wrong is on record and the study goes on. Where every other trial would go wrong
as well, because the disk is full, the folder is gone or the data have changed, the study stops, and
its same command resumes when that is mended.
"""

import errno
import os
import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from pathlib import Path
from types import FrameType

from whatwhere.study.settings import StudyError

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NOT_WRITABLE = (errno.EROFS, errno.EACCES, errno.EPERM)
NOT_DETERMINISTIC = re.compile(r"^(\S+) does not have a deterministic implementation")


def ends_study(error: BaseException, run: Path) -> StudyError | None:
    """What to raise if an error concerns the whole study in ``run``; None if one trial alone.

    Libraries wrap the system's errors, some in text only, so that causes and texts are looked at.

    >>> print(ends_study(OSError(28, "No space left on device"), Path(".")))
    no room to write in . (No space left on device): make some, and the same command goes on; ...
    >>> ends_study(ValueError("kernel_size is even"), Path("."))
    """
    for each in _chain(error):
        number, place = _number(each), _place(each, run)
        if number is None:
            continue
        said = f"{place} ({os.strerror(number)})"
        if number in NO_ROOM:
            return StudyError(
                f"no room to write in {said}: make some, and the same command goes on; finished "
                "trials are kept"
            )
        if number in NOT_WRITABLE and place.is_relative_to(run):
            return StudyError(
                f"can't write in {said}: make it writable, and the same command goes on; finished "
                "trials are kept. Or choose another --out"
            )
    if not run.is_dir():
        return gone(run)
    return None


def gone(run: Path) -> StudyError:
    """What to raise where the study's folder is no longer there."""
    return StudyError(
        f"{run} was removed, or its study.json, while the study ran: nothing more is written "
        "there. The same command begins anew, or goes on if the folder is put back"
    )


def without_determinism(error: Exception) -> str | None:
    """The operation that ``--deterministic`` forbids, and what to do; None for another error.

    >>> without_determinism(RuntimeError("put_ does not have a deterministic implementation, but"))
    'put_ has no deterministic version in torch on this device; go without --deterministic, or ...'
    """
    found = NOT_DETERMINISTIC.search(str(error))
    if found is None:
        return None
    return (
        f"{found[1]} has no deterministic version in torch on this device; go without "
        "--deterministic, or choose a gate or backbone that does not need it"
    )


@contextmanager
def interrupted_by_sigterm() -> Iterator[None]:
    """Take SIGTERM, as schedulers of clusters send it, for what Ctrl-C sends."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread gets signals, and may say what they do
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def children_without_sigint() -> Iterator[None]:
    """Start processes that Ctrl-C does not reach, not even while they import.

    It reaches their parent, which ends them; they would each print a trace.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # its start would unblock the signal again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # children inherit it
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_at_sigterm() -> None:
    """End a worker process at once when it gets SIGTERM, as if killed.

    Lightning's trainer would turn the signal into a SystemExit that ends the study in silence and
    with success; it calls a handler that stood before its own.
    """

    def end(number: int, _frame: FrameType | None) -> None:
        os._exit(128 + number)

    signal.signal(signal.SIGTERM, end)


def _chain(error: BaseException) -> Iterator[BaseException]:
    each: BaseException | None = error
    while each is not None:
        yield each
        each = each.__cause__ if each.__cause__ is not None else each.__context__


def _number(error: BaseException) -> int | None:
    if isinstance(error, OSError):
        return error.errno
    # safetensors is written in Rust, torch in C++: theirs say it in words.
    text = str(error)
    return next((n for n in (*NO_ROOM, errno.EROFS) if os.strerror(n) in text), None)


def _place(error: BaseException, run: Path) -> Path:
    named = error.filename if isinstance(error, OSError) else None
    return run if named is None else Path(os.fsdecode(named))
