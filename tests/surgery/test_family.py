"""Every gate of the family in a network: attached, unchanged, trained, watched, taken out."""

import copy

import pytest
import torch

from whatwhere import attached, attend, build, detach, diagnose, names, record
from whatwhere.gates import needed_options
from whatwhere.gates.family import CLIPS, FRAMES
from whatwhere.study.networks import SmallResNet

NO_IDENTITY = {"ge", "simam", "ema"}


def network(name, ndim=None):
    if ndim is None:
        ndim = 3 if name in CLIPS | FRAMES else 2
    torch.manual_seed(0)
    model = SmallResNet(3, in_channels=2, ndim=ndim, channels=(8, 16), blocks=(1, 1)).eval()
    # As large as makes the maps of the last block more than one position.
    return model, torch.randn(4, 2, *(3, 9, 10)[-ndim:])


def ranks():
    for name in names():
        for ndim in (1, 2, 3):
            needed = {"frames": 3, "resolution": 5}
            sizes = {option: needed[option] for option in needed_options(name)}
            try:
                build(name, 8, ndim=ndim, **sizes)
            except ValueError:
                continue
            yield name, ndim


def test_most_gates_have_three_ranks():
    found = list(ranks())
    assert len(found) >= 3 * len(names()) - 2 * len(CLIPS) - len(FRAMES) - 1


@pytest.mark.parametrize(("name", "ndim"), list(ranks()))
def test_it_goes_into_a_network_and_out_again(name, ndim):
    model, x = network(name, ndim)
    before, keys = model(x), list(model.state_dict())
    start = "paper" if name in NO_IDENTITY else "identity"
    report = attend(model, name, example=x, start=start)
    assert len(report.sites) == len(attached(model)) == 2
    if start == "identity":
        assert torch.equal(model(x), before)
    else:
        assert not torch.equal(model(x), before)
    model.train()(x).square().sum().backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
    assert torch.equal(copy.deepcopy(model).eval()(x), model.eval()(x))
    detach(model)
    assert list(model.state_dict()) == keys


@pytest.mark.parametrize("name", names())
def test_its_gates_are_recorded_and_diagnosed(name):
    model, x = network(name)
    attend(model, name, example=x, start="paper")
    with record(model) as gates:
        expected = model(x)
    assert gates
    for site, calls in gates.items():
        assert calls[0].shape[0] == 4, site
    found = diagnose(model, [(x, torch.tensor([0, 1, 2, 0]))])
    assert {gate.site for gate in found} == set(gates)
    assert torch.equal(model(x), expected)


@pytest.mark.parametrize("name", names())
def test_it_compiles_and_exports(name):
    model, x = network(name)
    attend(model, name, example=x, start="paper")
    with torch.no_grad():
        expected = model(x)
        torch.compiler.reset()  # what it compiled for other gates counts against its limit
        compiled = torch.compile(copy.deepcopy(model), fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(x), expected)
        exported = torch.export.export(model, (x,)).module()
        torch.testing.assert_close(exported(x), expected)


def test_those_without_an_identity_say_so():
    for name in NO_IDENTITY:
        model, x = network(name)
        with pytest.raises(ValueError, match='expected start="paper"'):
            attend(model, name, example=x)
        assert attached(model) == ()


def test_sizes_come_from_the_site():
    model, x = network("ge_theta")
    attend(model, "ge_theta", example=x)
    assert [gate.options["resolution"] for gate in attached(model)] == [(5, 5), (3, 3)]
    with pytest.raises(ValueError, match=r"maps of \(5, 5\), as large as its kernel"):
        model(torch.randn(1, 2, 20, 20))
    clips, x = network("ma")
    attend(clips, "ma", example=x)
    assert [gate.options["frames"] for gate in attached(clips)] == [3, 3]


def sites_resolution(model):
    return {2: (5, 5), 3: (3, 5, 5)}[len(model.stem[0].kernel_size)]


@pytest.mark.parametrize("name", names())
def test_in_half_precision_and_under_autocast_only_the_output_is_rounded(name):
    model, x = network(name)
    attend(model, name, example=x, start="paper")
    gate = model.get_submodule("stages.0.0.bn2.attention")
    features = torch.randn(2, 8, *sites_resolution(model))
    wanted = gate(features.bfloat16().float())
    with torch.autocast("cpu", torch.bfloat16):
        found = gate(features.bfloat16())
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), wanted, rtol=2**-7, atol=1e-3)
    assert gate.bfloat16()(features.bfloat16()).dtype == torch.bfloat16
