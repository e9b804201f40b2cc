"""The papers' networks: what they compute, where their gates are, what they cost exactly."""

import pytest
import timm
import torch
import torchvision
from torch import nn

from benchmarks.tables.counted import Count, named
from whatwhere import attached, load, paper, save

pytestmark = pytest.mark.xdist_group("tables")  # one process keeps what was counted

# Parameters and multiply-accumulates: plain, SE, CBAM, BAM.
RESNETS = {
    "resnet18": [
        (11_689_512, 1_814_073_344),
        (11_778_592, 1_814_160_384),
        (11_779_392, 1_815_063_764),
        (11_712_503, 1_819_224_000),
    ],
    "resnet34": [
        (21_797_672, 3_663_761_408),
        (21_958_868, 3_663_918_592),
        (21_960_468, 3_665_434_742),
        (21_820_663, 3_668_912_064),
    ],
    "resnet50": [
        (25_557_032, 3_857_973_248),
        (28_088_024, 3_860_488_192),
        (28_089_624, 3_864_362_102),
        (25_915_099, 3_940_120_320),
    ],
    "resnet101": [
        (44_549_160, 7_570_194_432),
        (49_326_872, 7_574_937_600),
        (49_330_172, 7_581_366_270),
        (44_907_227, 7_652_341_504),
    ],
    "wrn18_1.5": [
        (25_875_816, 3_866_327_040),
        (26_074_716, 3_866_522_880),
        (26_075_516, 3_867_535_060),
        (25_926_933, 3_877_899_552),
    ],
    "wrn18_2.0": [
        (45_618_216, 6_695_706_624),
        (45_970_456, 6_696_054_784),
        (45_971_256, 6_697_219_284),
        (45_708_547, 6_716_265_344),
    ],
    "resnext50_32x4d": [
        (25_028_904, 3_768_057_856),
        (27_559_896, 3_770_572_800),
        (27_561_496, 3_774_446_710),
        (25_386_971, 3_850_204_928),
    ],
    "resnext101_32x4d": [
        (44_177_704, 7_507_574_784),
        (48_955_416, 7_512_317_952),
        (48_958_716, 7_518_746_622),
        (44_535_771, 7_589_721_856),
    ],
}
MOBILENETS = {
    "mobilenet_1.0": [
        (4_231_976, 568_740_352),
        (5_072_276, 569_569_024),
        (5_074_976, 575_871_976),
    ],
    "mobilenet_0.7": [
        (2_298_747, 282_957_078),
        (2_709_854, 283_360_062),
        (2_707_361, 289_226_958),
    ],
}
COUNTS = {
    name if attention == "none" else f"{name}-{attention}": Count(*count)
    for name, counts in {**RESNETS, **MOBILENETS}.items()
    for attention, count in zip(("none", "se", "cbam", "bam"), counts, strict=False)
}
# Parameters that other attention adds.
ADDED = {
    "resnet50-eca": 3 * 3 + 4 * 5 + 6 * 5 + 3 * 7,
    "resnet50-gc": 2_521_741,
    "resnet50-shuffle": 708,
    "resnet50-triplet": 16 * 3 * (2 * 7 * 7 + 2),
}
X = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def varied(network):
    """Norms that are not 1 and 0; weights as drawn, so that values stay finite in depth."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.running_var):
                nn.init.uniform_(tensor, 0.5, 1.5)
            for tensor in (module.bias, module.running_mean):
                nn.init.normal_(tensor, std=0.2)
    return network


@pytest.mark.parametrize("name", COUNTS)
def test_counts_are_exact(name):
    assert named(name) == COUNTS[name]


@pytest.mark.parametrize("name", ADDED)
def test_other_attention_adds_what_its_authors_say(name):
    assert (named(name) - named("resnet50")).parameters == ADDED[name]


def test_there_are_no_other_networks():
    assert set(paper.network_names()) == {*RESNETS, *MOBILENETS}


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50", "resnext50_32x4d"])
def test_resnets_are_torchvisions_but_for_the_stride(name):
    network = varied(paper.build(name, classes=7)).eval()
    other = torchvision.models.get_model(name, num_classes=7).eval()
    other.load_state_dict(network.state_dict())
    with torch.no_grad():
        assert torch.equal(network(X), other(X)) == (network.layer1[0].expansion == 1)
        for block in other.modules():
            if isinstance(block, torchvision.models.resnet.Bottleneck):
                block.conv1.stride, block.conv2.stride = block.conv2.stride, (1, 1)
        torch.testing.assert_close(network(X), other(X), rtol=1e-5, atol=1e-5)


def test_wide_resnets_are_timms_with_those_channels_and_the_usual_stem():
    network = varied(paper.build("wrn18_1.5", classes=7)).eval()
    other = timm.create_model("resnet18", num_classes=7, channels=(96, 192, 384, 768)).eval()
    other.load_state_dict(network.state_dict())
    assert network.conv1.out_channels == 64
    with torch.no_grad():
        assert torch.equal(network(X), other(X))


@pytest.mark.parametrize("alpha", [0.7, 1.0])
def test_mobilenets_are_a_chain_of_convolutions_norms_and_relus(alpha):
    network = varied(paper.build(f"mobilenet_{alpha}", classes=7)).eval()
    units = [(3, 32, 2, 3, 1)]  # inputs, outputs, stride, kernel, whether all channels mix
    for inputs, outputs, stride in (
        (32, 64, 1),
        (64, 128, 2),
        (128, 128, 1),
        (128, 256, 2),
        (256, 256, 1),
        (256, 512, 2),
        *[(512, 512, 1)] * 5,
        (512, 1024, 2),
        (1024, 1024, 1),
    ):
        units += [(inputs, inputs, stride, 3, 0), (inputs, outputs, 1, 1, 1)]
    layers = []
    for inputs, outputs, stride, kernel, mixes in units:
        wide_in = inputs if inputs == 3 else int(alpha * inputs)
        wide_out = int(alpha * outputs)
        groups = 1 if mixes else wide_in
        layers += [
            nn.Conv2d(wide_in, wide_out, kernel, stride, kernel // 2, groups=groups, bias=False),
            nn.BatchNorm2d(wide_out),
            nn.ReLU(),
        ]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(int(alpha * 1024), 7)]
    chain = nn.Sequential(*layers, *head).eval()
    values = list(network.state_dict().values())
    chain.load_state_dict(dict(zip(chain.state_dict(), values, strict=True)))
    with torch.no_grad():
        torch.testing.assert_close(network(X), chain(X), rtol=1e-5, atol=1e-5)


def test_gates_are_where_and_what_the_papers_say():
    def gates(name):
        with torch.device("meta"):
            return attached(paper.build(name))

    blocks = [f"layer{s}.{b}.bn3" for s, n in enumerate((3, 4, 6, 3), start=1) for b in range(n)]
    cbam = gates("resnet50-cbam")
    assert [gate.site for gate in cbam] == blocks
    assert {(g.gate, g.start, *g.options.items()) for g in cbam} == {
        ("cbam", "paper", ("dialect", "official"))
    }
    ends = ["layer1.2.act3", "layer2.3.act3", "layer3.5.act3"]  # the ReLUs that end the stages
    assert [gate.site for gate in gates("resnet50-bam")] == ends
    assert [gate.site for gate in gates("resnet50-gc")] == blocks[3:]
    kernels = {18: "33557777", 34: "3333333555555777"}
    for depth, expected in kernels.items():
        found = "".join(str(g.options["kernel_size"]) for g in gates(f"resnet{depth}-eca"))
        assert found == expected
    mobilenet = gates("mobilenet_0.7-se")
    assert [gate.site.split(".")[0] for gate in mobilenet] == ["bn1"] + ["blocks"] * 26
    assert [gate.channels for gate in mobilenet][:4] == [22, 22, 44, 44]


@pytest.mark.parametrize("name", ["resnet18-cbam", "mobilenet_0.7-se", "resnet50-gc"])
def test_one_call_loads_what_was_saved(tmp_path, name):
    model = varied(paper.build(name, classes=4, in_channels=1, width=1.5)).eval()
    recipe = paper.recipe(name, classes=4, in_channels=1, width=1.5)
    save(model, tmp_path / "model.safetensors", **recipe)
    other = load(tmp_path / "model.safetensors").eval()
    assert attached(other) == attached(model)
    x = X[:, :1]
    with torch.no_grad():
        assert torch.equal(other(x), model(x))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: paper.build("resnet51"), r"paper: expected network to be one of .*'resnet51'"),
        (lambda: paper.build("resnet50-"), r"resnet50: expected attention to be .*, got ''"),
        (lambda: paper.build("resnet50-cbma"), r"resnet50: expected attention .*'cbma'"),
        (lambda: paper.build("wrn18_1.5-eca"), r"attention to be .*'triplet', got 'eca'"),
        (lambda: paper.build("mobilenet_1.0-bam"), r"one of 'se', 'cbam', got 'bam'"),
        (lambda: paper.build("resnet18", width=0), r"a finite widen > 0, got 0"),
        (lambda: paper.build("resnet18", classes=0), r"classes to be an integer >= 1, got 0"),
        (lambda: paper.ResNet(19), r"depth to be one of 18, 34, 50, 101, got 19"),
        (lambda: paper.ResNet(34, groups=32), r"groups=32 and width_per_group=64 with depth=34"),
        (lambda: paper.MobileNet(float("nan")), r"a finite alpha > 0, got nan"),
        (lambda: paper.MobileNet(in_channels=0), r"in_channels to be an integer >= 1, got 0"),
    ],
)
def test_what_can_not_be_says_so(build, message):
    with pytest.raises(ValueError, match=message):
        build()
