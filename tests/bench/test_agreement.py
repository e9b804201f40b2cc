"""The check that stands before every speed-up: it passes what is right and catches what is not."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from whatwhere.bench.measure import agreement, kernels, networks, peers
from whatwhere.bench.measure.row import measure_row
from whatwhere.bench.measure.specification import Specification, Weights
from whatwhere.bench.measure.variants import make_inputs
from whatwhere.bench.settings import NetworkCase, Row, Settings
from whatwhere.ops import cpu

ROWS = [
    Row((2, 32, 8, 8), "float32", "contiguous"),
    Row((2, 32, 8, 8), "bfloat16", "channels_last"),
    Row((2, 16, 3, 5, 5), "float32", "channels_last"),
    Row((2, 16, 12), "bfloat16", "contiguous"),
]
QUICK = Settings(compiled=(), seconds=0, least_rounds=1, most_rounds=1)


def silent(_text):
    """Nobody watches the progress of a test."""


@pytest.mark.parametrize("case", ROWS, ids=lambda case: case.name)
def test_ours_and_every_peer_compute_cbam(case):
    record = measure_row(case, QUICK, silent)
    assert record["status"] == "measured"
    expected = {"ours", "our kernels", "seed", "amax"}
    if len(case.shape) == 4:
        expected.add("timm")
    assert set(record["errors"]) == expected
    for name, errors in record["errors"].items():
        assert {"gradient of x", "output in training"} <= errors.keys()
        assert ("output" in errors) == (name != "our kernels")


class Wrong(nn.Module):
    """A peer with a fault."""

    def __init__(self, right, fault):
        super().__init__()
        self.right = right
        self.fault = fault

    def forward(self, x):
        y = self.right(x)
        if self.fault == "one element of the output":
            bump = torch.zeros_like(y)
            bump[(-1,) * y.ndim] = 1.0
            return y + bump
        if self.fault == "gradient of x only half":
            return y.detach() + (y - y.detach()) / 2
        if self.fault == "NaN":
            return torch.where(y == y.max(), torch.nan, y)
        assert self.fault == "wrong in training only"
        return 1.5 * y if self.training else y


@pytest.mark.parametrize(
    ("fault", "value"),
    [
        ("one element of the output", "output"),
        ("gradient of x only half", "gradient of x"),
        ("NaN", "output"),
        ("wrong in training only", "output in training"),
    ],
)
@pytest.mark.parametrize("case", ROWS, ids=lambda case: case.name)
def test_a_wrong_peer_is_refused_and_named(case, fault, value, monkeypatch):
    build = peers.build_peer

    def build_wrong(peer, *args, **kwargs):
        right = build(peer, *args, **kwargs)
        return Wrong(right, fault) if peer == "amax" else right

    monkeypatch.setattr("whatwhere.bench.measure.variants.build_peer", build_wrong)
    record = measure_row(case, QUICK, silent)
    assert record["status"] == "refused"
    assert "passes" not in record
    assert {wrong["variant"] for wrong in record["disagreements"]} == {"amax"}
    assert value in {wrong["value"] for wrong in record["disagreements"]}
    assert all(wrong["error"] > wrong["allowed"] for wrong in record["disagreements"])


@pytest.mark.parametrize("name", ["reduce", "expand", "conv"])
def test_a_wrong_gradient_of_a_parameter_is_seen(name):
    case = ROWS[0]
    inputs = make_inputs(case)
    weights = inputs.weights[False]
    expected = agreement.expect(weights, inputs.x, inputs.dy, case.dtype)
    got = {key: value.clone() for key, value in expected.trained.items()}
    assert agreement.disagreements({"v": agreement.trained_errors(got, expected)}, case.dtype) == []
    got[f"gradient of {name}"].view(-1)[0] *= 1.1
    found = agreement.disagreements({"v": agreement.trained_errors(got, expected)}, case.dtype)
    assert [wrong["value"] for wrong in found] == [f"gradient of {name}"]


def test_a_gradient_that_misses_what_flows_through_the_gates_is_seen():
    case = ROWS[0]
    inputs = make_inputs(case)
    expected = agreement.expect(inputs.weights[False], inputs.x, inputs.dy, case.dtype)
    gate = expected.output / inputs.x
    got = {**expected.trained, "gradient of x": inputs.dy * gate}
    found = agreement.disagreements({"v": agreement.trained_errors(got, expected)}, case.dtype)
    assert [wrong["value"] for wrong in found] == ["gradient of x"]


@pytest.mark.parametrize("error", [agreement.norm_error, agreement.worst_error])
def test_a_gradient_of_0_must_be_0(error):
    zeros = torch.zeros(3)
    assert error(zeros, zeros) == 0
    assert error(torch.tensor([0.0, 1e-30, 0.0]), zeros) > 0.9
    assert error(torch.tensor([0.0, torch.nan, 0.0]), zeros) == torch.inf


def test_rounding_decides_only_about_elements_at_a_maximum():
    case = ROWS[0]
    inputs = make_inputs(case)
    expected = agreement.expect(inputs.weights[False], inputs.x, inputs.dy, case.dtype)
    planes = inputs.x.flatten(2)
    at_maximum = (planes == planes.max(-1, keepdim=True).values).reshape(inputs.x.shape)
    assert expected.contested[at_maximum].all()
    assert expected.contested.double().mean() < 0.1


def test_an_x_of_equal_values_can_not_be_compared():
    case = ROWS[0]
    inputs = make_inputs(case)
    with pytest.raises(ValueError, match="expected most elements of x to be off its maxima"):
        agreement.expect(inputs.weights[False], torch.ones_like(inputs.x), inputs.dy, case.dtype)


def test_the_specification_is_the_equation():
    weights = Weights.random(4, ndim=1, norm=False, seed=1)
    x = torch.randn(2, 4, 9, dtype=torch.float64)
    hidden = [
        torch.relu(pooled @ weights.reduce.double().T)
        for pooled in (x.sum(-1) / 9, x.sort(-1).values[..., -1])
    ]
    gated = x * torch.sigmoid((hidden[0] + hidden[1]) @ weights.expand.double().T)[..., None]
    maps = torch.stack([gated.sum(1) / 4, gated.sort(1).values[:, -1]], 1)
    padded = torch.nn.functional.pad(maps, (3, 3))
    logits = sum(
        weights.conv.double()[0, d, k] * padded[:, d, k : k + 9] for d in (0, 1) for k in range(7)
    )
    expected = gated * torch.sigmoid(logits)[:, None]
    torch.testing.assert_close(Specification(weights).double()(x), expected)


@pytest.mark.parametrize("fault", [False, True])
def test_kernels_alone_are_checked(fault, monkeypatch):
    def backward(*arguments, out=None):
        dx, *others = cpu.cbam_backward(*arguments, out=out)
        return (dx.mul_(2) if fault else dx, *others)

    found = SimpleNamespace(cbam=cpu.cbam, cbam_backward=backward)
    monkeypatch.setattr(kernels, "_module", lambda _x: found)
    record = measure_row(ROWS[0], QUICK, silent)
    if fault:
        assert {wrong["variant"] for wrong in record["disagreements"]} == {"our kernels"}
    else:
        assert "our kernels" in record["passes"]["forward"]["times"]
        assert "our kernels" in record["passes"]["both"]["times"]


@pytest.mark.parametrize("broken", [None, "ours", "ours fused", "seed", "timm"])
def test_networks_are_compared_too(broken):
    case = NetworkCase("resnet18", 2, 64)
    torch.manual_seed(0)
    plain = networks._backbone(case)
    built = networks.build_networks(plain, Settings())
    assert len(built) == 6
    if broken is not None:
        conv = [p for name, p in built[broken].named_parameters() if ".attention." in name][-3]
        with torch.no_grad():
            conv.mul_(1.5)
    images, labels = torch.randn(2, 3, 64, 64), torch.tensor([1, 2])
    wrong = networks._disagreements(plain, built, images, labels)
    assert {each["variant"] for each in wrong} == (set() if broken is None else {broken})
