"""Runs one raw operation, outputs and every gradient, and compares each number with float64.

The rule, element by element: |result - oracle| <= 2 · error of plain PyTorch in the same dtype
+ margin · eps · largest + half a unit in the last place of the result. The oracle is the
specification in float64, eps that of the dtype in which sums run. ``largest`` is the greatest value
of the oracle in the same sample of what has samples, of the whole tensor otherwise; the error of
plain PyTorch is its largest over the same elements. Both are there because rounding scales with the
terms of a sum, not with the sum: where terms cancel, plain PyTorch errs as well, or by luck does
not. The margin is 32, and 1024 in float64, where plain PyTorch is the oracle and has no error to go
by; what a wrong index, factor or missing term makes is far above both.
"""

import itertools
from dataclasses import dataclass, field, replace
from math import prod

import torch

from whatwhere.ops import raw, reference
from whatwhere.ops.reference import accumulation_dtype

MARGIN = {torch.float32: 32, torch.float64: 1024}
# Of these the first axis is the batch; all else are gradients of parameters.
OF_SAMPLES = {
    "y", "dx", "dresidual", "descriptors", "hidden", "channel_gate", "maps", "spatial_gate",
    "pooled", "dgate", "dchannel", "dspatial",
}  # fmt: skip
PARAMETERS = ("w0", "b0", "w1", "b1", "wc", "bc")


@dataclass(frozen=True)
class Case:
    """An operation with everything it takes: tensors by name, absent ones None."""

    op: str
    tensors: dict
    options: dict = field(default_factory=dict)

    def to(self, dtype):
        """The same values, wider: x in ``dtype`` and the rest in what it accumulates in."""
        tensors = {k: None if t is None else t.to(dtype) for k, t in self.tensors.items()}
        return replace(self, tensors=tensors)


def run(module, case, *, y=None):
    """Named outputs and gradients of a case; ``y`` decides the ReLU's mask, else the own output."""
    return RUNS[case.op](module, case.tensors, case.options, y)


def _pool_positions(module, t, options, _y):
    statistics = options["statistics"]
    pooled = module.pool_positions(t["x"], statistics)
    dx = module.pool_positions_backward(t["dpooled"], t["x"], pooled, statistics)
    return {"pooled": pooled, "dx": dx}


def _pool_channels(module, t, options, _y):
    statistics, gate = options["statistics"], t["channel_gate"]
    pooled = module.pool_channels(t["x"], gate, statistics)
    dx, dgate = module.pool_channels_backward(t["dpooled"], t["x"], gate, pooled, statistics)
    return {"pooled": pooled, "dx": dx, "dgate": dgate}


def _apply_gates(module, t, options, mask):
    gates = t["channel_gate"], t["spatial_gate"]
    y = module.apply_gates(t["x"], *gates, t["residual"], options["relu"])
    mask = (y if mask is None else mask) if options["relu"] else None
    gradients = module.apply_gates_backward(t["dy"], t["x"], *gates, mask)
    return {"y": y, **dict(zip(("dx", "dchannel", "dspatial"), gradients, strict=True))}


def _cbam(module, t, options, mask):
    parameters = [t[name] for name in PARAMETERS]
    chosen = tuple(options[name] for name in ("channel", "spatial", "scale", "spatial_scale"))
    y, saved = module.cbam(t["x"], *parameters, *chosen, t["residual"], options["relu"])
    mask = (y if mask is None else mask) if options["relu"] else None
    gradients = module.cbam_backward(t["dy"], t["x"], saved, *parameters, *chosen, mask)
    names = ("dx", *(f"d{name}" for name in PARAMETERS), "dresidual")
    return {"y": y, **_rows(saved, t, options), **dict(zip(names, gradients, strict=True))}


def _rows(saved, t, options):
    # What lies in a row of ``saved``, as the contract of the raw operation has it.
    n, channels = t["x"].shape[:2]
    units, positions = t["w0"].shape[0], prod(t["x"].shape[2:])
    depth, spatial = len(options["channel"]), len(options["spatial"])
    lengths = {
        "descriptors": depth * channels,
        "hidden": depth * units,
        "channel_gate": channels,
        "maps": spatial * positions,
        "spatial_gate": positions,
    }
    assert saved.shape == (n, sum(lengths.values()))
    assert saved.is_contiguous()
    return dict(zip(lengths, saved.split(list(lengths.values()), 1), strict=True))


RUNS = {
    "pool_positions": _pool_positions,
    "pool_channels": _pool_channels,
    "apply_gates": _apply_gates,
    "cbam": _cbam,
}


def check(case, results, *, names=None):
    """Raise AssertionError unless all results of a case, or those of some names, are right."""
    wide = accumulation_dtype(case.tensors["x"].dtype)
    # The gradient of a ReLU is judged by the output it was given: rounding may decide a sign.
    mask = results.get("y")
    assert mask is None or mask.shape == case.tensors["x"].shape, f"y: {mask.shape}"
    same = run(raw, case, y=mask)
    oracle = run(raw, case.to(torch.float64), y=None if mask is None else mask.double())
    assert results.keys() == same.keys()
    for name, expected in same.items():
        if names is not None and name not in names:
            continue
        result = results[name]
        assert result.dtype == expected.dtype, f"{name}: {result.dtype}, not {expected.dtype}"
        assert result.shape == expected.shape, f"{name}: {result.shape}, not {expected.shape}"
        assert result.stride() == expected.stride(), f"{name}: strides {result.stride()}"
        if result.numel():
            _close(name, result, expected, oracle[name], MARGIN[wide] * torch.finfo(wide).eps)
    _exact_maxima(case, results)


def _exact_maxima(case, results):
    # A maximum of x is one of its numbers: nothing is rounded.
    name = {"cbam": "descriptors", "pool_positions": "pooled"}.get(case.op)
    statistics = case.options.get("channel", case.options.get("statistics"))
    if name is None or "max" not in statistics:
        return
    x = case.tensors["x"]
    row = results[name].reshape(x.shape[0], len(statistics), x.shape[1])
    [expected] = reference.pool_positions(x, statistics=["max"])
    own = row[:, statistics.index("max")]
    assert torch.equal(own.nan_to_num(7.5), expected.flatten(1).nan_to_num(7.5)), "maxima"


def _close(name, result, same, oracle, floor):
    # Overflow and NaN: as plain PyTorch in this dtype has them, where float64 had room left.
    if name == "dwc" and not same.isfinite().all():
        # A tap that meets NaN only over the padding: convolutions of torch differ in 0 · NaN there.
        lost = result.isfinite() & ~same.isfinite()
        assert not lost.any(), f"{name}: finite at {_place(lost)}"
    else:
        for kind in (torch.isnan, torch.isposinf, torch.isneginf):
            differ = kind(result) != kind(same)
            assert not differ.any(), f"{name}: {kind.__name__} differs at {_place(differ)}"
    finite = same.isfinite() & oracle.isfinite() & result.isfinite()
    rows = len(result) if name in OF_SAMPLES else 1
    error, reached = ((r.double() - oracle).abs().where(finite, 0) for r in (result, same))
    size = oracle.abs().where(finite, 0)
    last = torch.finfo(result.dtype)
    bound = 2 * _largest(reached, rows) + floor * _largest(size, rows)
    bound = bound + 0.5 * last.eps * size + last.smallest_normal * last.eps
    wrong = error > bound
    if wrong.any():
        worst = (error / bound).argmax()
        place = tuple(int(i) for i in torch.unravel_index(worst, error.shape))
        raise AssertionError(
            f"{name}: {int(wrong.sum())} of {wrong.numel()} wrong; at {place} "
            f"{float(result[place])}, not {float(oracle[place])}: "
            f"error {float(error[place]):.3g}, at most {float(bound[place]):.3g}"
        )


def _largest(values, rows):
    largest = values.reshape(rows, -1).max(1).values
    return largest.reshape(rows, *(1,) * (values.ndim - 1))


def _place(where):
    return tuple(int(i) for i in where.nonzero()[0])


def decided(case):
    """Whether rounding can't decide which channel has a maximum: no two that almost agree."""
    t = case.to(torch.float64).tensors
    x = t["x"]
    if case.op == "cbam" and "max" in case.options["spatial"]:
        gate = run(raw, case.to(torch.float64))["channel_gate"]
    elif case.op == "pool_channels" and t["channel_gate"] is not None:
        gate = t["channel_gate"]
    else:
        return True
    if x.numel() == 0:
        return True
    product = (x.flatten(2) * gate[:, :, None]).nan_to_num(0)
    top = product.max(1, keepdim=True).values
    behind = (top - product) / top.abs().clamp_min(1e-300)
    return not ((behind > 0) & (behind < 2e-6)).any()


def first_decided(make):
    """The first case of ``make(seed)`` whose maxima are decided."""
    return next(case for case in map(make, itertools.count()) if decided(case))
