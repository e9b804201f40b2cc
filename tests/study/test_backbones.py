"""Backbones by name: fit for the data, the same from a seed, widened where they can be."""

from dataclasses import replace

import pytest
import torch
import torchvision

from whatwhere import cost
from whatwhere.study.backbones import Backbone, BackboneError
from whatwhere.study.build import load_data
from whatwhere.study.plan import control_variant, measure
from whatwhere.study.settings import StudyError, parse_variants

FUNCTION = "tests.study.backbone_function"


@pytest.mark.parametrize(
    ("name", "channels", "ndim"),
    [
        ("small", 2, 1),
        ("small", 1, 2),
        ("small", 3, 3),
        ("test_resnet", 1, 2),
        ("timm/test_resnet", 3, 2),
        ("torchvision/resnet18", 1, 2),
        ("torchvision/r3d_18", 3, 3),
        ("r2plus1d_18", 1, 3),
        ("paper/resnet18", 1, 2),
        ("paper/mobilenet_0.7-cbam", 4, 2),
        (f"{FUNCTION}:make", 2, 2),
    ],
)
def test_backbones_fit_the_data_and_depend_on_the_seed_alone(name, channels, ndim):
    backbone = Backbone(name, classes=5, in_channels=channels, ndim=ndim)
    torch.manual_seed(7)
    state = torch.get_rng_state()
    one, again, other = (backbone.build(seed=seed).eval() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    x = torch.randn(2, channels, *((4, 32, 32) if ndim == 3 else (32,) * ndim))
    assert one(x).shape == (2, 5)
    assert torch.equal(one(x), again(x))
    assert not torch.equal(one(x), other(x))


def test_grey_data_reach_torchvision_as_three_equal_channels():
    backbone = Backbone("torchvision/resnet18", classes=5, in_channels=1, ndim=2)
    network, plain = backbone.build(seed=0).eval(), torchvision.models.resnet18(num_classes=5)
    plain.load_state_dict(network.state_dict())
    x = torch.randn(2, 1, 32, 32)
    assert torch.equal(network(x), plain.eval()(x.repeat(1, 3, 1, 1)))


@pytest.mark.parametrize(
    "name",
    [
        "small",
        "timm/resnet18",
        "timm/test_resnet",
        "torchvision/resnet50",
        "paper/resnet18-se",
        "paper/mobilenet_1.0",
        f"{FUNCTION}:make",
    ],
)
def test_widening_grows_a_little_with_a_little_width(name):
    backbone = Backbone(name, classes=5, in_channels=3, ndim=2)
    assert backbone.widens()
    plain, little, much = (backbone.parameters_at(width) for width in (1.0, 1.1, 1.5))
    assert plain == cost.parameters(backbone.build(seed=0))
    assert plain <= little < 1.35 * plain
    assert little < much


@pytest.mark.parametrize("name", ["torchvision/r3d_18", "vgg11", f"{FUNCTION}:fixed"])
def test_what_can_not_be_widened_says_so(name, settings):
    ndim = 3 if "r3d" in name else 2
    backbone = Backbone(name, classes=2, in_channels=1 if ndim == 2 else 3, ndim=ndim)
    assert not backbone.widens()
    asked = replace(settings, control="parameters", backbone=name)
    with pytest.raises(StudyError, match="--control none goes without"):
        control_variant(backbone, parse_variants(["se"]), asked, load_data(settings.data))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet19", r"got 'resnet19'; close names: resnet18, resnet\d\w+, \w+$"),
        ("keras/resnet18", r"of timm/, torchvision/ or paper/, got 'keras/resnet18'"),
        ("paper/resnet51", r"expected network to be one of 'resnet18', .* got 'resnet51'"),
        ("paper/resnet18-sse", r"resnet18: expected attention to be one of 'se', .* got 'sse'"),
        ("paper/resnet18", r"could not be built .* 3 position axes: .*take images"),
        ("no.such.module:make", r"can't be imported: No module named 'no'"),
        (f"{FUNCTION}:absent", r"can't be imported: .*'absent'"),
        ("timm/test_resnet", r"could not be built .* 3 position axes: .*take images"),
    ],
)
def test_bad_backbones_are_named(name, message):
    ndim = 3 if name in ("timm/test_resnet", "paper/resnet18") else 2
    with pytest.raises(BackboneError, match=message):
        Backbone(name, classes=5, in_channels=3, ndim=ndim).build(seed=0)


def test_the_control_has_at_least_the_parameters_of_the_dearest_variant(settings):
    asked = replace(settings, control="parameters")
    data = load_data(asked.data)
    backbone = Backbone("small", classes=2, in_channels=1, ndim=2)
    variants = parse_variants(["se", "cbam", "cbam:reduction_ratio=2"])
    control = control_variant(backbone, variants, asked, data)
    rows = {row["name"]: row for row in measure(backbone, [*variants, control], asked, data)}
    dearest = rows["cbam:reduction_ratio=2"]["parameters"]
    assert dearest <= rows["wider"]["parameters"] < 1.05 * dearest
    assert rows["none"]["latency_ratio"] == {"median": 1.0, "low": 1.0, "high": 1.0}
    assert rows["cbam"]["macs"] > rows["none"]["macs"]
    assert rows["cbam"]["training_memory_mb"] > rows["none"]["training_memory_mb"]


def test_a_papers_network_with_gates_takes_no_others(settings):
    data = load_data(settings.data)
    backbone = Backbone("paper/resnet18-se", classes=2, in_channels=1, ndim=2)
    plain, gated = parse_variants(["cbam"])
    (row,) = measure(backbone, [plain], settings, data)
    assert row["sites"] == 8
    with pytest.raises(StudyError, match=r"resnet18-se has gates of its own, so cbam can't"):
        measure(backbone, [plain, gated], settings, data)


def test_the_control_by_latency_is_wider_than_the_plain_network(settings):
    asked = replace(settings, control="latency")
    data = load_data(asked.data)
    backbone = Backbone("small", classes=2, in_channels=1, ndim=2)
    control = control_variant(backbone, parse_variants(["cbam"]), asked, data)
    assert 1.0 < control.width <= 2.0
