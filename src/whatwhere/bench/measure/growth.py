"""Time per byte of ours as one axis of x grows."""

from typing import Any

import torch

from whatwhere.bench.measure.row import both_call, forward_call
from whatwhere.bench.measure.timing import Call, Say, interleave
from whatwhere.bench.measure.variants import Variant, build_ours, make_inputs
from whatwhere.bench.settings import GrowthCase, Row, Settings


def measure_growth(case: GrowthCase, settings: Settings, say: Say) -> dict[str, Any]:
    """The record: per shape, quartiles of the seconds of both passes and of a copy."""
    points = []
    for shape in case.shapes:
        say("x".join(map(str, shape)))
        points.append(_point(shape, case, settings))
    return {
        "status": "measured",
        "axis": case.axis,
        "layout": case.layout,
        "points": points,
    }


def _point(shape: tuple[int, ...], case: GrowthCase, settings: Settings) -> dict[str, Any]:
    inputs = make_inputs(Row(shape, "float32", case.layout))
    module = build_ours(shape[1], ndim=len(shape) - 2, weights=inputs.weights[False])
    variant = Variant("ours", "ours", module)
    y = torch.empty_like(inputs.x)

    def copy() -> object:
        return y.copy_(inputs.x)

    x = inputs.x.detach().requires_grad_()
    calls: dict[str, Call] = {
        "copy": copy,
        "forward": forward_call(variant, inputs.x),
        "both": both_call(variant, x, inputs.dy),
    }
    timed = interleave(calls, settings, before=copy, say=lambda _text: None)
    return {"shape": list(shape), "bytes": inputs.x.nbytes, **timed.as_dict()}
