"""One row: every variant on one x, checked, then timed forward and forward + backward."""

from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from whatwhere.bench.measure import agreement
from whatwhere.bench.measure.kernels import Kernels, our_kernels
from whatwhere.bench.measure.memory import peak_bytes
from whatwhere.bench.measure.timing import Call, Say, interleave
from whatwhere.bench.measure.variants import Inputs, Variant, build_variants, make_inputs
from whatwhere.bench.settings import PASSES, Pass, Row, Settings
from whatwhere.cost import training_memory


@dataclass
class _Checked:
    variants: list[Variant]
    absent: dict[str, str]
    kernels: Kernels | None = None
    errors: dict[str, dict[str, float]] = field(default_factory=dict)
    first_call: dict[str, dict[str, float]] = field(default_factory=dict)


def measure_row(row: Row, settings: Settings, say: Say) -> dict[str, Any]:
    """The record of a row: "measured", or "refused" where a variant does not compute CBAM."""
    torch.manual_seed(0)
    inputs = make_inputs(row)
    checked = _check(row, settings, inputs, say)
    wrong = agreement.disagreements(checked.errors, row.dtype)
    record: dict[str, Any] = {
        "shape": list(row.shape),
        "dtype": row.dtype,
        "layout": row.layout,
        "bytes": inputs.x.nbytes,
        "absent": checked.absent,
        "errors": checked.errors,
        "first_call_seconds": checked.first_call,
    }
    if wrong:
        return {**record, "status": "refused", "disagreements": wrong}
    record["memory"] = {v.name: _memory(v, inputs, say) for v in checked.variants}
    record["passes"] = {which: _timed(which, checked, inputs, settings, say) for which in PASSES}
    record["variants"] = {v.name: v.kind for v in checked.variants}
    return {**record, "status": "measured"}


def forward_call(variant: Variant, x: Tensor) -> Call:
    """A user's call in eval mode without gradients."""

    def call() -> object:
        with torch.no_grad():
            return variant.module(x)

    return call


def both_call(variant: Variant, x: Tensor, dy: Tensor) -> Call:
    """A user's forward and backward pass: gradients for x and for every parameter."""
    leaves = [x, *variant.module.parameters()]
    return lambda: torch.autograd.grad(variant.module(x), leaves, dy)


def _check(row: Row, settings: Settings, inputs: Inputs, say: Say) -> _Checked:
    """Run every variant once in each pass, which compiles it, and compare with the reference."""
    variants, absent = build_variants(row, settings, inputs)
    checked = _Checked([], absent)
    x = inputs.x.detach().requires_grad_()
    for norm in (False, True):
        group = [variant for variant in variants if variant.norm == norm]
        if not group:
            continue
        say("computing the reference")
        expected = agreement.expect(inputs.weights[norm], inputs.x, inputs.dy, row.dtype)
        names = inputs.weights[norm].names()
        for variant in group:
            say(f"{variant.name}: first call")
            try:
                errors, seconds = _first_calls(variant, x, inputs, names, expected)
            except torch._dynamo.exc.TorchDynamoException as error:
                if variant.kind != "compiled":
                    raise
                absent[variant.name] = f"not compiled: {str(error).splitlines()[0]}"
                continue
            checked.variants.append(variant)
            checked.errors[variant.name] = errors
            checked.first_call[variant.name] = seconds
        if not norm:
            _check_kernels(checked, inputs, names, expected)
    order = [variant.name for variant in variants]
    checked.variants.sort(key=lambda variant: order.index(variant.name))
    return checked


def _first_calls(
    variant: Variant, x: Tensor, inputs: Inputs, names: list[str], expected: agreement.Expected
) -> tuple[dict[str, float], dict[str, float]]:
    start = perf_counter()
    output: Any = forward_call(variant, inputs.x)()
    forward_seconds = perf_counter() - start
    errors = agreement.output_error(output, expected)
    variant.module.train()
    start = perf_counter()
    trained = agreement.trained_values(variant.module, x, inputs.dy, names)
    both_seconds = perf_counter() - start
    variant.module.eval()
    errors |= agreement.trained_errors(trained, expected)
    return errors, {"forward": forward_seconds, "both": both_seconds}


def _check_kernels(
    checked: _Checked, inputs: Inputs, names: list[str], expected: agreement.Expected
) -> None:
    kernels = our_kernels(inputs.x, inputs.dy, inputs.weights[False])
    if isinstance(kernels, str):
        checked.absent["our kernels"] = kernels
        return
    kernels.both()  # into the same outputs once more: what is checked is what is timed
    keys = ["output in training", "gradient of x", *(f"gradient of {name}" for name in names)]
    values = dict(zip(keys, [kernels.output, *kernels.gradients], strict=True))
    checked.errors["our kernels"] = agreement.trained_errors(values, expected)
    checked.kernels = kernels


def _memory(variant: Variant, inputs: Inputs, say: Say) -> dict[str, float]:
    """Multiples of the bytes of x: kept for the backward pass, and the peaks of both passes."""
    say(f"{variant.name}: memory")
    x = inputs.x.detach().requires_grad_()
    kept = training_memory(variant.module, x)
    forward = peak_bytes(forward_call(variant, inputs.x))
    variant.module.train()
    both = peak_bytes(both_call(variant, x, inputs.dy))
    variant.module.eval()
    size = inputs.x.nbytes
    return {"saved": kept / size, "forward": forward / size, "both": both / size}


def _timed(
    which: Pass, checked: _Checked, inputs: Inputs, settings: Settings, say: Say
) -> dict[str, Any]:
    """Quartiles of every variant's times in one pass."""
    y = torch.empty_like(inputs.x)

    def copy() -> object:
        return y.copy_(inputs.x)

    calls: dict[str, Call] = {"copy": copy}
    if which == "forward":
        calls |= {v.name: forward_call(v, inputs.x) for v in checked.variants}
    else:
        x = inputs.x.detach().requires_grad_()
        calls |= {v.name: both_call(v, x, inputs.dy) for v in checked.variants}
    if checked.kernels is not None:
        calls["our kernels"] = getattr(checked.kernels, which)
    for variant in checked.variants:
        variant.module.train(which == "both")
    timed = interleave(
        calls, settings, before=copy, say=lambda text: say(f"timing {which}: {text}")
    )
    return timed.as_dict()
