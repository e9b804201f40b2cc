"""Kinds of places, in networks that were never written for this, and gates at them."""

import pytest
import timm
import torch
import torchvision
from torch import nn

import whatwhere
from tests.cases import randomise
from tests.surgery.networks import ChannelsLast, UNet
from whatwhere import attached, attend, detach, sites


def names(model, kind, example=None):
    return [site.name for site in sites(model, example, kind=kind)]


def on_meta(build, *args, **options):
    with torch.device("meta"):
        return build(*args, **options)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet50", ["layer1.2", "layer2.3", "layer3.5", "layer4.2"]),
        ("convnext_tiny", ["features.1.2", "features.3.2", "features.5.8", "features.7.2"]),
        ("vgg11", ["features.4", "features.9", "features.14", "features.19"]),
        (
            "mobilenet_v2",
            ["features.1.conv.2", "features.3", "features.6", "features.13", "features.18.2"],
        ),
        ("shufflenet_v2_x0_5", ["stage2.3", "stage3.7", "conv5.2"]),
    ],
)
def test_stages_end_where_the_next_begins(name, expected):
    assert names(on_meta(torchvision.models.get_model, name), "stages") == expected


def test_what_no_module_returns_is_gated_before_the_module_that_takes_it():
    found = sites(on_meta(torchvision.models.densenet121), kind="stages")
    assert [(site.name, site.argument) for site in found] == [
        ("features.transition1.norm", 0),
        ("features.transition2.norm", 0),
        ("features.transition3.norm", 0),
        ("features.norm5", None),
    ]


def test_stages_of_a_segmentation_network_end_before_its_head():
    model = on_meta(
        torchvision.models.segmentation.fcn_resnet50, weights=None, weights_backbone=None
    )
    assert names(model, "stages")[-1] == "backbone.layer4.2"


@pytest.mark.parametrize(
    ("name", "count", "first"),
    [
        ("mobilenet_v2", 17, "features.1.conv.2"),
        ("mobilenet_v3_small", 11, "features.1.block.2.1"),
        ("resnet18", 0, None),
    ],
)
def test_depthwise_separable_convolutions(name, count, first):
    found = names(on_meta(torchvision.models.get_model, name), "depthwise")
    assert len(found) == count
    assert count == 0 or found[0] == first


def test_parallel_convolutions_are_gated_by_their_sum():
    found = names(on_meta(timm.create_model, "mobileone_s1"), "depthwise")
    assert len(found) == 21
    assert all(name.endswith(".act") for name in found)


@pytest.mark.parametrize(
    ("name", "count", "first"),
    [
        ("seresnet18", 8, "layer1.0.se"),
        ("ecaresnet26t", 8, "layer1.0.se"),
        ("regnety_002", 13, "s1.b1.se"),
        ("mobilenetv3_small_050", 9, "blocks.0.0.se"),
        ("resnet18", 0, None),
    ],
)
def test_channel_gates_are_told_by_what_they_do(name, count, first):
    found = names(on_meta(timm.create_model, name), "se")
    assert len(found) == count
    assert count == 0 or found[0] == first


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_u_nets_have_a_bridge_and_skip_connections(ndim):
    model = UNet(ndim)
    example = torch.zeros(1, 2, *(16,) * ndim)
    assert names(model, "bridge", example) == ["bottom.1"]
    assert names(model, "stages", example) == ["down1.2", "down2.2", "bottom.1"]
    first, second = sites(model, example, kind="skips")
    assert (first.name, first.argument, first.note) == ("join", "skip", "")
    assert (second.name, second.argument) == ("down1.2", None)
    assert "sees the gate too" in second.note
    assert second.resolution == (16,) * ndim


def test_a_gate_on_a_skip_connection_leaves_the_way_down_alone():
    model = randomise(UNet()).eval()
    x = torch.randn(1, 2, 16, 16)
    before, seen = model(x), []
    (site, _) = sites(model, kind="skips")
    report = attend(model, "se", where=[site], start="paper", reduction_ratio=2)
    assert "before it, on argument 'skip'" in str(report)
    randomise(model.join)
    model.bottom.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    after = model(x)
    assert torch.equal(seen[0], model.pool(model.down2(model.pool(model.down1(x)))))
    assert not torch.allclose(before, after)
    gate = model.join.attention
    a = model.down1(x)
    b = model.down2(model.pool(a))
    c = model.back2(torch.cat([model.up2(model.bottom(model.pool(b))), gate(b)], 1))
    expected = model.head(model.back1(torch.cat([model.up1(c), a], 1)))
    torch.testing.assert_close(after, expected)
    assert attached(model)[0].argument == "skip"
    assert len(detach(model)) == 1
    assert torch.equal(model(x), before)
    assert not model.join._forward_pre_hooks
    assert not model.join._forward_pre_hooks_with_kwargs


def test_networks_with_few_residual_blocks_are_gated_at_what_they_have():
    def kinds(name):
        report = attend(on_meta(timm.create_model, name), "se")
        return {site.kind for site in report.sites}, len(report.sites)

    assert kinds("resnet18") == ({"blocks"}, 8)
    assert kinds("mobilenetv2_035") == ({"blocks"}, 10)
    assert kinds("mobilenetv1_100") == ({"depthwise"}, 13)
    assert kinds("vgg11") == ({"stages"}, 5)


@pytest.mark.parametrize(
    ("name", "count"),
    [("ghostnet_100", 16), ("repghostnet_050", 16), ("dpn68", 22), ("hrnet_w18_small", 23)],
)
def test_blocks_of_concatenations_slices_and_sums(name, count):
    found = names(on_meta(timm.create_model, name), "blocks")
    assert len(found) == count
    assert not any("cheap" in name or "fuse" in name for name in found)


def test_norms_are_named_not_what_they_hand_on():
    found = names(on_meta(timm.create_model, "tresnet_m"), "blocks")
    assert not any(name.endswith((".drop", ".act")) for name in found)


def test_networks_with_channels_last_take_gates():
    model = randomise(ChannelsLast()).eval()
    x = torch.randn(2, 3, 12, 16)
    before = model(x)
    (site,) = sites(model, x, kind="blocks")
    assert (site.name, site.channels, site.resolution, site.channels_last) == (
        "narrow",
        8,
        (6, 8),
        True,
    )
    attend(model, "cbam", example=x)
    assert torch.equal(model(x), before)
    gate = randomise(model.narrow.attention)
    seen = []
    model.narrow.register_forward_hook(lambda _, args, y: seen.append((args[0], y)))
    model(x)
    inputs, output = seen[0]
    plain = nn.functional.linear(inputs, model.narrow.weight, model.narrow.bias)
    expected = gate(plain.movedim(-1, 1).contiguous()).movedim(1, -1)
    torch.testing.assert_close(output, expected)


class SharedHead(nn.Module):
    """As in detectors: one head for every level."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.head = nn.Conv2d(8, 8, 3, padding=1)
        self.relu = nn.ReLU()

    def forward(self, x):
        x = self.relu(self.stem(x))
        small = nn.functional.max_pool2d(x, 2)
        return self.head(x), self.relu(self.head(small))


def test_modules_that_run_for_several_levels_are_gated_each_time():
    model = randomise(SharedHead()).eval()
    x = torch.randn(1, 3, 8, 8)
    before = model(x)
    report = attend(model, "se", where="head", start="paper", reduction_ratio=2)
    assert report.sites[0].runs == 2
    assert "runs 2 times" in str(report)
    gate = randomise(model.head.attention)
    after = model(x)
    torch.testing.assert_close(after[0], gate(before[0]))
    plain = nn.functional.conv2d(
        nn.functional.max_pool2d(model.stem(x).relu(), 2),
        model.head.weight,
        model.head.bias,
        padding=1,
    )
    torch.testing.assert_close(after[1], gate(plain).relu())


def test_replacing_puts_gates_where_others_were():
    model = randomise(timm.create_model("seresnet18", num_classes=7)).eval()
    original = model.layer1[0].se
    keys, x = list(model.state_dict()), torch.randn(1, 3, 64, 64)
    before = model(x)
    report = attend(model, "cbam", replace="se")
    assert report.start == "paper"
    assert [site.kind for site in report.sites] == ["se"] * 8
    assert not any(key.startswith("layer1.0.se.fc") for key in model.state_dict())
    seen = []
    gate = randomise(model.layer1[0].se.attention)
    model.layer1[0].se.register_forward_hook(lambda _, a, y: seen.append((a[0].clone(), y.clone())))
    model(x)
    torch.testing.assert_close(seen[0][1], gate(seen[0][0]))
    model.double()
    detach(model)
    assert model.layer1[0].se is original
    assert {p.dtype for p in model.parameters()} == {torch.float64}
    assert list(model.state_dict()) == keys
    assert torch.equal(model.float()(x), before)


def test_replacing_some_of_them():
    model = timm.create_model("seresnet18")
    some = sites(model, kind="se")[:3]
    attend(model, "se", where=some, replace="se")
    assert [gate.site for gate in attached(model)] == [site.name for site in some]
    assert type(model.layer4[1].se).__name__ == "SEModule"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"replace": "se", "start": "identity"}, r"the output can't stay as it was"),
        ({"replace": "se", "where": "blocks"}, r'sites of kind "se" .* got \'blocks\''),
        ({"replace": "cbam"}, r"replace to be one of 'se', None, got 'cbam'"),
    ],
)
def test_replacements_that_mean_nothing_are_refused(options, message):
    model = timm.create_model("seresnet18")
    with pytest.raises(ValueError, match=message):
        attend(model, "se", **options)
    assert attached(model) == ()


def test_a_function_chooses_modules():
    model = torchvision.models.resnet18()
    attend(model, "se", where=lambda name, module: isinstance(module, nn.Conv2d) and "3." in name)
    assert [gate.site for gate in attached(model)][:2] == ["layer3.0.conv1", "layer3.0.conv2"]
    with pytest.raises(ValueError, match="it chose none"):
        attend(torchvision.models.resnet18(), "se", where=lambda *_: False)


def test_sites_of_another_network_are_refused():
    with pytest.raises(ValueError, match=r"which has no modules \['layer1.0.bn2'"):
        attend(torchvision.models.vgg11(), "se", where=sites(torchvision.models.resnet18()))


def test_sites_lists_every_kind_and_one():
    model = torchvision.models.resnet18()
    every = sites(model)
    assert {site.kind for site in every} == {"blocks", "stages"}
    assert sites(model, kind="blocks") == tuple(s for s in every if s.kind == "blocks")
    named = sites(model, kind="named")
    assert "conv1" in [site.name for site in named]
    assert "relu" in [site.name for site in named]
    with pytest.raises(ValueError, match=r"sites: expected kind to be one of 'blocks'"):
        sites(model, kind="block")


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.again = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, left, right, *, scale=1.0):
        x = self.conv(left) + self.conv(right)
        return {"answer": x + self.again(x) * scale}


@pytest.mark.parametrize(
    "example",
    [
        (torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8)),
        {"left": torch.zeros(1, 3, 8, 8), "right": torch.zeros(1, 3, 8, 8), "scale": 2.0},
    ],
    ids=["tuple", "dict"],
)
def test_networks_of_several_inputs(example):
    model = randomise(Two()).eval()
    x = torch.randn(2, 1, 3, 8, 8)
    before = model(*x)["answer"]
    attend(model, "cbam", example=example)
    assert [gate.site for gate in attached(model)] == ["again"]
    assert torch.equal(model(*x)["answer"], before)


def test_a_detector_takes_a_list_of_images():
    model = torchvision.models.detection.fcos_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=3, min_size=64, max_size=64
    ).eval()
    found = sites(model, [torch.zeros(3, 64, 64)], kind="blocks")
    assert len(found) == 16


def test_the_size_is_one_that_the_network_takes():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 26 * 26, 2))
    assert sites(model, kind="named")[0].resolution == (26, 26)


def test_the_first_convolution_may_be_of_a_class_of_its_own():
    # Its stem is a subclass of Conv2d, its channel gates hold plain Conv1d.
    assert len(names(on_meta(timm.create_model, "nf_ecaresnet26"), "blocks")) == 8


def test_gates_come_out_site_by_site():
    model = torchvision.models.resnet18()
    attend(model, "se")
    taken = detach(model, sites=["layer1.0.bn2", "layer4.1.bn2"])
    assert [gate.site for gate in taken] == ["layer1.0.bn2", "layer4.1.bn2"]
    assert len(attached(model)) == 6
    with pytest.raises(ValueError, match=r"among the gated sites .*, got \['layer1.0.bn2'\]"):
        detach(model, sites=["layer1.0.bn2"])
    whatwhere.surgery.reattach(model, taken)
    assert len(attached(model)) == 8
