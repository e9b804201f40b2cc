"""Gates by groups of channels, and by large kernels for each channel."""

from typing import Literal

from whatwhere.checks import check_choice
from whatwhere.gates.algebra import Gate, Mix, Start
from whatwhere.gates.apart import CrossSpatial
from whatwhere.gates.axes import POSITIONS
from whatwhere.gates.describe import Similarity
from whatwhere.gates.family.sizes import largest_divisor
from whatwhere.gates.layers import Affine, Chain, Conv, Linear, Repeat
from whatwhere.gates.norms import GroupNorm, Standardise
from whatwhere.gates.parallel import Split

# kernel size -> that of the first convolution, of the dilated one, and its dilation
LARGE = {7: (3, 3, 2), 11: (3, 5, 2), 23: (5, 7, 3), 35: (5, 11, 3), 41: (5, 13, 3), 53: (5, 17, 3)}


def sge(channels: int, *, groups: int = 64, start: Start = "paper") -> Gate:
    """Spatial Group-wise Enhance: σ(w_g t̂ + b_g) with t = Σ_c x_c mean(x_c), standardised.

    ``groups`` of channels, or the largest divisor of C below that, each with a map of its own.
    Source: arXiv 1905.09646; implus/PytorchInsight@2864528: w = 0 and b = 1 at the start. On 1×1
    maps that code gives NaN, here t̂ is 0.
    Elsewhere: External-Attention starts with b = 0.
    """
    groups = largest_divisor(channels, groups)
    return Gate(
        keep="CS",
        statistics=Similarity(channels, groups=groups),
        mix=Chain(
            standard=Standardise(),
            enhance=Affine(groups, weight=0.0, shift=1.0),
            repeat=Repeat(channels // groups),
        ),
        start=start,
    )


def shuffle(
    channels: int, *, groups: int = 64, shuffle: bool | None = None, start: Start = "paper"
) -> Split:
    """Shuffle Attention: in every group one half gated by σ(w mean + b), one by σ(w' IN(x) + b').

    IN is an instance norm with a weight and a bias; all weights are shared by the groups, of which
    there are ``groups`` or as many as two halves each allow. Then the channels are shuffled, the
    halves of C in turn, unless ``shuffle=False``, as it is from the identity.
    Source: arXiv 2102.00240; wofmanaf/SA-Net@00a6760: w = 0, b = 1 at the start.
    Elsewhere: External-Attention's default is 8 groups.
    """
    if channels % 2:
        raise ValueError(f"shuffle: expected channels that halve, got {channels}")
    if shuffle is True and start == "identity":
        raise ValueError(
            'shuffle: expected shuffle=False with start="identity", which leaves x as it is, got '
            "shuffle=True"
        )
    groups = largest_divisor(channels // 2, groups)
    half = channels // 2
    return Split(
        channels,
        groups=groups,
        shuffle=start == "paper" if shuffle is None else shuffle,
        channel=Gate(
            keep="C",
            statistics=["mean"],
            mix=Affine(half, repeats=groups, weight=0.0, shift=1.0),
            start=start,
        ),
        spatial=Gate(
            keep="CS",
            statistics=["identity"],
            mix=Chain(
                norm=GroupNorm(half, groups=half, affine=False),
                norm_affine=Affine(half, repeats=groups),
                affine=Affine(half, repeats=groups, weight=0.0, shift=1.0),
            ),
            start=start,
        ),
    )


def ema(channels: int, *, groups: int = 32, ndim: int = 2, start: Start = "paper") -> Gate:
    """Efficient Multi-scale Attention: σ of maps that two branches weigh for one another.

    ``groups`` of channels, or the largest divisor of C below that, with a map each. Not a sentence
    of the algebra: ``CrossSpatial`` has the equation.
    Source: arXiv 2305.13563; YOLOonMe/EMA-attention-module@afc37ec.
    """
    if start == "identity":
        raise ValueError(
            'ema: expected start="paper", got "identity": its maps are weighted by a softmax and '
            "have no last layer that could be 0"
        )
    groups = largest_divisor(channels, groups)
    return Gate(
        keep="CS",
        statistics=CrossSpatial(channels, groups=groups, ndim=ndim),
        mix=Repeat(channels // groups),
    )


def lka(channels: int, *, ndim: int = 2, start: Start = "paper") -> Gate:
    """Large Kernel Attention: x · (W d(c(x))), c 5×5 and d 7×7 dilated by 3, each by channel.

    The gate is not squashed. All layers have biases.
    Source: arXiv 2202.09741; as the two-kernel case of StevenLauHKHK@bb2a8d2.
    """
    return Gate(
        keep="CS",
        statistics=["identity"],
        mix=Chain(
            near=_by_channel(channels, (5,) * ndim, 1),
            far=_by_channel(channels, (7,) * ndim, 3),
            point=Linear(channels, channels),
        ),
        activation="identity",
        start=start,
    )


def lska(
    channels: int,
    *,
    kernel_size: Literal[7, 11, 23, 35, 41, 53] = 23,
    ndim: int = 2,
    start: Start = "paper",
) -> Gate:
    """Large Separable Kernel Attention: LKA with every kernel as one along each axis, W first.

    Source: arXiv 2309.01439; StevenLauHKHK/Large-Separable-Kernel-Attention@bb2a8d2.
    """
    check_choice("lska", "kernel_size", kernel_size, tuple(LARGE))
    near, far, dilation = LARGE[kernel_size]
    steps: dict[str, Mix] = {}
    for name, size, spread in (("near", near, 1), ("far", far, dilation)):
        for axis in reversed(range(ndim)):
            sizes = tuple(size if axis == each else 1 for each in range(ndim))
            steps[f"{name}_{POSITIONS[ndim + 2][axis]}"] = _by_channel(channels, sizes, spread)
    return Gate(
        keep="CS",
        statistics=["identity"],
        mix=Chain(**steps, point=Linear(channels, channels)),
        activation="identity",
        start=start,
    )


def _by_channel(channels: int, kernel_size: tuple[int, ...], dilation: int) -> Conv:
    return Conv(
        channels,
        channels,
        over="S",
        kernel_size=kernel_size,
        dilation=dilation,
        groups=channels,
        bias=True,
    )
