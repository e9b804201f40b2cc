"""Whether a variant computes CBAM: outputs and every gradient against the float64 reference.

The error of an output, or of the gradient of x, is |got − reference| / (|reference| +
rms(reference)) at the worst element. Elements of x that equal a maximum to within the dtype's
rounding are left out of the comparison of its gradient, since there rounding decides which of them
has the gradient. The error of a parameter's gradient is ‖got − reference‖ / ‖reference‖: in half
precision a hidden unit near 0 falls on either side of its ReLU, and takes single elements with it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from whatwhere.bench.measure.specification import Specification, Weights
from whatwhere.bench.settings import DtypeName

# Of elements, and of norms. Peers that compute in the dtype itself come to 0.2 of these in float32
# and to 0.4 in bfloat16, whose gates are rounded to 8 bits before their gradients cancel.
ALLOWED: dict[DtypeName, tuple[float, float]] = {"float32": (1e-4, 1e-4), "bfloat16": (0.1, 0.3)}
ROUNDING: dict[DtypeName, float] = {"float32": 1e-5, "bfloat16": 2**-6}
LEAST_COMPARED = 0.5
ELEMENTWISE = ("output", "output in training", "gradient of x")


@dataclass(frozen=True)
class Expected:
    """What the reference gives: in eval mode the output, in training output and gradients."""

    output: Tensor
    trained: dict[str, Tensor]
    contested: Tensor


def expect(weights: Weights, x: Tensor, dy: Tensor, dtype: DtypeName) -> Expected:
    """The reference's values for the x that the variants get.

    Raises:
        ValueError: most elements of x are within rounding of a maximum, so that hardly any of its
            gradient could be compared.
    """
    specification = Specification(weights).double()
    x = x.detach().double().contiguous()
    with torch.no_grad():
        output = specification.eval()(x)
        gated = x * specification.channel_gate(x)
        contested = _near_maximum(x.flatten(2), -1, dtype).reshape(x.shape)
        contested |= _near_maximum(gated, 1, dtype)
        del gated
    compared = 1 - contested.double().mean().item()
    if compared < LEAST_COMPARED:
        raise ValueError(
            f"bench: expected most elements of x to be off its maxima, got {compared:.0%} in "
            f"shape {tuple(x.shape)}"
        )
    x.requires_grad_()
    trained = trained_values(specification.train(), x, dy.double(), weights.names())
    return Expected(output, trained, contested)


def trained_values(module: nn.Module, x: Tensor, dy: Tensor, names: list[str]) -> dict[str, Tensor]:
    """Output and gradients of a training step, by name."""
    y = module(x)
    gradients = torch.autograd.grad(y, [x, *module.parameters()], dy)
    keys = ["output in training", "gradient of x", *(f"gradient of {name}" for name in names)]
    return dict(zip(keys, [y.detach(), *gradients], strict=True))


def output_error(got: Tensor, expected: Expected) -> dict[str, float]:
    """The worst error of an output in eval mode."""
    return {"output": worst_error(got, expected.output)}


def trained_errors(got: Mapping[str, Tensor], expected: Expected) -> dict[str, float]:
    """The worst error of each value of a training step."""
    errors = {}
    for name, reference in expected.trained.items():
        values = got[name].reshape(reference.shape)
        if name in ELEMENTWISE:
            without = expected.contested if name == "gradient of x" else None
            errors[name] = worst_error(values, reference, without=without)
        else:
            errors[name] = norm_error(values, reference)
    return errors


def worst_error(got: Tensor, reference: Tensor, *, without: Tensor | None = None) -> float:
    """The largest |got − reference| / (|reference| + rms(reference)); infinite where got is NaN.

    >>> worst_error(torch.tensor([1.0, 3.0]), torch.tensor([1.0, 1.0]))
    1.0
    >>> worst_error(torch.tensor([1.0, float("nan")]), torch.tensor([1.0, 1.0]))
    inf
    """
    rms = reference.double().pow(2).mean().sqrt()
    difference = (got.double() - reference).abs()
    error = (difference / (reference.abs() + rms)).masked_fill(difference == 0, 0)  # of 0 / 0 too
    if without is not None:
        error = error.masked_fill(without, 0)
    worst = error.max().item()
    return math.inf if math.isnan(worst) else worst


def norm_error(got: Tensor, reference: Tensor) -> float:
    """‖got − reference‖ / ‖reference‖; infinite where got is NaN.

    >>> norm_error(torch.tensor([3.0, 3.0]), torch.tensor([3.0, 4.0]))
    0.2
    """
    reference = reference.double()
    difference = torch.dist(got.double(), reference)
    if difference == 0:
        return 0.0  # of a reference that is 0 too, as where the only hidden unit is off
    error = (difference / reference.norm()).item()
    return math.inf if math.isnan(error) else error


def disagreements(
    errors: Mapping[str, Mapping[str, float]], dtype: DtypeName
) -> list[dict[str, str | float]]:
    """What is wrong by more than is allowed: which variant, which value, by how much.

    >>> disagreements({"ours": {"output": 0.5}, "seed": {"output": 1e-7}}, "float32")
    [{'variant': 'ours', 'value': 'output', 'error': 0.5, 'allowed': 0.0001}]
    """
    elements, norms = ALLOWED[dtype]
    found: list[dict[str, str | float]] = []
    for variant, each in errors.items():
        for value, error in each.items():
            allowed = elements if value in ELEMENTWISE else norms
            if not error <= allowed:
                found.append(
                    {"variant": variant, "value": value, "error": error, "allowed": allowed}
                )
    return found


def _near_maximum(values: Tensor, axis: int, dtype: DtypeName) -> Tensor:
    largest = values.max(axis, keepdim=True).values
    return values >= largest - ROUNDING[dtype] * largest.abs()
