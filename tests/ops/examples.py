"""Cases of every raw operation: shapes, layouts, options, and values that are easy to get wrong."""

from itertools import permutations, product
from math import prod

import torch

from tests.ops.checker import Case, first_decided
from whatwhere.ops.reference import accumulation_dtype

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
SHAPES = [
    *[(2, 8, 13), (1, 3, 1), (0, 8, 5), (5, 17, 31), (2, 6, 2050)],
    *[(2, 8, 7, 5), (1, 3, 1, 1), (0, 8, 4, 4), (3, 17, 1, 11), (7, 13, 11, 13)],
    *[(1, 10, 53, 41), (1, 512, 7, 7), (9, 130, 3, 2)],
    *[(2, 8, 3, 5, 4), (1, 3, 1, 1, 1), (0, 8, 2, 3, 3), (3, 19, 5, 7, 3)],
]
# Of the whole op each gate has some of the first two; the primitives have four.
TWO = [("mean", "max"), ("max", "mean"), ("mean",), ("max",)]
STATISTICS = [*TWO, *permutations(("mean", "max", "std"), 2), ("std",), ("l2",)]
STATISTICS.append(("l2", "std", "max", "mean"))
LAST = {4: torch.channels_last, 5: torch.channels_last_3d}
BORDER = 5  # odd, so that nothing is aligned


def _sparse(shape, generator):
    x = torch.randn(shape, generator=generator, dtype=torch.float64).relu()
    x[:, ::3] = 0  # dead channels
    return x


def _scaled(scale):
    return lambda shape, g: scale * torch.randn(shape, generator=g, dtype=torch.float64)


VALUES = {
    "random": _scaled(1),
    "ties": lambda shape, g: torch.randint(-2, 3, shape, generator=g).double(),
    "constant planes": lambda shape, g: (
        torch.randn((*shape[:2], *(1,) * len(shape[2:])), generator=g).double().expand(shape)
    ),
    "zeros after a ReLU": _sparse,
    "zero": _scaled(0),
    "large": _scaled(1e3),
    "small": _scaled(1e-6),
}
# Weights make up for them: saturated gates have gradients that are rounding alone.
SCALES = {"large": 1e3, "small": 1e-6}


def layouts(shape):
    """The layouts that kernels know for x of a shape."""
    return ["contiguous", "channels_last"] if len(shape) > 3 else ["contiguous"]


def placed(tensor, layout="contiguous"):
    """The same values in the middle of NaN, which whoever reads too far will meet."""
    if layout == "channels_last":
        tensor = tensor.contiguous(memory_format=LAST[tensor.ndim])
    else:
        tensor = tensor.contiguous()
    base = torch.full((tensor.numel() + 2 * BORDER,), torch.nan, dtype=tensor.dtype)
    return base.as_strided(tensor.shape, tensor.stride(), BORDER).copy_(tensor)


def borders_are_whole(tensor):
    """Whether all around a ``placed`` tensor is still NaN."""
    base = tensor._base
    return bool(base[:BORDER].isnan().all() and base[-BORDER:].isnan().all())


class Maker:
    """Draws tensors of one case."""

    def __init__(self, shape, dtype, layout, values, seed):
        self.shape, self.dtype, self.layout = shape, dtype, layout
        self.generator = torch.Generator().manual_seed(seed)
        self.values = VALUES[values]

    def like_x(self, values=VALUES["random"]):
        return placed(values(self.shape, self.generator).to(self.dtype), self.layout)

    def x(self):
        return self.like_x(self.values)

    def random(self, *shape, dtype=None, scale=1.0):
        dtype = accumulation_dtype(self.dtype) if dtype is None else dtype
        return placed((scale * VALUES["random"](shape, self.generator)).to(dtype))

    def gate(self, *shape):
        return placed(self.random(*shape).sigmoid())


def cbam(
    shape,
    *,
    dtype=torch.float32,
    layout="contiguous",
    values="random",
    parameters=None,
    units=3,
    kernel=3,
    channel=("mean", "max"),
    spatial=("mean", "max"),
    scales=(1.0, 1.0),
    biased=True,
    residual=False,
    relu=False,
):
    """A case of the whole op; ``kernel`` is one size or one per axis, ``parameters`` a dtype."""
    kernel = (kernel,) * len(shape[2:]) if isinstance(kernel, int) else kernel
    wide = accumulation_dtype(dtype) if parameters is None else parameters
    channels = shape[1]
    taps, scale_of_x = len(spatial) * prod(kernel), SCALES.get(values, 1.0)

    def make(seed):
        maker = Maker(shape, dtype, layout, values, seed)

        def weights(*size, fan, wanted=True):
            return maker.random(*size, dtype=wide, scale=fan**-0.5) if wanted else None

        tensors = {
            "x": maker.x(),
            "dy": maker.like_x(),
            "residual": maker.like_x() if residual else None,
            "w0": weights(units, channels, fan=channels * scale_of_x**2),
            "b0": weights(units, fan=4, wanted=biased),
            "w1": weights(channels, units, fan=units),
            "b1": weights(channels, fan=4, wanted=biased),
            "wc": weights(1, len(spatial), *kernel, fan=taps * scale_of_x**2),
            "bc": weights(1, fan=4, wanted=biased),
        }
        scale, spatial_scale = scales
        options = {"scale": scale, "spatial_scale": spatial_scale, "relu": relu}
        return Case("cbam", tensors, {"channel": channel, "spatial": spatial, **options})

    return first_decided(make)


def pool_positions(shape, *, statistics, dtype=torch.float32, layout="contiguous", values="random"):
    """A case of pooling over positions."""
    maker = Maker(shape, dtype, layout, values, 0)
    grad = maker.random(shape[0], len(statistics), shape[1])
    return Case("pool_positions", {"x": maker.x(), "dpooled": grad}, {"statistics": statistics})


def pool_channels(
    shape,
    *,
    statistics,
    gated=True,
    dtype=torch.float32,
    layout="contiguous",
    values="random",
):
    """A case of pooling over channels."""

    def make(seed):
        maker = Maker(shape, dtype, layout, values, seed)
        tensors = {
            "x": maker.x(),
            "channel_gate": maker.gate(*shape[:2]) if gated else None,
            "dpooled": maker.random(shape[0], len(statistics), prod(shape[2:])),
        }
        return Case("pool_channels", tensors, {"statistics": statistics})

    return first_decided(make)


def apply_gates(
    shape,
    *,
    gates=("channel", "spatial"),
    residual=False,
    relu=False,
    dtype=torch.float32,
    layout="contiguous",
    values="random",
):
    """A case of multiplying by gates."""
    maker = Maker(shape, dtype, layout, values, 0)
    tensors = {
        "x": maker.x(),
        "dy": maker.like_x(),
        "channel_gate": maker.gate(*shape[:2]) if "channel" in gates else None,
        "spatial_gate": (maker.gate(shape[0], prod(shape[2:])) if "spatial" in gates else None),
        "residual": maker.like_x() if residual else None,
    }
    return Case("apply_gates", tensors, {"relu": relu})


def every_primitive(shape, **common):
    """Cases of the three primitives with every option, all of one shape, dtype, layout, values."""
    for statistics in STATISTICS:
        yield pool_positions(shape, statistics=statistics, **common)
        for gated in (False, True):
            yield pool_channels(shape, statistics=statistics, gated=gated, **common)
    for gates in (("channel",), ("spatial",), ("channel", "spatial"), ()):
        for residual, relu in product((False, True), repeat=2):
            yield apply_gates(shape, gates=gates, residual=residual, relu=relu, **common)
