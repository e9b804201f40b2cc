"""Where trials run: processes of this machine, or the workers of a Dask or Ray cluster.

Each is used through ``concurrent.futures``: a trial is submitted, and its future is done when its
record stands in the study's folder.
"""

import logging
import multiprocessing
import multiprocessing.connection
import os
import pickle
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, ProcessPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import torch

from whatwhere.study.alone import run_alone
from whatwhere.study.faults import children_without_sigint, end_at_sigterm
from whatwhere.study.remote import LOST_PROCESSES_ALLOWED, RefusedError, Ticket, run_there
from whatwhere.study.settings import StudyError
from whatwhere.study.trial import Trial

Submit = Callable[[Trial], Future[None]]
KEPT = "finished trials are kept, and the same command resumes"


class Engine(Protocol):
    """Runs trials."""

    def start(self) -> AbstractContextManager[Submit]:
        """Give the function that submits trials; at the end of the context nothing runs on."""
        ...

    def __str__(self) -> str: ...


@dataclass(frozen=True)
class Workers:
    """Processes of this machine: how many, with how many threads each."""

    processes: int
    threads: int

    def __str__(self) -> str:
        return f"in {self.processes} processes of {self.threads} threads"

    @contextmanager
    def start(self) -> Iterator[Submit]:
        """A pool of fresh processes.

        Raises:
            BrokenProcessPool: one of them died; from the trials' futures.
        """
        pool = ProcessPoolExecutor(
            self.processes,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_start_worker,
            initargs=(self.threads,),
        )

        def submit(trial: Trial) -> Future[None]:
            with _threads(self.threads), children_without_sigint():  # the pool starts one if needed
                return pool.submit(run_alone, trial)

        try:
            yield submit
        except BaseException:  # what runs now resumes from its last checkpoint another time
            for child in multiprocessing.active_children():
                child.kill()  # not terminate: a trainer catches that, and goes on for a while
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


@dataclass(frozen=True)
class Dask:
    """The workers of a Dask cluster, by its scheduler's address or file."""

    cluster: str
    ticket: Ticket

    def __str__(self) -> str:
        return f"on the Dask cluster {self.cluster}, with {self.ticket.threads} threads each"

    @contextmanager
    def start(self) -> Iterator[Submit]:
        """The cluster's executor; the scheduler runs a dead worker's trials again elsewhere."""
        try:
            from distributed import Client, KilledWorker
        except ImportError as error:
            raise StudyError(
                f"expected Dask for --cluster {self.cluster}: pip install 'whatwhere[cluster]', "
                "here and with the scheduler and its workers; for Ray say --cluster ray"
            ) from error
        is_file = Path(self.cluster).is_file()
        where = {"scheduler_file" if is_file else "address": self.cluster}
        try:
            client = Client(**where, set_as_default=False, name="whatwhere")
        except (OSError, ValueError) as error:
            raise StudyError(
                f"expected a Dask scheduler at --cluster {self.cluster}, and got no answer: {error}"
            ) from error
        try:
            executor = client.get_executor(pure=False)
            yield lambda trial: executor.submit(
                run_there, self.ticket, _pickled(trial, self.ticket)
            )
        except RefusedError as error:
            raise StudyError(str(error)) from error
        except KilledWorker as error:
            raise StudyError(f"{error} {KEPT}") from error
        except CancelledError as error:
            raise StudyError(f"the scheduler {self.cluster} is gone; {KEPT}") from error
        except (ImportError, RuntimeError) as error:  # Dask's, of what it could not unpickle
            raise StudyError(
                f"the cluster {self.cluster} can't take the trials. Do its scheduler and workers "
                f"have the same whatwhere? {type(error).__name__}: {error}"
            ) from error
        finally:
            with _silent("distributed.client"):  # a scheduler that is gone is said in a line
                client.close()


@dataclass(frozen=True)
class Ray:
    """The workers of a Ray cluster: "ray" for the one this machine belongs to, or ray://HOST:PORT."""

    cluster: str
    ticket: Ticket

    def __str__(self) -> str:
        return f"on the Ray cluster {self.cluster}, with {self.ticket.threads} threads each"

    @contextmanager
    def start(self) -> Iterator[Submit]:
        """Tasks of Ray, with a GPU each where the cluster has any."""
        try:
            import ray
        except ImportError as error:
            raise StudyError(
                f"expected Ray for --cluster {self.cluster}: pip install ray, the same version as "
                "the cluster's"
            ) from error
        address = "auto" if self.cluster == "ray" else self.cluster
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except (OSError, RuntimeError, ValueError) as error:
            raise StudyError(
                f"expected a Ray cluster at --cluster {self.cluster}, and got no answer: {error}"
            ) from error
        try:
            task = ray.remote(run_there).options(
                num_cpus=self.ticket.threads,
                num_gpus=min(1, ray.cluster_resources().get("GPU", 0)),
                max_retries=LOST_PROCESSES_ALLOWED,
            )
            yield lambda trial: task.remote(self.ticket, _pickled(trial, self.ticket)).future()
        except RefusedError as error:
            raise StudyError(str(error)) from error
        except ray.exceptions.RayError as error:
            raise StudyError(f"the cluster {self.cluster} lost a trial: {error}; {KEPT}") from error
        finally:
            ray.shutdown()


def cluster_engine(cluster: str, ticket: Ticket) -> Engine:
    """Dask's engine, or Ray's if the address says so."""
    if cluster == "ray" or cluster.startswith("ray://"):
        return Ray(cluster, ticket)
    return Dask(cluster, ticket)


def _pickled(trial: Trial, ticket: Ticket) -> bytes:
    return pickle.dumps(replace(trial, run=ticket.run))


@contextmanager
def _silent(logger: str) -> Iterator[None]:
    found = logging.getLogger(logger)
    before = found.level
    found.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        found.setLevel(before)


@contextmanager
def _threads(threads: int) -> Iterator[None]:
    # Worker processes read these when they import torch, before any code of ours runs.
    wanted = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _start_worker(threads: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # where it could not be kept from them
    end_at_sigterm()
    torch.set_num_threads(threads)
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    # A killed study leaves no process behind that still writes into its folder.
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)
