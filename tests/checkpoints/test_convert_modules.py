"""CBAMs of other code bases: the same outputs after a conversion, the same bits after two."""

import pytest
import torch
from timm.layers.cbam import CbamModule, LightCbamModule
from torch import nn

from tests.cases import randomise
from tests.checkpoints.foreign import (
    External,
    Mmyolo,
    Official,
    Pytorchcv,
    Tutorial,
    Ultralytics,
)
from whatwhere import CBAM, build, convert

MODULES = {
    "paper": Tutorial,
    "official": Official,
    "timm": lambda: CbamModule(32),
    "pytorchcv": Pytorchcv,
    "mmyolo": Mmyolo,
    "external": External,
}
F64 = {"rtol": 1e-11, "atol": 1e-11}


def equal(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


def ours(converted):
    (gate,) = converted.gates
    module = build("cbam", gate.channels, ndim=gate.ndim, start=gate.start, **gate.options)
    module.load_state_dict(converted.state_dict)
    return module


def x(*shape):
    return torch.randn(shape or (3, 32, 9, 6), dtype=torch.float64)


def targets(name, keys):
    """A module of the code base that has what the converted keys say it has."""
    if name == "timm":
        return CbamModule(32, mlp_bias="channel.fc1.bias" in keys)
    if name == "paper":
        return Tutorial(bias="ca.fc.0.bias" in keys, spatial_bias="sa.conv1.bias" in keys)
    return External(kernel=7) if name == "external" else MODULES[name]()


@pytest.mark.parametrize("source", MODULES)
def test_ours_computes_what_theirs_does_and_back_come_the_same_bits(source):
    theirs = randomise(MODULES[source]())
    converted = convert(theirs.state_dict())
    assert (converted.source, converted.target) == (source, "whatwhere")
    assert converted.error < 1e-14
    assert converted.gates[0].options["dialect"] == source
    back = convert(converted.state_dict, target=source, spelling=converted.spelling)
    assert back.source == "whatwhere"
    assert equal(back.state_dict, theirs.state_dict())
    module, value = ours(converted).double(), x()
    for training in (False, True):
        expected = theirs.double().train(training)(value)
        torch.testing.assert_close(module.train(training)(value), expected, **F64)


NORMED = {"official", "timm", "pytorchcv"}


@pytest.mark.parametrize("target", MODULES)
@pytest.mark.parametrize("source", MODULES)
def test_every_pair_is_equal_in_both_modes_or_refused(source, target):
    theirs = randomise(External(kernel=7) if source == "external" else MODULES[source]())
    if "external" in (source, target) and source != target:
        with pytest.raises(ValueError, match="adds x to what it gates"):
            convert(theirs.state_dict(), target=target, eval_only=True)
        return
    if (source in NORMED) != (target in NORMED):
        lacks = target if source in NORMED else source
        with pytest.raises(ValueError, match=rf"has a norm that '{lacks}' lacks: in training"):
            convert(theirs.state_dict(), target=target)
        modes, tolerance = [False], {"rtol": 1e-5, "atol": 1e-6}
    else:
        modes, tolerance = [False, True], F64
    converted = convert(theirs.state_dict(), target=target, eval_only=len(modes) == 1)
    assert (len(modes) == 1) == any("eval mode alone" in note for note in converted.notes)
    other = targets(target, converted.state_dict)
    other.load_state_dict(converted.state_dict)
    value = x()
    for training in modes:
        expected = theirs.double().train(training)(value)
        torch.testing.assert_close(other.double().train(training)(value), expected, **tolerance)


@pytest.mark.parametrize(
    ("theirs", "spelling", "dialect"),
    [
        (Tutorial(), "ca.fc.0 sa.conv1", "paper"),
        (Tutorial(network="sharedMLP", spatial_conv="conv"), "ca.sharedMLP.0 sa.conv", "paper"),
        (
            Tutorial(network="fc1", parts=("channelattention", "spatialattention"), kernel=3),
            "channelattention.fc1 spatialattention.conv1",
            "paper",
        ),
        (Tutorial(network="f1"), "ca.f1 sa.conv1", "paper"),
        (
            Tutorial(network="mlp", linear=True, parts=("channel", "spatial")),
            "channel.mlp.0 spatial.conv1 linear",
            "paper",
        ),
        (
            Tutorial(network="shared_MLP", spatial_conv="conv2d", spatial_bias=True),
            "ca.shared_MLP.0 sa.conv2d conv_bias",
            "mmyolo",
        ),
        (Tutorial(bias=True), "ca.fc.0 sa.conv1 network_bias", "mmyolo"),
        (CbamModule(32, mlp_bias=True), "channel.fc1 spatial.conv.conv network_bias", "pytorchcv"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize("zeros", [False, True])
def test_spellings_are_told_and_come_back(theirs, spelling, dialect, zeros):
    randomise(theirs)
    for name, parameter in theirs.named_parameters():
        if zeros and name.endswith("bias"):
            nn.init.zeros_(parameter)
    converted = convert(theirs.state_dict())
    assert converted.spelling == spelling
    assert converted.gates[0].options["dialect"] == dialect
    value = x()
    module = ours(converted).double()
    for training in (False, True):
        expected = theirs.double().train(training)(value)
        torch.testing.assert_close(module.train(training)(value), expected, **F64)
    theirs.float()
    converted = convert(theirs.state_dict())
    back = convert(converted.state_dict, target=converted.source, spelling=spelling)
    assert equal(back.state_dict, theirs.state_dict())


@pytest.mark.parametrize("ndim", [1, 3])
def test_sequences_and_clips(ndim):
    convolution = {1: nn.Conv1d, 3: nn.Conv3d}[ndim]
    state = {
        "ca.fc.0.weight": torch.randn(2, 32, *[1] * ndim),
        "ca.fc.2.weight": torch.randn(32, 2, *[1] * ndim),
        "sa.conv1.weight": convolution(2, 1, 7).weight.detach(),
    }
    converted = convert(state)
    assert converted.gates[0].ndim == ndim
    assert ours(converted)(torch.randn(2, 32, *[9] * ndim)).shape == (2, 32, *[9] * ndim)
    assert equal(convert(converted.state_dict, target="paper").state_dict, state)


@pytest.mark.parametrize("channels", [8, 24, 40, 64, 136])
def test_hidden_widths_of_either_rounding(channels):
    theirs = randomise(CbamModule(channels))
    converted = convert(theirs.state_dict())
    assert converted.gates[0].options["reduction_ratio"] == 16
    assert equal(convert(converted.state_dict, target="timm").state_dict, theirs.state_dict())
    official = convert(theirs.state_dict(), target="official")
    hidden = theirs.channel.fc1.out_channels
    other = Official(channels, hidden).double().eval()
    other.load_state_dict(official.state_dict)
    value = x(2, channels, 7, 8)
    torch.testing.assert_close(other(value), theirs.double().eval()(value), **F64)
    (needs,) = (note for note in official.notes if "to load it" in note)
    ratio = int(needs.split("reduction ratio ")[1].split(",")[0])
    assert channels // ratio == hidden


def test_a_width_that_no_ratio_gives_is_refused_but_where_it_is_an_argument():
    theirs = CbamModule(10, rd_channels=7)
    for target in ("whatwhere", "official"):
        with pytest.raises(ValueError, match=rf"10 channels over an integer, .*{target}.* got 7"):
            convert(theirs.state_dict(), target=target)
    assert equal(convert(theirs.state_dict(), target="timm").state_dict, theirs.state_dict())


def test_our_own_gate_can_be_of_another_dialect():
    theirs = randomise(Official())
    with pytest.raises(ValueError, match="'official' has a norm that 'mmyolo' lacks"):
        convert(theirs.state_dict(), dialect="mmyolo")
    converted = convert(theirs.state_dict(), dialect="mmyolo", eval_only=True)
    assert not any("norm" in key for key in converted.state_dict)
    value = x()
    expected = theirs.double().eval()(value)
    got = ours(converted).double().eval()(value)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)
    assert 0 < converted.error < 1e-6  # rounded to float32


def test_it_prints_what_it_did():
    text = str(convert(CbamModule(32).state_dict(), target="official"))
    assert text.startswith("1 CBAM from timm to official: largest difference on random input ")
    assert "swapped: [mean, max] to [max, mean]" in text
    assert "momentum is 0.1 in 'timm' and 0.01 in 'official'" in text
    assert "zero biases added to the network, which 'official' has" in text
    assert "modules of 'official' to load it: reduction ratio 16, kernel (7, 7)" in text


def changed(module, **tensors):
    state = dict(module.state_dict())
    for name, tensor in tensors.items():
        key = name.replace("__", ".")
        if tensor is None:
            del state[key]
        else:
            state[key] = tensor
    return state


BAD = {
    "another function": (
        lambda: convert(Ultralytics().state_dict()),
        "channel part of ultralytics' CBAM is one layer on the mean alone",
    ),
    "to another function": (
        lambda: convert(Official().state_dict(), target="ultralytics"),
        "channel part of ultralytics' CBAM is one layer on the mean alone",
    ),
    "light": (
        lambda: convert(LightCbamModule(32).state_dict()),
        r"at channel, but spatial.conv.conv.weight is \(1, 1, 7, 7\), where a CBAM's is",
    ),
    "no CBAM": (
        lambda: convert(nn.Linear(2, 2).state_dict()),
        r"of the dialects paper, official, .*, found none among 2 keys such as weight, bias",
    ),
    "no spatial part": (
        lambda: convert({k: v for k, v in Official().state_dict().items() if "Channel" in k}),
        "at ChannelGate, but it has no SpatialGate.spatial.conv.weight",
    ),
    "several": (
        lambda: convert({**Official().state_dict(), **CbamModule(32).state_dict()}),
        "keys fit the dialects 'official' and 'timm'; say which with source=",
    ),
    "another dialect": (
        lambda: convert(Official().state_dict(), source="timm"),
        "expected CBAMs of dialect 'timm', but the keys under '' are those of 'official'",
    ),
    "unknown keys": (
        lambda: convert(changed(Tutorial(), sa__bn__weight=torch.ones(1))),
        "it has sa.bn.weight, which that code has not",
    ),
    "an even kernel": (
        lambda: convert(changed(Tutorial(), sa__conv1__weight=torch.ones(1, 2, 4, 4))),
        "even kernels change the size",
    ),
    "no hidden unit": (
        lambda: convert(
            changed(
                Official(8),
                ChannelGate__mlp__1__weight=torch.ones(0, 8),
                ChannelGate__mlp__1__bias=torch.ones(0),
                ChannelGate__mlp__3__weight=torch.ones(8, 0),
            )
        ),
        "the reduction ratio left no hidden unit",
    ),
    "shapes that don't fit": (
        lambda: convert(changed(Official(), ChannelGate__mlp__3__weight=torch.ones(32, 3))),
        r"ChannelGate.mlp.1.weight is \(2, 32\) and ChannelGate.mlp.3.weight \(32, 3\)",
    ),
    "kernel": (
        lambda: convert(CbamModule(32, spatial_kernel_size=3).state_dict(), target="official"),
        r"expected a kernel size of 7, all that 'official' has, got \(3, 3\)",
    ),
    "a bias": (
        lambda: convert(
            randomise(Mmyolo()).state_dict(), target="paper", spelling="ca.fc.0 sa.conv1"
        ),
        "no bias in the network, since 'paper' has none",
    ),
    "not finite": (
        lambda: convert(changed(Tutorial(), sa__conv1__weight=torch.full((1, 2, 7, 7), torch.nan))),
        "differ by nan on random input",
    ),
    "an unknown code base": (
        lambda: convert(Official().state_dict(), source="keras"),
        "expected source to be one of None, 'whatwhere', 'paper'",
    ),
    "a dialect of no CBAM of ours": (
        lambda: convert(Official().state_dict(), target="timm", dialect="timm"),
        "dialect is that of whatwhere.CBAM",
    ),
    "a spelling for ours": (
        lambda: convert(Official().state_dict(), spelling="ca.fc.0 sa.conv1"),
        "whatwhere has one spelling",
    ),
    "an unknown spelling": (
        lambda: convert(Tutorial().state_dict(), target="paper", spelling="a b"),
        "a spelling such as 'ca.fc.0 sa.conv1', .* with or without linear, network_bias, conv_bias",
    ),
    "options of another": (
        lambda: convert(Official().state_dict(), options={"start": "paper"}),
        "options are of whatwhere's CBAMs",
    ),
    "no tensors": (
        lambda: convert({"epoch": 1}),
        r"expected tensors by name, got others at \['epoch'\]",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_can_not_be_converted_is_refused_with_the_reason(case):
    call, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        call()


def test_an_ambiguous_state_dict_can_be_told():
    """A network of two code bases: no one source is right for it, whatever it is told."""
    both = {
        **{f"a.{key}": tensor for key, tensor in Official().state_dict().items()},
        **{f"b.{key}": tensor for key, tensor in CbamModule(32).state_dict().items()},
    }
    with pytest.raises(ValueError, match="'official' and 'timm'"):
        convert(both, source="timm")


def test_ours_without_a_description_is_to_be_told():
    module = randomise(CBAM(32, dialect="official"))
    state = module.state_dict()
    with pytest.raises(ValueError, match=r'Pass its options: \{"dialect": ..., "start"'):
        convert(state, target="official")
    converted = convert(state, target="official", options={"dialect": "official", "start": "paper"})
    theirs = Official().double().eval()
    theirs.load_state_dict(converted.state_dict)
    value = x()
    torch.testing.assert_close(theirs(value), module.double().eval()(value), **F64)
    told = {"start": "identity", "dialect": "official"}
    with pytest.raises(ValueError, match=r"cbam\(start='identity'\) .* are σ and not 2σ"):
        convert(state, target="official", options=told)
    with pytest.raises(ValueError, match='expected options with "start"'):
        convert(state, target="official", options={"dialect": "official"})
    with pytest.raises(ValueError, match="a whole CBAM of dialect 'timm' at '', but it has gates"):
        convert(state, target="official", options={"start": "paper", "dialect": "timm"})
    swapped = {"start": "paper", "dialect": "official", "order": "spatial-channel"}
    with pytest.raises(ValueError, match="order='spatial-channel'"):
        convert(state, target="official", options=swapped)


def test_the_random_numbers_of_the_caller_are_left_alone():
    state = Official().state_dict()
    before = torch.random.get_rng_state()
    convert(state)
    assert torch.equal(torch.random.get_rng_state(), before)
