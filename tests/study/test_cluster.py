"""Studies on a Dask cluster of two workers on loopback: spread, killed at every point, refused."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from whatwhere.files import read_json
from whatwhere.study.data import DataSettings
from whatwhere.study.locks import is_held
from whatwhere.study.settings import StudySettings, parse_variants
from whatwhere.study.trial import Trial, run_trial

ROOT = Path(__file__).parents[2]
EPOCHS = 20
pytestmark = [
    pytest.mark.xdist_group("cluster"),
    pytest.mark.skipif(sys.platform != "linux", reason="processes are told apart by /proc"),
]


def environment():
    paths = [str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "5s",
    }


def until(found, process=None, seconds=300):
    """What ``found`` returns once it is something."""
    deadline = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < deadline, "it did not come"
        assert process is None or process.poll() is None, "it ended before"
        time.sleep(0.02)
    return value


class Cluster:
    """A scheduler and workers, each a process of its own; nothing listens beyond loopback."""

    def __init__(self, folder):
        self.folder = folder
        self.file = folder / "scheduler.json"
        self.processes = []
        self.scheduler = self.start("dask_scheduler", "--port", "0")
        until(self.file.exists, self.scheduler)

    def start(self, tool, *options):
        name = f"{tool}-{len(self.processes)}"
        with (self.folder / f"{name}.log").open("w") as log:
            process = subprocess.Popen(
                [
                    *(sys.executable, "-m", f"distributed.cli.{tool}", *options),
                    *("--host", "127.0.0.1", "--scheduler-file", str(self.file)),
                    *("--no-dashboard", "--dashboard-address", "127.0.0.1:0"),
                ],
                cwd=self.folder,
                env=environment(),
                stdout=log,
                stderr=log,
            )
        self.processes.append(process)
        return process

    def add_worker(self):
        self.start("dask_worker", "--nthreads", "1", "--nanny")

    def stop(self):
        for process in reversed(self.processes):
            process.terminate()
        for process in self.processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    cluster.add_worker()
    cluster.add_worker()
    yield cluster
    cluster.stop()


@pytest.fixture(scope="module")
def settings(pictures):
    return StudySettings(
        data=DataSettings(source=str(pictures)),
        variants=("none", "cbam"),
        control="none",
        seeds=1,
        epochs=EPOCHS,
        batch_size=16,
    )


def study(cluster, settings, out, *, seeds=1):
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "whatwhere", "compare", settings.data.source),
            *("--variants", "none,cbam", "--control", "none", "--batch-size", "16"),
            *("--seeds", str(seeds), "--epochs", str(EPOCHS)),
            *("--out", str(out), "--cluster", str(cluster.file)),
        ],
        cwd=ROOT,
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
    )


def at_work(out):
    """The processes that hold a trial and have left a checkpoint in it, by the trial's folder."""
    found = {}
    for note in out.glob("trials/*/.lock.json"):
        told = read_json(note)
        if told is None or gone(told["pid"]):  # a killed process leaves its note
            continue
        if list(note.parent.glob("training/*.ckpt")):
            found[note.parent] = told
    return found


def gone(pid):
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


@pytest.fixture(scope="module")
def finished(cluster, settings, tmp_path_factory):
    """A study that is killed in the middle, begun again, and then loses a worker."""
    out = tmp_path_factory.mktemp("runs") / "study"
    process = study(cluster, settings, out)
    holders = until(lambda: at_work(out), process)
    process.kill()
    process.communicate()
    until(lambda: all(gone(each["pid"]) for each in holders.values()), seconds=120)
    until(lambda: not any(is_held(lock) for lock in out.glob("trials/*/.lock")), seconds=120)
    after_the_study = sorted(out.glob("trials/*/result.json"))

    process = study(cluster, settings, out)
    folder, told = next(iter(until(lambda: at_work(out), process).items()))
    os.kill(told["parent"], signal.SIGKILL)
    until(lambda: gone(told["pid"]), seconds=120)
    _, text = process.communicate(timeout=600)
    assert process.returncode == 0, text[-3000:]
    return out, holders, after_the_study, folder, told


def test_trials_end_with_a_study_that_is_killed(finished):
    _, holders, after_the_study, _, _ = finished
    assert holders
    assert after_the_study == []


def test_a_killed_worker_costs_no_trial_and_no_finished_epoch(finished):
    out, _, _, folder, told = finished
    results = read_json(out / "results.json")
    assert [trial["status"] for trial in results["trials"]] == ["finished"] * 2
    assert all(len(trial["epochs"]) == EPOCHS for trial in results["trials"])
    record = read_json(folder / "result.json")
    assert record["resumed"] >= 1
    assert record["ran_on"]["parent"] != told["parent"]


def test_trials_spread_over_the_workers(finished):
    results = read_json(finished[0] / "results.json")
    assert len({trial["ran_on"]["parent"] for trial in results["trials"]}) == 2
    assert {trial["ran_on"]["threads"] for trial in results["trials"]} == {1}


def test_results_are_those_of_one_machine_bit_for_bit(finished, settings, tmp_path):
    results = read_json(finished[0] / "results.json")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for variant in parse_variants(settings.variants):
        run_trial(Trial(tmp_path, settings, variant, 0))
    torch.set_num_threads(threads)
    for theirs in results["trials"]:
        ours = read_json(tmp_path / "trials" / theirs["id"] / "result.json")
        assert ours["test"] == theirs["test"]
        assert [e["train_loss"] for e in ours["epochs"]] == [
            e["train_loss"] for e in theirs["epochs"]
        ]


def test_a_scheduler_that_dies_is_said_and_costs_no_finished_trial(cluster, finished, settings):
    out = finished[0]
    before = {path: path.read_bytes() for path in out.glob("trials/*/result.json")}
    process = study(cluster, settings, out, seeds=2)
    until(lambda: at_work(out), process)
    cluster.scheduler.kill()
    _, text = process.communicate(timeout=300)
    assert process.returncode == 2, text[-3000:]
    assert "is gone; finished trials are kept, and the same command resumes" in text
    assert "Traceback" not in text
    until(lambda: not any(is_held(lock) for lock in out.glob("trials/*/.lock")), seconds=120)
    assert before == {path: path.read_bytes() for path in before}
