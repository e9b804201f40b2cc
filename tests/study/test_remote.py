"""A cluster's worker: what it refuses, and one trial that two processes want."""

import os
import pickle
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from whatwhere.files import read_json
from whatwhere.study import remote
from whatwhere.study.alone import run_alone
from whatwhere.study.build import load_data
from whatwhere.study.compare import compare
from whatwhere.study.engines import cluster_engine
from whatwhere.study.locks import HeldError, is_held, locked
from whatwhere.study.remote import RefusedError, issue, run_there
from whatwhere.study.settings import StudyError, parse_variants
from whatwhere.study.trial import Trial

ROOT = Path(__file__).parents[2]


@pytest.fixture
def study(tmp_path, settings):
    """A ticket of a study that lives, and one of its trials."""
    run = tmp_path / "run"
    run.mkdir()
    with locked(run / ".lock", timeout=0):
        ticket = issue(run, load_data(settings.data).fingerprint, threads=1)
        yield replace(ticket, patience=0), Trial(run, settings, parse_variants(["cbam"])[-1], 0)


def test_a_worker_that_agrees_runs_the_trial_in_a_process_of_its_own(study):
    ticket, trial = study
    run_there(ticket, pickle.dumps(trial))
    record = trial.result()
    assert record["status"] == "finished", record["reason"]
    assert record["ran_on"]["parent"] == os.getpid()
    assert record["ran_on"]["threads"] == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"run": Path("/no/such/run")}, "does not see the study's folder /no/such/run"),
        ({"token": "another"}, "is not the study's folder there"),
        ({"folder": Path("/no/such/folder")}, "has no folder /no/such/folder, in which the study"),
        ({"versions": {"torch": "1.0"}}, "it has torch .*, the study on .* has 1.0"),
        ({"fingerprint": "another"}, "its data differ from those of the study"),
    ],
)
def test_a_worker_that_differs_refuses_and_says_who_it_is(study, change, message):
    ticket, trial = study
    with pytest.raises(RefusedError, match=message) as raised:
        run_there(replace(ticket, **change), pickle.dumps(trial))
    assert f"worker {os.getpid()} on {ticket.host}" in str(raised.value)
    assert trial.result() is None


def test_a_worker_without_the_data_says_so(study):
    ticket, trial = study
    data = replace(trial.settings.data, source="/no/such/data")
    trial = replace(trial, settings=replace(trial.settings, data=data))
    problem = remote._run(ticket, pickle.dumps(trial))
    assert "it can't read the data: " in problem
    assert "/no/such/data" in problem
    assert trial.result() is None


def test_locks_that_do_not_reach_the_worker_are_refused(tmp_path, settings):
    with locked(tmp_path / ".lock", timeout=0):
        ticket = issue(tmp_path, "", threads=1)
    with pytest.raises(RefusedError, match="locks on this file system don't hold between machin"):
        run_there(replace(ticket, patience=0), b"")


def test_a_process_that_dies_each_time_is_said(study, monkeypatch):
    ticket, trial = study
    monkeypatch.setenv("PYTHONPATH", "/no/such/folder")
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(RefusedError, match="died 5 times, the last with code 1"):
        run_there(ticket, pickle.dumps(trial))


RUN = """
import pickle, sys
from whatwhere.study.alone import run_alone
run_alone(pickle.loads(bytes.fromhex(sys.argv[1])))
"""


@pytest.mark.parametrize("killed", [False, True])
def test_two_processes_never_write_one_trial(tmp_path, settings, killed):
    trial = Trial(tmp_path, replace(settings, epochs=12), parse_variants(["cbam"])[-1], 0)
    first = subprocess.Popen([sys.executable, "-c", RUN, pickle.dumps(trial).hex()], cwd=ROOT)
    deadline = time.monotonic() + 120
    while not list(trial.folder.glob("training/*.ckpt")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert read_json(trial.folder / ".lock.json")["pid"] == first.pid
    assert trial.result() is None
    if killed:
        threading.Timer(0.3, first.kill).start()
    run_alone(trial)  # waits for the first, and finds its record or what it left
    assert first.wait(120) == (-9 if killed else 0)
    record = trial.result()
    assert record["status"] == "finished", record["reason"]
    assert record["ran_on"]["pid"] == (os.getpid() if killed else first.pid)
    assert record["resumed"] == (1 if killed else 0)
    assert read_json(trial.folder / "starts.json") == {"starts": 2 if killed else 1}
    assert len(record["epochs"]) == 12


def test_a_lock_names_its_holder(tmp_path):
    path = tmp_path / ".lock"
    with locked(path, timeout=0):
        assert is_held(path)
        text = rf"process {os.getpid()} on .+, since 20"
        with pytest.raises(HeldError, match=text), locked(path, timeout=0):
            raise AssertionError
    assert not is_held(path)
    assert not (tmp_path / ".lock.json").exists()


def test_workers_and_a_cluster_are_not_both(tmp_path, settings):
    with pytest.raises(StudyError, match="expected --workers or --cluster, got both"):
        compare(settings, tmp_path / "run", workers=2, cluster="tcp://127.0.0.1:9")


@pytest.mark.parametrize(
    ("cluster", "module", "message"),
    [
        ("tcp://127.0.0.1:9", "distributed", r"pip install 'whatwhere\[cluster\]'"),
        ("ray", "ray", "pip install ray, the same version as the cluster's"),
        ("ray://127.0.0.1:9", "ray", "pip install ray"),
    ],
)
def test_an_engine_that_is_not_installed_is_said(study, monkeypatch, cluster, module, message):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(StudyError, match=message), cluster_engine(cluster, study[0]).start():
        raise AssertionError


def test_a_scheduler_that_is_not_there_is_said(study):
    dask = pytest.importorskip("dask")
    message = "expected a Dask scheduler at --cluster tcp://127.0.0.1:9, and got no answer"
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "1s"}),
        pytest.raises(StudyError, match=message),
        cluster_engine("tcp://127.0.0.1:9", study[0]).start(),
    ):
        raise AssertionError
