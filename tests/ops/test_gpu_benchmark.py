"""``benchmarks.gpu`` from end to end without a GPU: tiny tensors, and a clock that does not run."""

import doctest
import re

import pytest
import torch

pytest.importorskip("triton")
pytest.importorskip("timm")

from benchmarks.gpu import gates, marks, training
from whatwhere.ops.cuda import tiles


class StoppedClock:
    """Calls run once; what they took is decided by their place."""

    def __init__(self):
        self.asked = []

    def timed(self, calls, *, cold):
        self.asked.append((sorted(calls), cold))
        for call in calls.values():
            assert call() is not None
        return {name: [1.0 + place, 2.0 + place] for place, name in enumerate(calls)}

    def graphed(self, call):
        return call


@pytest.fixture
def setup():
    return gates.Setup(
        torch.device("cpu"),
        StoppedClock(),
        compiled=lambda module: module,
        maps=[(32, 4)],
        batches=(2, 64),
    )


def cells(line):
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_rows_of_a_gate(setup, monkeypatch):
    room = 40 * 32 * 16 * 4 / tiles.SHARE_OF_CACHE  # 40 samples in float32, 80 in bfloat16
    monkeypatch.setattr(tiles, "cache_bytes", lambda _device: room)
    head, rule, *lines = map(cells, gates.rows(setup))
    assert len(lines) == 2 * 2 * 2 * 3  # batches, kinds, passes, ways
    assert {len(line) for line in (head, rule, *lines)} == {len(head)}
    by_name = [dict(zip(head, line, strict=True)) for line in lines]
    assert all(re.fullmatch(r"\d+\.\d", row["copy, µs"]) for row in by_name)
    for row in by_name:
        large, forward = row["x"].startswith("(64"), row["pass"] == "forward"
        in_chunks = large and row["dtype"] == "float32"
        assert bool(row["ours at once"]) == in_chunks
        assert row["marks"].count("met") == 1 + 2 * large + (in_chunks and forward)
    assert {(row["graph"], row["cache"]) for row in by_name} == {
        ("no", "cold"),
        ("yes", "cold"),
        ("yes", "warm"),
    }
    assert sum(cold for _, cold in setup.clock.asked) == 2 * len(lines) / 3


def test_marks():
    assert doctest.testmod(marks) == (0, 3)


def test_at_once_is_without_chunks_and_only_there(monkeypatch):
    monkeypatch.setattr(tiles, "cache_bytes", lambda _device: 1000)
    x = torch.empty(20, 5, 10, device="meta")
    assert tiles.chunk_of(x, 1) == 2
    with gates.at_once():
        assert tiles.chunk_of(x, 1) == 20
    assert tiles.chunk_of(x, 1) == 2


def test_the_row_of_a_training_step(setup):
    head, _, line = map(cells, training.rows(setup, name="resnet18", side=32, batches=(2,)))
    row = dict(zip(head, line, strict=True))
    assert row["network"] == "resnet18"
    # The clock's times: plain, ours, ours fused, timm's, one millisecond apart.
    assert [row[name] for name in head[2:6]] == [
        *("1.50 (1.25-1.75)", "2.50 (2.25-2.75)"),
        *("3.50 (3.25-3.75)", "4.50 (4.25-4.75)"),
    ]
    assert row["mark"].endswith("0.33 ≤ 0.333333: met")


def test_the_networks_have_gates_at_the_same_places(setup):
    networks = training.networks(setup, "resnet18")
    places = {
        name: {key for key, _ in network.named_modules() if key.endswith("attention")}
        for name, network in networks.items()
    }
    assert places.pop("plain") == set()
    assert len(places["ours"]) == 8
    assert places["ours"] == places["ours fused"] == places["timm compiled"]
