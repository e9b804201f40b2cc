"""Whole networks of other code bases: into ours with the gates where they belong, and back."""

import pytest
import timm
import torch
import torchvision
from timm.layers.cbam import CbamModule
from torch import nn

from tests.checkpoints.foreign import (
    CvResNet,
    External,
    Mmyolo,
    Official,
    ResNet,
    Tutorial,
    TutorialChannel,
    TutorialSpatial,
)
from whatwhere import attached, attend, convert
from whatwhere.surgery import described, reattach

F64 = {"rtol": 1e-9, "atol": 1e-9}
SMALL = {"counts": (1, 2), "width": 16, "classes": 10}
# What a block has, by the code base.
GATES = {
    "official": lambda c: {"cbam": Official(c, c // 16)},
    "external": lambda c: {"cbam": External(c, c // 16, 7)},
    "mmyolo": lambda c: {"cbam": Mmyolo(c, c // 16)},
    "paper": lambda c: {"ca": TutorialChannel(c, c // 16), "sa": TutorialSpatial(7)},
}


def plain_network():
    return ResNet(lambda _channels: {}, **SMALL)


def shaken(model):
    """Norms and gates with numbers of their own, in eval mode and float64."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.0)
            nn.init.normal_(module.bias, std=0.1)
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2.0)
    for name, parameter in model.named_parameters():
        if any(part in name for part in ("cbam", ".ca.", ".sa.", ".se.")):
            nn.init.normal_(parameter, std=0.3)
    return model.eval().double()


def images():
    return torch.randn(2, 3, 64, 64, dtype=torch.float64)


def equal(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


def check_same(theirs, plain, converted):
    """A network without gates, given those that the conversion describes, computes the same."""
    reattach(plain, described(converted.state_dict))
    plain.load_state_dict(converted.state_dict)
    x = images()
    with torch.no_grad():
        torch.testing.assert_close(plain.eval().double()(x), theirs(x), **F64)
    assert [gate.site for gate in attached(plain)] == [gate.site for gate in converted.gates]


@pytest.mark.parametrize("source", GATES)
def test_networks_load_into_ours_and_back(source):
    theirs = shaken(ResNet(GATES[source], **SMALL))
    converted = convert(theirs.state_dict())
    assert converted.source == source
    assert [gate.site for gate in converted.gates] == [
        "layer1.0.bn3",
        "layer2.0.bn3",
        "layer2.1.bn3",
    ]
    check_same(theirs, plain_network(), converted)
    # mmyolo's plugins have names that the configuration gives them
    back = convert(converted.state_dict, target=source, spelling=converted.spelling)
    assert equal(back.state_dict, theirs.state_dict())


@pytest.mark.parametrize("wrap", ["none", "DataParallel"])
@pytest.mark.parametrize("library", ["torchvision", "timm"])
def test_an_official_resnet50_loads_into_that_of_a_library_and_back(library, wrap):
    theirs = shaken(ResNet(GATES["official"]))
    state = (nn.DataParallel(theirs) if wrap == "DataParallel" else theirs).state_dict()
    converted = convert(state)
    assert len(converted.gates) == 16
    plain = (
        torchvision.models.resnet50() if library == "torchvision" else timm.create_model("resnet50")
    )
    check_same(theirs, plain, converted)
    back = convert(plain.state_dict(), target="official")
    assert equal(back.state_dict, theirs.state_dict())


def test_what_attend_makes_takes_the_converted_weights():
    theirs = shaken(ResNet(GATES["official"], **SMALL))
    converted = convert(theirs.state_dict())
    model = plain_network()
    attend(model, "cbam", where="blocks", dialect="official", start="paper")
    model.load_state_dict(converted.state_dict)
    x = images()
    with torch.no_grad():
        torch.testing.assert_close(model.eval().double()(x), theirs(x), **F64)
    other = plain_network()
    attend(other, "cbam", where="blocks", dialect="official", start="identity")
    with pytest.raises(RuntimeError, match="start is 'paper' in the file and 'identity' here"):
        other.load_state_dict(converted.state_dict)


@pytest.mark.parametrize("name", ["resnet18", "resnet26"])
def test_networks_that_timm_made_with_cbam(name):
    theirs = shaken(timm.create_model(name, block_args={"attn_layer": "cbam"}))
    converted = convert(theirs.state_dict())
    assert (converted.source, converted.gates[0].site) == (
        "timm",
        "layer1.0.bn2" if name == "resnet18" else "layer1.0.bn3",
    )
    check_same(theirs, timm.create_model(name), converted)
    assert equal(convert(converted.state_dict, target="timm").state_dict, theirs.state_dict())


def test_pytorchcv_names_the_whole_network_its_own_way():
    theirs = shaken(CvResNet((1, 2), 16))
    converted = convert(theirs.state_dict())
    assert converted.modules["features.stage2.unit1.cbam"] == "layer2.0.bn3.attention"
    check_same(theirs, plain_network(), converted)
    back = convert(converted.state_dict, target="pytorchcv")
    assert equal(back.state_dict, theirs.state_dict())


def test_networks_go_from_one_code_base_to_another_without_ours():
    theirs = shaken(CvResNet((1, 2), 16))
    converted = convert(theirs.state_dict(), target="official")
    other = ResNet(GATES["official"], **SMALL)
    other.load_state_dict(converted.state_dict)
    x = images()
    with torch.no_grad():
        torch.testing.assert_close(other.eval().double()(x), theirs(x), **F64)
    back = convert(other.state_dict(), target="pytorchcv")
    assert equal(back.state_dict, theirs.state_dict())
    blocks = shaken(ResNet(GATES["paper"], **SMALL))
    to_timm = convert(blocks.state_dict(), target="timm", eval_only=True)
    assert to_timm.modules == {f"layer{i}": f"layer{i}.se" for i in ("1.0", "2.0", "2.1")}


def test_sites_are_given_where_the_keys_do_not_tell():
    class Top(nn.Sequential):
        """A network as tutorials have them: gates at the top, after a ReLU."""

    theirs = shaken(
        Top()
        .append(nn.Conv2d(3, 16, 3))
        .append(nn.BatchNorm2d(16))
        .append(nn.ReLU())
        .append(Tutorial(16, 1))
    )
    state = theirs.state_dict()
    with pytest.raises(
        ValueError, match=r"CBAM '3' in a residual block .* named as in layer1\.0, .*; say"
    ):
        convert(state)
    converted = convert(state, sites={"3": "2"})
    plain = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU())
    check_same(theirs, plain, converted)
    back = convert(converted.state_dict, target="paper", sites={r"2": "3"})
    assert equal(back.state_dict, state)
    with pytest.raises(ValueError, match=r"pattern of sites to match a CBAM, \['4'\] match none"):
        convert(state, sites={"3": "2", "4": "2"})
    with pytest.raises(ValueError, match=r"gate at 2\.attention after the last norm of a residual"):
        convert(converted.state_dict, target="paper")


def test_two_gates_at_one_place_are_refused():
    state = ResNet(GATES["official"], **SMALL).state_dict()
    with pytest.raises(ValueError, match="expected one CBAM at each place"):
        convert(state, sites={r"layer\d\.\d\.cbam": "bn1"})


def block(**tensors):
    """A block of a network, by the shapes of its tensors, with a timm CBAM on 32 channels."""
    cbam = {f"layer1.0.se.{key}": tensor for key, tensor in CbamModule(32).state_dict().items()}
    return {
        **{f"layer1.0.{k.replace('__', '.')}": torch.ones(v) for k, v in tensors.items()},
        **cbam,
    }


GOOD = block(conv1__weight=(32, 16, 3, 3), bn1__running_mean=(32,))


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (
            block(conv1__weight=(32, 16, 3, 3), bn1__running_mean=(16,)),
            "bn1 of layer1.0, of 16 channels, after a convolution conv1 .*, got one that gives 32",
        ),
        (block(bn1__running_mean=(32,)), "after a convolution conv1 that gives as many, got none"),
        (
            block(conv1__weight=(16, 32, 1, 1), bn1__running_mean=(16,)),
            "last norm of layer1.0 to have the CBAM's 32 channels, got 16 in bn1",
        ),
        (
            block(bn1__running_mean=(32,), norm2__running_mean=(32,)),
            r"can't tell which norm of layer1.0 is last: \['bn1', 'norm2'\]",
        ),
        (block(bn__running_mean=(32,)), r"can't tell which norm of layer1.0 is last: \['bn'\]"),
        (block(conv1__weight=(32, 16, 3, 3)), "CBAM 'layer1.0.se' in a residual block with norms"),
        (
            {"bn1.running_mean": torch.ones(32), **CbamModule(32).state_dict()},
            "CBAM '' in a residual block",
        ),
        (
            {key.replace("layer1.0", "up"): tensor for key, tensor in GOOD.items()},
            "CBAM 'up.se' in a residual block",
        ),
    ],
    ids=["norm first", "no conv", "channels", "stems", "unnumbered", "no norm", "top", "U-Net"],
)
def test_sites_that_would_be_guesses_are_refused(state, message):
    assert convert(GOOD).gates[0].site == "layer1.0.bn1"
    with pytest.raises(ValueError, match=message):
        convert(state)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gate": "se"}, r"no gate such as se\(start='paper'\)"),
        ({"gate": "cbam", "start": "identity"}, "are σ and not 2σ"),
        ({"gate": "cbam", "order": "spatial-channel"}, "order='spatial-channel'"),
        (
            {"gate": "cbam", "where": ["layer1.0.conv2"]},
            "at layer1.0.conv2.attention after the last",
        ),
        ({"gate": "cbam", "where": ["layer1.0.bn2"]}, "at layer1.0.bn2.attention after the last"),
    ],
)
def test_gates_that_other_code_bases_do_not_have_are_refused(options, message):
    model = plain_network()
    attend(model, **{"start": "paper", **options})
    with pytest.raises(ValueError, match=message):
        convert(model.state_dict(), target="paper")


def test_the_metadata_of_other_modules_stays():
    theirs = CvResNet((1,), 16)
    state = theirs.state_dict()
    converted = convert(state)
    metadata = converted.state_dict._metadata
    assert metadata["layer1.0.bn3"] == {"version": 2}
    assert metadata["layer1.0.bn3.attention"]["whatwhere"]["options"]["dialect"] == "pytorchcv"
    assert not any("cbam." in name for name in metadata)
    assert converted.state_dict["conv1.weight"] is state["features.init_block.conv.conv.weight"]
