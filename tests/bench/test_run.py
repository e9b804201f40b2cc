"""Whole runs: records, page, resuming, refusing; and the parts a run is made of."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from whatwhere.bench import run as run_module
from whatwhere.bench.machine import commit, stamp
from whatwhere.bench.measure import timing
from whatwhere.bench.measure.job import _finite
from whatwhere.bench.measure.memory import peak_bytes
from whatwhere.bench.settings import (
    DTYPES,
    GrowthCase,
    NetworkCase,
    Row,
    Settings,
    make_plan,
    parse_plan,
)
from whatwhere.cli import app
from whatwhere.files import read_json, write_json

ROOT = Path(__file__).parents[2]
OPTIONS = ("--quick", "--shapes", "2x16x6x6,2x16x9", "--dtypes", "float32", "--peers", "seed,timm")


def bench(out, *options, module="benchmarks"):
    base = [sys.executable, "-m", module, *(["bench"] if module == "whatwhere" else [])]
    return subprocess.run(
        [*base, *OPTIONS, "--out", str(out), *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        env={**os.environ, "COLUMNS": "200"},
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("bench")
    done = bench(out)
    assert done.returncode == 0, done.stderr[-3000:]
    return out


def test_a_run_leaves_records_results_and_a_page(finished):
    results = read_json(finished / "results.json")
    cases = [record["case"] for record in results["records"]]
    assert cases == [
        "2x16x6x6-float32-contiguous",
        "2x16x6x6-float32-channels_last",
        "2x16x9-float32-contiguous",
        "resnet18-batch2-side64",
        "growth-N-contiguous",
    ]
    first = results["records"][0]
    variants = {"copy", "ours", "our kernels", "seed", "timm"}
    assert set(first["passes"]["both"]["times"]) == variants
    assert first["passes"]["both"]["times"]["copy"]["to_copy"] == [1, 1, 1]
    assert first["memory"]["ours"]["saved"] > 1
    assert first["machine"]["cores"] >= 1
    assert "torch" in first["stamp"]["versions"]
    assert {each["quantity"] for each in results["summary"]} == {
        "ours / copy",
        "our kernels / copy",
        "best eager peer / ours",
    }
    page = (finished / "results.md").read_text()
    assert "## Means over shapes and layouts" in page
    assert "- timm: timm's CbamModule takes images only (2x16x9-float32-contiguous)" in page
    assert "| resnet18, batch 2, training step, eager: ours |" in page


def test_the_same_command_again_keeps_what_is_measured(finished):
    records = sorted((finished / "records").glob("*.json"))
    before = {path: path.stat().st_mtime_ns for path in records}
    lost, broken, other = records[0], records[1], records[2]
    lost.unlink()
    broken.write_text('{"status": "measu')
    changed = read_json(other)
    changed["stamp"]["source"] = "of other code"
    write_json(other, changed)
    before[other] = other.stat().st_mtime_ns
    done = bench(finished, module="whatwhere")
    assert done.returncode == 0, done.stderr[-3000:]
    again = {path for path in records if path.stat().st_mtime_ns != before[path]}
    assert again == {lost, broken, other}
    assert read_json(other)["stamp"]["source"] != "of other code"


def test_a_refused_case_makes_the_exit_code_1_and_is_measured_again(tmp_path, monkeypatch):
    wrong = {"variant": "ours", "value": "output", "error": 0.5, "allowed": 1e-4}

    def measured_wrong(case, plan, path, _bars, _task):
        about = {"case": case.name, "stamp": stamp(plan.settings), "seconds": 1.0}
        machine = dict.fromkeys(("processor", "cores", "capability", "system", "python", "commit"))
        record = {"kind": "row", "status": "refused", "disagreements": [wrong]}
        write_json(path, {**record, **about, "machine": machine})

    monkeypatch.setattr(run_module, "_run_in_process", measured_wrong)
    result = CliRunner().invoke(
        app, ["bench", *OPTIONS, "--sections", "rows", "--out", str(tmp_path)]
    )
    assert result.exit_code == 1
    assert "No speed-up is printed" in (tmp_path / "results.md").read_text()
    assert read_json(tmp_path / "results.json")["summary"] == []
    path = tmp_path / "records" / "2x16x6x6-float32-contiguous.json"
    assert not run_module.is_kept(path, read_json(path)["stamp"])


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            ["--peers", "seed,fast"],
            "expected peers to be one of 'seed', 'amax', 'timm', got 'fast'",
        ),
        (["--shapes", "8x3y"], "expected a shape as in 8x256x56x56, got '8x3y'"),
        (["--shapes", "8x3"], "expected shapes N x C x positions, got (8, 3)"),
        (["--sections", "none"], "expected sections to be distinct names, got ()"),
        (["--seconds", "1", "--rounds", "3"], "expected seconds or rounds, not both"),
        (["--seconds", "-1"], "expected seconds to be 0 or more, got -1.0"),
        (["--threads", "0"], "expected threads to be an integer >= 1, got 0"),
    ],
)
def test_bad_options_are_one_line(options, text):
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 2
    assert text in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_whole_matrix():
    plan = make_plan(Settings())
    rows = [case for case in plan.cases if isinstance(case, Row)]
    # 6 shapes of images and one of clips in two layouts, sequences in one; two dtypes.
    assert len(rows) == 2 * (2 * 7 + 1)
    assert len({case.name for case in plan.cases}) == len(plan.cases)
    networks = [case for case in plan.cases if isinstance(case, NetworkCase)]
    assert [(case.batch, case.side) for case in networks] == [(1, 224), (8, 224)]
    grown = {case.axis: case.shapes for case in plan.cases if isinstance(case, GrowthCase)}
    assert (grown["N"][0][0], grown["N"][-1][0]) == (1, 64)
    assert (grown["C"][0][1], grown["C"][-1][1]) == (32, 2048)
    assert (grown["side"][0][2], grown["side"][-1][2]) == (7, 224)


def test_quick_compiles_nothing_unless_told():
    given = {
        "sections": "rows",
        "shapes": None,
        "dtypes": ",".join(DTYPES),
        "peers": "none",
        "compiled_networks": False,
        "seconds": None,
        "rounds": None,
        "threads": None,
        "quick": True,
    }
    assert parse_plan(compiled=None, **given).settings.compiled == ()
    assert parse_plan(compiled="default", **given).settings.compiled == ("default",)


def test_rounds_interleave_and_the_untimed_call_comes_before_each():
    order = []
    calls = {name: lambda name=name: order.append(name) for name in "abc"}
    settings = Settings(seconds=0, least_rounds=4, most_rounds=4)
    timed = timing.interleave(
        calls, settings, before=lambda: order.append("-"), say=lambda _text: None
    )
    assert set(order[::2]) == {"-"}
    played = ["".join(order[i + 1 : i + 6 : 2]) for i in range(0, len(order), 6)]
    assert all(sorted(each) == list("abc") for each in played)
    assert len(set(played[-4:])) > 2
    assert {len(times) for times in timed.times.values()} == {4}


def test_busy_rounds_do_not_count(monkeypatch):
    loads = iter([1.5, 0.0, 0.7, 0.1, 0.0] + [0.0] * 50)
    monkeypatch.setattr(timing.LoadWatch, "others", lambda _self: next(loads))
    settings = Settings(seconds=0, least_rounds=3, most_rounds=3)
    timed = timing.interleave(
        {"copy": lambda: None}, settings, before=lambda: None, say=lambda _text: None
    )
    assert not timed.disturbed
    assert timed.dropped == 2
    assert timed.others == pytest.approx(0.0333, abs=0.03)


def test_a_machine_that_is_never_quiet_is_said_to_be_disturbed(monkeypatch):
    monkeypatch.setattr(timing.LoadWatch, "others", lambda _self: 1.0)
    settings = Settings(seconds=0, least_rounds=3, most_rounds=3)
    timed = timing.interleave(
        {"copy": lambda: None}, settings, before=lambda: None, say=lambda _text: None
    )
    assert timed.disturbed
    assert timed.others == pytest.approx(1.0)
    assert len(timed.times["copy"]) == 3


def test_peak_memory_counts_what_is_held_at_once():
    x = torch.randn(1 << 16)
    # Scalars are allocated too.
    assert 0 <= peak_bytes(lambda: x + 1) - x.nbytes < 100
    assert 0 <= peak_bytes(lambda: (x + 1) * 2) - 2 * x.nbytes < 100


def test_not_finite_errors_can_be_written():
    value = _finite({"a": [float("inf")]})
    assert json.loads(json.dumps(value, allow_nan=False)) == {"a": [sys.float_info.max]}


def test_the_stamp_tells_settings_apart():
    assert stamp(Settings(seconds=1)) != stamp(Settings(seconds=2))
    assert stamp(Settings()) == json.loads(json.dumps(stamp(Settings())))
    assert commit() is None or len(commit()) >= 7
