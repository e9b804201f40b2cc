"""Locks in a study's folder that hold between processes and machines, and say who has them.

They are the operating system's own (flock, through filelock): when a process ends, however it ends,
the system lets go of what it held, so no lock outlives its owner. A lock file whose mere existence
counts would have to be judged stale by its age, and a process that was only slow would then share
its place with a second one.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from whatwhere.files import read_json, write_json
from whatwhere.study.machine import this_process


class HeldError(RuntimeError):
    """Another process holds the lock; the text says which, where and since when."""


@contextmanager
def locked(path: Path, *, timeout: float) -> Iterator[None]:
    """Hold the lock at ``path``, and say so in a file beside it.

    Args:
        path: of the lock file, in a folder that is there.
        timeout: seconds to wait for another holder; less than 0 waits as long as it takes.

    Raises:
        HeldError: another process had it all the time.
    """
    lock = FileLock(path, timeout=timeout, poll_interval=0.2)
    try:
        lock.acquire()
    except Timeout as error:
        raise HeldError(_holder(path)) from error
    try:
        write_json(
            _note(path),
            {**this_process(), "since": datetime.now(UTC).isoformat(timespec="seconds")},
        )
        yield
    finally:
        _note(path).unlink(missing_ok=True)
        lock.release()


def is_held(path: Path) -> bool:
    """Whether some process holds the lock; tried by taking it for a moment."""
    try:
        with FileLock(path, timeout=0):
            return False
    except Timeout:
        return True


def _note(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _holder(path: Path) -> str:
    try:
        told = read_json(_note(path))
    except ValueError:
        told = None
    if not isinstance(told, dict):
        return "a process that has only just begun or is about to end"
    return f"process {told['pid']} on {told['host']}, since {told['since']}"
