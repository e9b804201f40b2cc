"""What networks cost by the command line: exact counts, measured times, errors in a line."""

import io
import sys

import pytest
import torchvision
from rich.console import Console

from whatwhere import cli, cost
from whatwhere.files import read_json
from whatwhere.study.backbones import Backbone
from whatwhere.study.costs import cost_table, costs, parse_shape
from whatwhere.study.settings import parse_variants

VARIANTS = parse_variants(["se", "cbam:kernel_size=3"])


@pytest.fixture(scope="module")
def rows():
    return costs(["small", "paper/resnet18"], VARIANTS, shape=(1, 20, 20), classes=5, seconds=0)


def test_rows_are_every_network_with_every_variant(rows):
    assert [(row["network"], row["attention"], row["sites"]) for row in rows] == [
        (network, variant.name, sites if variant.gate else 0)
        for network, sites in (("small", 3), ("paper/resnet18", 8))
        for variant in VARIANTS
    ]


def test_counts_are_exact(rows):
    small = Backbone("small", classes=5, in_channels=1, ndim=2)
    assert rows[0]["parameters"] == cost.parameters(small.build(seed=0))
    channels = (64, 64, 128, 128, 256, 256, 512, 512)
    added = [2 * c * (c // 16) for c in channels]  # of the two layers, which have biases in SE
    plain, se, cbam = (row["parameters"] for row in rows[3:])
    assert se - plain == sum(added) + sum(c + c // 16 for c in channels)
    assert cbam - plain == sum(added) + 8 * 2 * 9
    assert rows[4]["macs"] - rows[3]["macs"] == sum(added)


def test_times_are_relative_to_the_first_network_and_training_takes_memory(rows):
    assert rows[0]["latency_ratio"] == {"median": 1.0, "low": 1.0, "high": 1.0}
    deep = rows[3]["latency_ratio"]
    assert deep["low"] <= deep["median"] <= deep["high"]
    assert deep["low"] > 1  # 20 convolutions of up to 512 channels against 9 of up to 64
    assert rows[1]["training_memory_mb"] > rows[0]["training_memory_mb"] > 0


def test_the_table_has_every_number(rows):
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(cost_table(rows, title="8 samples of 1x20x20"))
    text = console.export_text()
    assert "8 samples of 1x20x20" in text
    for row in rows:
        assert f"{row['parameters']:,}" in text
    percent = 100 * (rows[2]["macs"] / rows[0]["macs"] - 1)
    assert f"+{percent:.2f}%" in text
    assert f"×{rows[3]['latency_ratio']['median']:.2f}" in text
    assert "+ cbam:kernel_size=3" in text


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["whatwhere", "cost", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code


def test_the_command_prints_the_table_and_writes_the_rows(monkeypatch, capsys, tmp_path):
    path = tmp_path / "costs.json"
    options = ["--attention", "se", "--shape", "3x32x32", "--seconds", "0", "--json", str(path)]
    code = run(monkeypatch, "torchvision/resnet18", *options, "--batch", "2", "--where", "stages")
    assert code == 0
    plain, se = read_json(path)
    assert plain["parameters"] == cost.parameters(torchvision.models.resnet18())
    assert (plain["attention"], se["attention"], se["sites"]) == ("none", "se", 4)
    printed = capsys.readouterr().out
    assert "2 samples of 3x32x32" in printed
    assert f"{se['parameters']:,}" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["small", "--attention", "none,cbma"], "expected the variant none or one of the gates"),
        (["small", "--attention", "se:x=1"], "expected the options of se"),
        (["small", "--shape", "3x0"], "expected a shape as in 3x224x224, got '3x0'"),
        (["small", "--shape", "3,224,224"], "expected a shape as in 3x224x224, got '3,224,224'"),
        (["small", "--shape", "3"], "channels and 1 to 3 position axes, got (3,)"),
        (["small", "--batch", "0"], "cost: expected batch to be an integer >= 1, got 0"),
        (["small", "small"], "expected different networks, got small, small"),
        (["resnet_18"], "got 'resnet_18'; close names: resnet18"),
        (["small", "--where", "nowhere"], "se can't go into small: expected where='nowhere'"),
        (["paper/resnet18-se"], "has gates of its own, so se can't go into it; ask for the"),
        (["small", "--shape", "1x4x4", "--batch", "1"], "can't train on batches of 1 samples"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(monkeypatch, capsys, arguments, message):
    short = ["--shape", "1x16x16"] if "--shape" not in arguments else []
    assert run(monkeypatch, *arguments, *short, "--seconds", "0") == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("whatwhere: ")
    assert message in captured.err


def test_a_shape_is_sizes_with_an_x_between():
    assert parse_shape("1x8x32x32") == (1, 8, 32, 32)
