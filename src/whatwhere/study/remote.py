"""What a cluster's worker does with a trial: checks, then a process of the trial's own.

The process has the study's number of threads from its start, whatever the worker's own number and
however many trials the worker runs at once. It ends with its worker, and the worker ends it when
the study has ended: no engine can stop Python code that is running.
"""

import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

import whatwhere
from whatwhere.files import write_text
from whatwhere.study.locks import is_held
from whatwhere.study.machine import end_with_input

LOOK_EVERY = 2.0  # seconds between two looks at whether the study lives
LOST_PROCESSES_ALLOWED = 5


class RefusedError(RuntimeError):
    """A worker that can't run the study's trials as the study would."""


@dataclass(frozen=True)
class Ticket:
    """What a worker and the study must agree on.

    Args:
        run: the study's folder, absolute.
        token: what stands in its token file, another one for each start of the study.
        folder: the study's working folder, in which the trial's process works too.
        host: the study's.
        fingerprint: of its data.
        versions: of the packages that decide its numbers.
        threads: of each trial.
        patience: seconds that a folder may need to show what another machine wrote into it.
    """

    run: Path
    token: str
    folder: Path
    host: str
    fingerprint: str
    versions: Mapping[str, str]
    threads: int
    patience: float = 60.0


def issue(run: Path, fingerprint: str, *, threads: int) -> Ticket:
    """A ticket for this start of the study in ``run``, whose lock this process holds."""
    token = uuid.uuid4().hex
    write_text(run / ".token", token)
    return Ticket(
        run=run.resolve(),
        token=token,
        folder=Path.cwd(),
        host=socket.gethostname(),
        fingerprint=fingerprint,
        versions=_versions(),
        threads=threads,
    )


def run_there(ticket: Ticket, trial: bytes) -> None:
    """Run one pickled ``Trial`` to its record, on a worker that shares the study's folder.

    Raises:
        RefusedError: the worker does not share the folder, its locks, the data or the versions, or
            the trial's process died several times, or the study ended.
    """
    _check_folder(ticket)
    ends: list[int] = []
    while len(ends) < LOST_PROCESSES_ALLOWED:
        code = _run_process(ticket, trial)
        if code == 0:
            return
        ends.append(code)
    raise RefusedError(
        f"the trial's process on {_me()} died {len(ends)} times, the last with {_end(ends[-1])}; "
        "the worker's log may say more. Is there enough memory? Finished trials are kept, and the "
        "same command resumes"
    )


def _check_folder(ticket: Ticket) -> None:
    deadline = time.monotonic() + ticket.patience
    while (problem := _problem(ticket)) is not None:
        if time.monotonic() >= deadline:
            raise RefusedError(f"{_me()} can't take part in the study on {ticket.host}: {problem}")
        time.sleep(1)
    if not is_held(ticket.run / ".lock"):
        raise RefusedError(
            f"{_me()} could take the lock {ticket.run / '.lock'}, which the study on {ticket.host} "
            "holds: locks on this file system don't hold between machines, and two of them could "
            "write one trial. Mount it with locks (NFS: without nolock and local_lock; Lustre: "
            "with flock), or choose --out on another"
        )


def _problem(ticket: Ticket) -> str | None:
    try:
        for folder in (ticket.run.parent, ticket.run):
            os.listdir(folder)  # noqa: PTH208  # asks a network's server anew
        told = (ticket.run / ".token").read_text(encoding="utf-8")
    except OSError as error:
        return f"it does not see the study's folder {ticket.run}, which they must share ({error})"
    if told != ticket.token:
        return f"{ticket.run} is not the study's folder there, or another start of it took over"
    if not ticket.folder.is_dir():
        return f"it has no folder {ticket.folder}, in which the study was started"
    return None


def _wait(process: "subprocess.Popen[bytes]", ticket: Ticket) -> None:
    try:
        process.wait(LOOK_EVERY)
    except subprocess.TimeoutExpired:
        if not _lives(ticket):
            raise RefusedError(f"the study on {ticket.host} ended") from None


def _lives(ticket: Ticket) -> bool:
    # The very start of the study that gave the ticket, not a later one.
    try:
        told = (ticket.run / ".token").read_text(encoding="utf-8")
        return told == ticket.token and is_held(ticket.run / ".lock")
    except OSError:  # the folder is out of reach for a while: that says nothing
        return True


def _run_process(ticket: Ticket, trial: bytes) -> int:
    threads = str(ticket.threads)
    process = subprocess.Popen(
        [sys.executable, "-m", "whatwhere.study.remote"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ticket.folder,
        env={**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        with process:
            pickle.dump((ticket, trial), process.stdin)
            process.stdin.flush()  # and left open: its end tells the process that this one died
            try:
                while process.poll() is None:
                    _wait(process, ticket)
            finally:
                process.kill()
            answer = process.stdout.read()
    except BrokenPipeError:  # it died before it could read
        return process.wait()
    if answer:
        raise RefusedError(f"{_me()} can't take part in the study: {json.loads(answer)}")
    return process.returncode


def _me() -> str:
    return f"the worker {os.getpid()} on {socket.gethostname()}"


def _end(code: int) -> str:
    return f"code {code}" if code >= 0 else signal.Signals(-code).name


def _main() -> None:
    """In the trial's process: check what only it can see, and run."""
    ticket, pickled = pickle.load(sys.stdin.buffer)
    end_with_input()
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answer:
        os.dup2(2, 1)  # what else is printed goes to the worker's log
        torch.set_num_threads(ticket.threads)
        problem = _difference(ticket)
        if problem is None:
            problem = _run(ticket, pickled)
        if problem is not None:
            json.dump(problem, answer)


def _versions() -> dict[str, str]:
    return {"whatwhere": whatwhere.__version__, "torch": torch.__version__.partition("+")[0]}


def _difference(ticket: Ticket) -> str | None:
    here = _versions()
    found = [
        f"it has {package} {here[package]}, the study on {ticket.host} has {version}"
        for package, version in ticket.versions.items()
        if here[package] != version
    ]
    return "; ".join(found) if found else None


def _run(ticket: Ticket, pickled: bytes) -> str | None:
    from whatwhere.study.alone import run_alone  # heavy, and of versions now known to be the same
    from whatwhere.study.build import load_data
    from whatwhere.study.settings import StudyError

    trial: Any = pickle.loads(pickled)
    try:
        found = load_data(trial.settings.data).fingerprint
    except (ValueError, OSError) as error:
        return f"it can't read the data: {error}"
    if found != ticket.fingerprint:
        return (
            f"its data differ from those of the study on {ticket.host} (fingerprint {found}, "
            f"there {ticket.fingerprint})"
        )
    devices = max(1, torch.cuda.device_count())
    try:
        run_alone(replace(trial, device=trial.device % devices))
    except StudyError as error:  # no other trial would go right here either
        return str(error)
    return None


if __name__ == "__main__":
    _main()
