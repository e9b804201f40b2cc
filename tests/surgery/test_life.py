"""Gates in networks that others rebuild, average, trace and quantise: they run, or say why not."""

import copy
import warnings
from importlib import import_module

import pytest
import timm.layers
import torch
import torchvision
from timm.utils import ModelEmaV3
from torch import nn
from torch.ao import quantization
from torch.nn.utils import prune
from torch.optim.swa_utils import AveragedModel, get_ema_avg_fn, update_bn
from torchvision.models.feature_extraction import create_feature_extractor

from tests.cases import randomise
from whatwhere import attached, attend, detach, parameter_groups
from whatwhere.study.networks import SmallResNet

X = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
SITES = ["stages.0.0.bn2", "stages.1.0.bn2", "stages.1.1.bn2"]


def plain():
    return SmallResNet(5, in_channels=3, channels=(8, 16), blocks=(1, 2))


def gated(**options):
    model = plain()
    attend(model, "cbam", **options)
    return randomise(model).eval()


def gates_learn(model):
    model.zero_grad()
    model.train()(X).square().mean().backward()
    gates = [p for n, p in model.named_parameters() if ".attention." in n]
    return bool(gates) and all(p.grad is not None for p in gates)


@pytest.mark.parametrize(
    "convert", [nn.SyncBatchNorm.convert_sync_batchnorm, timm.layers.convert_sync_batchnorm]
)
def test_norms_that_are_converted_keep_their_gates(convert):
    model = gated()
    expected = model(X)
    gates = [model.get_submodule(name).attention for name in SITES]
    converted = convert(model)
    assert isinstance(converted.stages[0][0].bn2, nn.SyncBatchNorm)
    for each in (converted, copy.deepcopy(converted)):
        assert torch.equal(each.eval()(X), expected)
        assert [gate.site for gate in attached(each)] == SITES
    assert [converted.get_submodule(name).attention for name in SITES] == gates
    assert gates_learn(converted)
    assert len(detach(converted)) == 3
    assert not any(module._forward_hooks for module in converted.modules())


def test_a_module_that_is_given_a_gate_applies_it_once():
    model = gated(start="paper")
    gate = model.stages[0][0].bn2.attention
    model.stages[0][0].bn2 = nn.Identity()
    model.stages[0][0].bn2.attention = gate
    model.stages[0][0].bn2.attention = gate
    seen = []
    handle = gate.register_forward_hook(lambda *_: seen.append(1))
    model(X)
    handle.remove()
    assert seen == [1]
    other = nn.Identity()
    other.attention = nn.Conv2d(3, 3, 1)  # no gate of ours
    assert not other._forward_hooks


def test_averaged_copies_follow_the_gates():
    model = gated()
    averages = [
        AveragedModel(model, avg_fn=get_ema_avg_fn(0.5), use_buffers=True),
        ModelEmaV3(model, decay=0.5),
    ]
    start = copy.deepcopy(model.state_dict())
    gates_learn(model)
    optimizer = torch.optim.SGD(parameter_groups(model, 0.1, gate_lr=1.0))
    averages[0].update_parameters(model)  # the first is a copy
    optimizer.step()
    for average, update in zip(averages, ("update_parameters", "update"), strict=True):
        getattr(average, update)(model)
        for name, tensor in average.module.state_dict().items():
            if tensor.is_floating_point() and ".attention." in name:
                expected = (start[name] + model.state_dict()[name]) / 2
                torch.testing.assert_close(tensor, expected)
        assert attached(average.module) == attached(model)
    update_bn([X], averages[0])
    norm = averages[0].module.stages[1][0].bn2
    assert int(norm.num_batches_tracked) == 1


def test_sites_may_be_parametrised_and_pruned():
    model, x = gated(where="stages.*.conv2").double(), X.double()
    expected = model(x)
    sites = [gate.site for gate in attached(model)]
    assert sites == [name.replace("bn2", "conv2") for name in SITES]
    for name in sites:
        nn.utils.parametrizations.weight_norm(model.get_submodule(name))
    torch.testing.assert_close(model(x), expected)
    for name in sites:
        nn.utils.parametrize.remove_parametrizations(model.get_submodule(name), "weight")
        prune.identity(model.get_submodule(name), "weight")
    torch.testing.assert_close(model(x), expected)
    assert [gate.site for gate in attached(model)] == sites


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.filterwarnings("ignore:.torch.jit.trace")
@pytest.mark.parametrize(
    "trace", [torch.fx.symbolic_trace, lambda m: torch.jit.trace(m, X.double())]
)
@pytest.mark.parametrize("where", ["blocks", "stages.?.?"])
def test_traces_have_the_gates(trace, where):
    model = gated(where=where).double()
    traced, other = trace(model), torch.randn(3, 3, 24, 20, dtype=torch.float64)
    expected = model(other)
    torch.testing.assert_close(traced(other), expected)
    detach(model)
    assert not torch.allclose(model(other), expected)


def test_feature_extractors_of_torchvision_have_the_gates():
    model = randomise(torchvision.models.resnet18()).eval()
    attend(model, "cbam", where="layer?", start="paper")
    features = create_feature_extractor(model, ["layer4"])(X)["layer4"]
    torch.testing.assert_close(model.fc(model.avgpool(features).flatten(1)), model(X))


def test_layouts_and_dtypes_take_the_gates_along():
    model = gated()
    torch.testing.assert_close(
        copy.deepcopy(model).to(memory_format=torch.channels_last)(X), model(X)
    )
    assert model.double()(X.double()).dtype is torch.float64


def prepared(model, *, fuse=False):
    """Eager quantisation-aware preparation."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, and used
        model.train().qconfig = quantization.get_default_qat_qconfig("fbgemm")
        if fuse:
            pairs = [[name.replace("bn2", "conv2"), name] for name in SITES]
            model = quantization.fuse_modules_qat(model, pairs)
        return quantization.prepare_qat(model)


def test_quantisation_aware_preparation_keeps_the_gates_of_norms():
    model = gated(start="paper")
    expected = model(X)
    model = prepared(model)
    assert [gate.site for gate in attached(model)] == SITES
    assert gates_learn(copy.deepcopy(model))
    fake = import_module("torch.ao.quantization.fake_quantize")
    model.apply(fake.disable_fake_quant).apply(fake.disable_observer)
    torch.testing.assert_close(model.eval()(X), expected)


@pytest.mark.parametrize(
    ("where", "fuse", "kind"), [("blocks", True, "ConvBn2d"), ("stages.*.conv2", False, "Conv2d")]
)
def test_preparation_that_replaces_sites_is_an_error_not_a_silence(where, fuse, kind):
    model = prepared(gated(where=where), fuse=fuse)
    with pytest.raises(RuntimeError, match=rf"a {kind} took the place.*first, then attend"):
        model(X)


@pytest.mark.parametrize("fuse", [True, False])
def test_prepared_networks_can_be_attended(fuse):
    model = prepared(plain(), fuse=fuse)
    names = [name.replace("bn2", "conv2") if fuse else name for name in SITES]
    report = attend(model, "se", where=names, start="paper")
    assert len(report.sites) == 3
    assert gates_learn(model)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_graphs_of_fx_whose_norms_are_fused_can_be_attended():
    # Done the other way round, the gates of fused norms are gone: nothing of ours sees it.
    fuse = import_module("torch.fx.experimental.optimization").fuse
    prepare = import_module("torch.ao.quantization.quantize_fx").prepare_qat_fx
    assert attached(fuse(gated())) == ()
    mapping = quantization.get_default_qat_qconfig_mapping("fbgemm")
    for model in (fuse(randomise(plain()).eval()), prepare(plain().train(), mapping, (X,))):
        attend(model, "se", where=[name.replace("bn2", "conv2") for name in SITES], start="paper")
        assert len(attached(model)) == 3
        assert gates_learn(model)
