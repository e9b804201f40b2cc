"""Whole studies through the command line: resumed, killed, extended, refused."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from whatwhere.files import read_json, write_json
from whatwhere.study.locks import locked

ROOT = Path(__file__).parents[2]


def command(pictures, out, *options):
    base = [sys.executable, "-m", "whatwhere", "compare", str(pictures), "--out", str(out)]
    return [*base, "--variants", "none,cbam", "--batch-size", "16", "--workers", "2", *options]


def run(*args, expect=0):
    done = subprocess.run(
        command(*args), cwd=ROOT, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == expect, done.stderr[-3000:]
    return done.stderr


def workers_of(pid):
    """The study's processes that run trials, read from Linux's process table."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == pid and b"spawn_main" in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except FileNotFoundError:
            continue
    return sorted(found)


def records(out):
    return {p.parent.name: p for p in (out / "trials").glob("*/result.json")}


@pytest.fixture(scope="module")
def finished(pictures, tmp_path_factory):
    """A study that was killed while it ran, and then run again to its end."""
    out = tmp_path_factory.mktemp("runs") / "killed"
    options = ("--seeds", "2", "--epochs", "25")
    process = subprocess.Popen(
        command(pictures, out, *options), cwd=ROOT, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 300
    while not records(out) or not list(out.glob("trials/*/training/*.ckpt")):
        assert time.monotonic() < deadline, "no trial finished while another ran"
        assert process.poll() is None, "the study ended before it could be killed"
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)  # the study's process alone: its workers must follow it
    process.wait()
    before = {name: path.stat().st_mtime_ns for name, path in records(out).items()}
    (out / "trials" / ".result.json.1.part").write_text("{half")  # killed in the middle of a write
    time.sleep(2)
    assert {name: p.stat().st_mtime_ns for name, p in records(out).items()} == before
    text = run(pictures, out, *options)
    return out, before, text


@pytest.mark.xdist_group("finished")
def test_nothing_is_lost_and_nothing_repeated(finished):
    out, before, text = finished
    now = records(out)
    assert len(now) == 6  # none, cbam and the control, two seeds each
    assert {name: now[name].stat().st_mtime_ns for name in before} == before
    assert f"6 trials, {len(before)} of them done" in text
    results = read_json(out / "results.json")
    assert [trial["status"] for trial in results["trials"]] == ["finished"] * 6
    assert sum(trial["resumed"] for trial in results["trials"]) >= 1
    assert all(len(trial["epochs"]) == 25 for trial in results["trials"])


@pytest.mark.xdist_group("finished")
def test_the_study_says_what_it_found(finished):
    out, _, text = finished
    results = read_json(out / "results.json")
    rows = list(csv.DictReader((out / "results.csv").read_text().splitlines()))
    assert len(rows) == 6
    for row, trial in zip(rows, results["trials"], strict=True):
        assert float(row["test_accuracy"]) == pytest.approx(trial["test"]["accuracy"])
    variants = {row["name"]: row for row in results["variants"]}
    assert variants["wider"]["parameters"] >= variants["cbam"]["parameters"]
    assert variants["wider"]["parameters"] < 1.1 * variants["cbam"]["parameters"]
    assert variants["none"]["latency_ratio"]["median"] == 1
    page = (out / "report.html").read_text()
    assert results["verdict"].splitlines()[0] in page
    assert "report.html" in text
    assert not list(out.rglob("*.part"))


@pytest.mark.xdist_group("finished")
def test_the_same_command_again_changes_no_trial(finished, pictures):
    out, _, _ = finished
    before = {name: path.read_bytes() for name, path in records(out).items()}
    text = run(pictures, out, "--seeds", "2", "--epochs", "25")
    assert "6 trials, 6 of them done" in text
    assert {name: path.read_bytes() for name, path in records(out).items()} == before


@pytest.mark.xdist_group("finished")
def test_other_settings_are_refused_with_the_difference(finished, pictures):
    out, _, _ = finished
    text = run(pictures, out, "--seeds", "2", "--epochs", "9", expect=2)
    assert "epochs was 25 and is now 9" in text
    assert "Traceback" not in text


@pytest.mark.xdist_group("finished")
def test_changed_data_are_refused(finished, pictures):
    out, _, _ = finished
    study = read_json(out / "study.json")
    write_json(out / "study.json", {**study, "fingerprint": "another"})
    text = run(pictures, out, "--seeds", "2", "--epochs", "25", expect=2)
    write_json(out / "study.json", study)
    assert "the data have changed" in text


def test_a_killed_worker_costs_no_trial(pictures, tmp_path):
    out = tmp_path / "worker"
    options = ("--seeds", "1", "--epochs", "25", "--control", "none")
    process = subprocess.Popen(
        command(pictures, out, *options), cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 300
    while not list(out.glob("trials/*/training/*.ckpt")):
        assert time.monotonic() < deadline, "no trial began"
        time.sleep(0.01)
    os.kill(workers_of(process.pid)[-1], signal.SIGKILL)
    _, text = process.communicate(timeout=600)
    assert process.returncode == 0, text[-3000:]
    assert "a worker process died" in text
    results = read_json(out / "results.json")
    assert [trial["status"] for trial in results["trials"]] == ["finished"] * 2
    assert all(len(trial["epochs"]) == 25 for trial in results["trials"])


def test_two_studies_in_one_folder_are_refused(pictures, tmp_path):
    (tmp_path / "busy").mkdir()
    with locked(tmp_path / "busy" / ".lock", timeout=0):
        text = run(pictures, tmp_path / "busy", expect=2)
    assert f"another study is at work in {tmp_path / 'busy'}: process {os.getpid()} on" in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--variants", "none,sseq"), "tea, action, tam, got 'sseq'"),
        (("--variants", "cbam:ratio=3"), "got 'ratio=3' in 'cbam:ratio=3'"),
        (("--backbone", "resnet19"), "got 'resnet19'; close names: resnet18"),
        (("--control", "width"), "'parameters', 'latency', 'none', got 'width'"),
        (("--seeds", "0"), "seeds to be an integer >= 1, got 0"),
        (("--precision", "64"), "got '64'"),
    ],
)
def test_bad_options_are_one_line(pictures, tmp_path, options, message):
    text = run(pictures, tmp_path / "bad", *options, expect=2)
    assert message in " ".join(text.split())
    assert "Traceback" not in text


@pytest.mark.xdist_group("finished")
def test_a_dearer_variant_gets_a_control_of_its_size(finished, pictures, tmp_path):
    out = shutil.copytree(finished[0], tmp_path / "copy")
    before = {name: path.read_bytes() for name, path in records(out).items()}
    variants = ("--variants", "none,cbam,cbam:reduction_ratio=1")
    run(pictures, out, "--seeds", "2", "--epochs", "25", *variants)
    results = read_json(out / "results.json")
    rows = {row["name"]: row for row in results["variants"]}
    assert rows["wider"]["parameters"] >= rows["cbam:reduction_ratio=1"]["parameters"]
    assert {name: records(out)[name].read_bytes() for name in before} == before
    assert len(records(out)) == 6 + 2 + 2  # the new variant and the new control, two seeds each


def test_a_backbone_of_the_working_directory_runs_in_the_workers(pictures, tmp_path):
    (tmp_path / "mine.py").write_text(
        "from whatwhere.study.networks import SmallResNet\n\n\n"
        "def make(classes, *, in_channels, ndim):\n"
        "    return SmallResNet(classes, in_channels=in_channels, ndim=ndim, channels=(4, 8, 8))\n"
    )
    script = Path(sys.executable).with_name("whatwhere")
    options = "--backbone mine:make --control none --variants none,se --where stages.?"
    options += " --fractions 0.5"
    done = subprocess.run(
        [script, "compare", pictures, "--out", "o", *options.split(), "--seeds=1", "--epochs=1"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    results = read_json(tmp_path / "o" / "results.json")
    assert [trial["status"] for trial in results["trials"]] == ["finished"] * 2
    assert [trial["fraction"] for trial in results["parts"]] == [0.5, 0.5]
    rows = list(csv.DictReader((tmp_path / "o" / "results.csv").read_text().splitlines()))
    assert [row["fraction"] for row in rows] == ["1.0", "1.0", "0.5", "0.5"]
    assert {row["name"]: row["sites"] for row in results["variants"]} == {"none": 0, "se": 3}


def test_a_study_without_a_finished_trial_does_not_end_well(pictures, tmp_path):
    options = ("--seeds", "1", "--control", "none", "--learning-rate", "1e30")
    text = run(pictures, tmp_path / "diverged", *options, expect=1)
    assert "diverged: the training loss became" in " ".join(text.split())
    assert (tmp_path / "diverged" / "report.html").stat().st_size > 1000


def test_an_interrupted_study_stops_soon_and_says_so(pictures, tmp_path):
    out = tmp_path / "interrupted"
    options = ("--seeds", "1", "--epochs", "200", "--control", "none")
    process = subprocess.Popen(
        command(pictures, out, *options),
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 300
    while not list(out.glob("trials/*/training/*.ckpt")):
        assert time.monotonic() < deadline, "no trial began"
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    _, text = process.communicate(timeout=60)
    assert process.returncode not in (0, 2)
    assert "the same command goes on from here" in text
    assert records(out) == {}


@pytest.mark.parametrize("content", ["{}", "[]", '"x"'])
def test_a_folder_that_holds_no_study_is_one_line(pictures, tmp_path, content):
    (tmp_path / "study.json").write_text(content)
    text = run(pictures, tmp_path, expect=2)
    assert "expected a study's settings in" in text
    assert "Traceback" not in text


def test_a_place_that_can_not_be_written_is_one_line(pictures):
    text = run(pictures, pictures, expect=2)
    assert "bars.npz" in text
    assert "Traceback" not in text


def test_a_study_inside_its_own_data_is_refused(tmp_path):
    (tmp_path / "a").mkdir()
    text = run(tmp_path, tmp_path / "runs" / "x", expect=2)
    assert "expected --out outside the data" in text
    assert not (tmp_path / "runs").exists()


def test_data_that_is_not_there_is_one_line(tmp_path):
    text = run(tmp_path / "nowhere", tmp_path / "out", expect=2)
    assert "nowhere" in text
    assert "Traceback" not in text


def test_writes_are_whole_or_absent(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="Out of range float"):
        write_json(path, {"a": float("nan")})
    assert json.loads(path.read_text()) == {"a": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]
    path.write_text("{half")
    with pytest.raises(ValueError, match=r"expected JSON in .*a.json"):
        read_json(path)
