"""Planted faults: the checker must refuse each, or its silence about the kernels means nothing.

The results are plain PyTorch's, made wrong: by a wrong step in the computation, or afterwards.
"""

from types import SimpleNamespace

import pytest
import torch

from tests.ops import examples
from tests.ops.checker import OF_SAMPLES, Case, check, run
from tests.ops.examples import borders_are_whole, placed
from whatwhere.ops import raw, reference

SHAPE = (3, 21, 6, 9)
ALL = ("mean", "max", "std", "l2")
EVERYTHING = {"residual": True, "relu": True, "scales": (1.0, 2.0), "units": 5}
CASES = {
    "cbam": lambda **options: examples.cbam(SHAPE, **EVERYTHING, **options),
    "pool_positions": lambda **options: examples.pool_positions(SHAPE, statistics=ALL, **options),
    "pool_channels": lambda **options: examples.pool_channels(SHAPE, statistics=ALL, **options),
    "apply_gates": lambda **options: examples.apply_gates(
        SHAPE, residual=True, relu=True, **options
    ),
}


def assert_refused(case, results):
    check(case, run(raw, case))  # it is the fault that is refused, not the case
    assert complaint(case, results)


def complaint(case, results):
    """What the checker says of results; nothing if it finds no fault."""
    try:
        check(case, results)
    except AssertionError as error:
        return str(error)
    return ""


def _rounded(tensor):
    return tensor.bfloat16().to(tensor.dtype)


def _last_is(value):
    def fault(tensor):
        tensor = tensor.clone()
        tensor[(-1,) * tensor.ndim] = value
        return tensor

    return fault


# What may go wrong with any output, each by itself.
FAULTS = {
    "the last number is not written": _last_is(7.0),
    "the last number is NaN": _last_is(torch.nan),
    "a factor": lambda tensor: tensor * 1.0001,
    "a sum in half precision": _rounded,
    "an absent sign": torch.neg,
    "one number further": lambda tensor: tensor.flatten().roll(1).view_as(tensor),
    "another dtype": torch.Tensor.half,
    "another shape": lambda tensor: tensor.unsqueeze(0),
    "other strides": lambda tensor: torch.stack([tensor, tensor], -1)[..., 0],
    "absent": lambda tensor: tensor.new_empty(0),
    "samples mixed up": lambda tensor: tensor.roll(1, 0),
    "a sample for all": lambda tensor: tensor[:1].expand_as(tensor).contiguous(),
}


@pytest.mark.parametrize("op", CASES)
def test_a_fault_in_any_output(op):
    case = CASES[op]()
    results = run(raw, case)
    check(case, results)
    for name, tensor in results.items():
        for fault, plant in FAULTS.items():
            if "sample" in fault and name not in OF_SAMPLES:
                continue
            if tensor.numel() == 1 and "further" in fault:
                continue
            assert complaint(case, {**results, name: plant(tensor)}).startswith(f"{name}: "), fault


def test_another_memory_format():
    for make in CASES.values():
        case = make(layout="channels_last")
        results = run(raw, case)
        assert_refused(case, {**results, "dx": results["dx"].contiguous()})


# What a kernel may compute instead: the same operation of other arguments, or another one.
def changed(**changes):
    """``raw``, whose functions of these names are others."""
    return SimpleNamespace(**{**vars(raw), **changes})


def altered(tensors, alter):
    """Arguments by name, some of them changed; ``alter`` is what to, or makes it of them."""
    return {**tensors, **(alter(tensors) if callable(alter) else alter)}


PARAMETERS_AND_OPTIONS = ("w0", "b0", "w1", "b1", "wc", "bc", "channel", "spatial", "scale")
PARAMETERS_AND_OPTIONS += ("spatial_scale",)


def backward_with(alter):
    """A fault in the gradient alone."""
    names = ("dy", "x", "saved", *PARAMETERS_AND_OPTIONS, "y")

    def cbam_backward(*arguments):
        given = dict(zip(names, arguments, strict=True))
        return raw.cbam_backward(*altered(given, alter).values())

    return changed(cbam_backward=cbam_backward)


def forward_with(alter):
    """A fault in the result, from which the gradient is right."""
    names = ("x", *PARAMETERS_AND_OPTIONS, "residual", "relu")

    def cbam(*arguments):
        given = dict(zip(names, arguments, strict=True))
        return raw.cbam(*altered(given, alter).values())

    return changed(cbam=cbam)


WRONG_GRADIENTS = {
    "the ReLU forgotten": lambda a: {"y": a["y"].abs() + 1},
    "the ReLU of another sample": lambda a: {"y": a["y"].roll(1, 0)},
    "the convolution not turned": lambda a: {"wc": a["wc"].flip(-1, -2)},
    "the maps' weights swapped": lambda a: {"wc": a["wc"].flip(1)},
    "the channel gate's factor": {"scale": 2.0},
    "the spatial gate's factor": {"spatial_scale": 1.0},
    "no bias of the hidden units": lambda a: {"b0": torch.zeros_like(a["b0"])},
    "no bias of the logits": lambda a: {"b1": torch.zeros_like(a["b1"])},
    "no bias of the convolution": lambda a: {"bc": torch.zeros_like(a["bc"])},
    "no maximum over positions": {"channel": ["mean", "mean"]},
    "no maximum over channels": {"spatial": ["mean", "mean"]},
    "no mean over channels": {"spatial": ["max", "max"]},
    "another sample's x": lambda a: {"x": a["x"].roll(1, 0)},
}
WRONG_RESULTS = {
    "no residual": {"residual": None},
    "the residual twice": lambda a: {"residual": 2 * a["residual"]},
    "no ReLU": {"relu": False},
    "the bias of the logits once": lambda a: {"b1": a["b1"] / 2},
    "the spatial gate's factor": {"spatial_scale": 1.0},
    "the convolution turned": lambda a: {"wc": a["wc"].flip(-1)},
    "the maps swapped": lambda a: {"spatial": a["spatial"][::-1]},
    "the descriptors swapped": lambda a: {"channel": a["channel"][::-1]},
}


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("fault", WRONG_GRADIENTS)
def test_a_wrong_gradient(fault, layout):
    case = CASES["cbam"](layout=layout)
    assert_refused(case, run(backward_with(WRONG_GRADIENTS[fault]), case))


@pytest.mark.parametrize("fault", WRONG_RESULTS)
def test_a_wrong_result(fault):
    case = CASES["cbam"]()
    assert_refused(case, run(forward_with(WRONG_RESULTS[fault]), case))


def _instead(monkeypatch, statistic, formula):
    """The specification's results, one statistic of it computed by another formula."""
    right = reference._summary

    def summary(x, axes, name):
        return formula(x, axes) if name == statistic else right(x, axes, name)

    monkeypatch.setattr(reference, "_summary", summary)


def _last_maximum(x, axes):
    flipped = reference._first_maximum(x.flip(axes), axes)
    return flipped.to(reference.accumulation_dtype(x.dtype))


def _shared_maximum(x, axes):
    top = reference._first_maximum(x, axes).detach()
    owners = (x == top).to(top.dtype)
    return (x * owners).sum(axes, keepdim=True) / owners.sum(axes, keepdim=True)


WRONG_STATISTICS = {
    "ties go to the last": ("max", _last_maximum, "ties"),
    "ties are shared": ("max", _shared_maximum, "ties"),
    "a mean of one less": ("mean", lambda x, axes: x.narrow(axes[-1], 0, 5).mean(axes, True)),
    "the variance is biased": ("std", lambda x, axes: x.std(axes, correction=0, keepdim=True)),
    "no epsilon under the root": (
        "std",
        lambda x, axes: x.std(axes, keepdim=True),
        "small",
    ),
    "the norm without epsilon": ("l2", lambda x, axes: x.norm(dim=axes, keepdim=True), "small"),
    "a maximum of magnitudes": ("max", lambda x, axes: reference._first_maximum(x.abs(), axes)),
    "NaN passed over": (
        "max",
        lambda x, axes: reference._first_maximum(x.nan_to_num(-1e9), axes),
        "nan",
    ),
}


@pytest.mark.parametrize("fault", WRONG_STATISTICS)
@pytest.mark.parametrize("op", ["cbam", "pool_positions", "pool_channels"])
def test_a_wrong_statistic(op, fault, monkeypatch):
    statistic, formula, *values = WRONG_STATISTICS[fault]
    if op == "cbam" and statistic not in ("mean", "max"):
        return
    values = values[0] if values else "random"
    options = {"gated": False} if op == "pool_channels" else {}  # or no two products are equal
    case = CASES[op](values="random" if values == "nan" else values, **options)
    if values == "nan":
        if op != "pool_positions":
            return  # the mean of the same sample is NaN, and with it all the rest
        case.tensors["x"][1, 2, 3, 4] = torch.nan
    with monkeypatch.context() as patch:
        _instead(patch, statistic, formula)
        results = run(raw, case)
    assert_refused(case, results)


@pytest.mark.parametrize("name", ["dx", "dw0", "db0", "dw1", "dwc", "dbc", "y", "spatial_gate"])
def test_nan_that_is_swallowed(name):
    case = CASES["cbam"]()
    case.tensors["x"][1, 2, 3, 4] = torch.nan
    results = run(raw, case)
    assert_refused(case, {**results, name: results[name].nan_to_num(0.0)})


WRONG_CASES = {
    "no channel gate": ("pool_channels", {"channel_gate": torch.ones(3, 21)}),
    "another sample's gate": (
        "pool_channels",
        lambda t: {"channel_gate": t["channel_gate"].roll(1, 0)},
    ),
    "no spatial gate": ("apply_gates", {"spatial_gate": torch.ones(3, 54)}),
    "another sample's map": (
        "apply_gates",
        lambda t: {"spatial_gate": t["spatial_gate"].roll(1, 0)},
    ),
    "no residual": ("apply_gates", {"residual": None}),
}


@pytest.mark.parametrize("fault", WRONG_CASES)
def test_a_primitive_of_other_arguments(fault):
    op, alter = WRONG_CASES[fault]
    case = CASES[op]()
    wrong = Case(op, altered(case.tensors, alter), case.options)
    assert_refused(case, run(raw, wrong))


def test_writing_outside_is_seen():
    for layout in ("contiguous", "channels_last"):
        x = placed(torch.zeros(2, 3, 4, 5), layout)
        assert borders_are_whole(x)
        x._base[x.storage_offset() + x.numel()] = 1
        assert not borders_are_whole(x)
