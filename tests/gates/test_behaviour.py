"""What gates do at the edges: gradients, dtypes, autocast, degenerate sizes, bad arguments."""

import pytest
import torch

from tests.cases import randomise
from whatwhere import (
    CBAM,
    ChannelAttention,
    Gate,
    Par,
    Seq,
    SpatialAttention,
    TemporalAttention,
    build,
)
from whatwhere.gates import DenseMix, PositionConv

CASES = [
    ("channel", 2, {"reduction_ratio": 2}),
    ("se", 1, {"reduction_ratio": 2}),
    ("spatial", 2, {"kernel_size": 3}),
    ("spatial", 3, {"kernel_size": 3}),
    ("temporal", 3, {}),
    ("temporal", 1, {"form": "dense", "frames": 4}),
    ("cbam", 2, {"reduction_ratio": 2, "kernel_size": 3}),
    ("cbam", 2, {"kernel_size": 3, "order": "channel+spatial"}),
    ("cbam", 2, {"kernel_size": 3, "dialect": "official"}),
    ("cbam", 3, {"kernel_size": 3, "order": "channel-spatial-temporal", "frames": 4}),
]
SIZES = {1: (4,), 2: (3, 4), 3: (4, 3, 2)}


def case_id(case):
    return "-".join(str(part) for part in (case[0], case[1], *case[2].values()))


@pytest.fixture(params=CASES, ids=case_id)
def gate_and_shape(request):
    name, ndim, options = request.param
    return randomise(build(name, 5, ndim=ndim, **options)), (2, 5, *SIZES[ndim])


def test_gradients_are_right(gate_and_shape):
    gate, shape = gate_and_shape
    gate = gate.double()
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    state = {name: p.detach().requires_grad_() for name, p in gate.named_parameters()}
    gate.eval()  # gradcheck calls often; running statistics must not move in between

    def call(x, *values):
        return torch.func.functional_call(gate, dict(zip(state, values, strict=True)), (x,))

    assert torch.autograd.gradcheck(call, (x, *state.values()))


def test_every_sample_is_gated_by_itself(gate_and_shape):
    gate, shape = gate_and_shape
    gate.eval()
    x = torch.randn(4, *shape[1:])
    alone = torch.cat([gate(sample) for sample in x.split(1)])
    torch.testing.assert_close(gate(x), alone)


def test_an_empty_batch_stays_empty(gate_and_shape):
    gate, shape = gate_and_shape
    x = torch.zeros(0, *shape[1:])
    assert gate.eval()(x).shape == x.shape


def test_gates_lie_between_zero_and_one(gate_and_shape):
    gate, shape = gate_and_shape
    values = gate.eval().gate(10 * torch.randn(shape))
    assert values.min() >= 0
    assert values.max() <= 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_networks_keep_their_dtype(gate_and_shape, dtype):
    gate, shape = gate_and_shape
    gate.eval()
    x = torch.randn(shape).to(dtype)
    expected = gate.to(dtype).double()(x.double())
    y = gate.to(dtype)(x)
    assert y.dtype == dtype
    torch.testing.assert_close(y.double(), expected, rtol=3e-2, atol=1e-2)


def test_under_autocast_gates_are_computed_in_the_parameters_dtype(gate_and_shape):
    gate, shape = gate_and_shape
    gate.eval()
    x = torch.randn(shape).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        y = gate(x)
    assert y.dtype == torch.bfloat16
    # Rounded where gates are applied, and nowhere inside: as exact as bfloat16 can be.
    torch.testing.assert_close(y.float(), gate(x.float()), rtol=3 * 2**-8, atol=1e-6)


def test_identity_start_returns_x_bit_for_bit(gate_and_shape, request):
    name, ndim, options = request.node.callspec.params["gate_and_shape"]
    gate = build(name, 5, ndim=ndim, start="identity", **options)
    x = torch.randn(2, 5, *SIZES[ndim])
    for training in (True, False):
        assert torch.equal(gate.train(training)(x), x)
    gate.train()(x).pow(2).sum().backward()
    moving = [n for n, p in gate.named_parameters() if p.grad is not None and p.grad.any()]
    assert moving, "an identity start from which nothing can move"


def test_dynamic_shapes_are_not_frozen(gate_and_shape):
    gate, shape = gate_and_shape
    gate.eval()
    fixed = 1 if any(m.axis == 2 for m in gate.modules() if isinstance(m, DenseMix)) else 0
    torch._dynamo.reset()
    compiled = torch.compile(gate, fullgraph=True, dynamic=True, backend="aot_eager")
    for scale in (1, 2, 3):  # the dense temporal form has a fixed number of frames
        positions = [s if i < fixed else scale * s for i, s in enumerate(shape[2:])]
        x = torch.randn(scale, shape[1], *positions)
        torch.testing.assert_close(compiled(x), gate(x))


def test_ties_send_the_gradient_to_the_first_maximum():
    gate = randomise(ChannelAttention(4, statistics=["max"], reduction_ratio=1)).double()
    x = torch.ones(1, 4, 2, 2, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(gate.gate(x).sum(), x)
    assert gradient[0, :, 0, 0].abs().min() > 0
    assert not gradient[0].flatten(1)[:, 1:].any()


def test_nan_stays_in_its_sample():
    x = torch.randn(2, 16, 4, 4)
    x[1, 3, 2, 2] = torch.nan
    y = CBAM(16)(x)
    assert not y[0].isnan().any()
    assert y[1].isnan().all()


def test_fewer_channels_than_the_reduction_ratio_leave_one_hidden_unit():
    gate = ChannelAttention(8, reduction_ratio=16)
    assert gate.mix.reduce.weight.shape == (1, 8)
    a, b = torch.rand(2, 8, 1, 1).split(1)
    randomise(gate).mix.reduce.weight.data.abs_()
    assert not torch.equal(gate.gate(a), gate.gate(b))


def test_a_batch_norm_gate_trains_on_one_sample():
    gate = CBAM(8, dialect="official").train()
    gate(torch.randn(1, 8, 4, 4)).sum().backward()


def test_gates_run_on_meta_tensors(gate_and_shape):
    gate, shape = gate_and_shape
    assert gate.to("meta")(torch.empty(shape, device="meta")).shape == shape


def test_large_half_precision_values_do_not_overflow_inside_the_gate():
    gate = CBAM(512, start="identity").half()
    gate.gates.channel.mix.reduce.weight.data.fill_(1.0)
    x = torch.full((1, 512, 2, 2), 60_000.0, dtype=torch.float16)
    assert torch.equal(gate(x), x)


def test_frames_as_channels_are_gated_by_channel_attention():
    clip = torch.randn(2, 12, 9, 9)
    gate = randomise(ChannelAttention(12, reduction_ratio=2))
    frame_weights = gate.gate(clip)
    torch.testing.assert_close(gate(clip)[:, 5], clip[:, 5] * frame_weights[:, 5])


BAD = [
    (lambda: ChannelAttention(0), r"ChannelAttention: expected channels .* >= 1, got 0"),
    (lambda: ChannelAttention(8, reduction_ratio=0), r"reduction_ratio .* got 0"),
    (lambda: ChannelAttention(8, statistics=["avg"]), r"'mean', 'max', 'std', 'l2', got 'avg'"),
    (lambda: ChannelAttention(8, statistics="mean"), r"distinct names, got 'mean'"),
    (lambda: ChannelAttention(8, statistics=["max", "max"]), r"distinct names"),
    (lambda: SpatialAttention(kernel_size=8), r"kernel_size to be odd.*got 8"),
    (lambda: SpatialAttention(kernel_size=(3, 3, 3)), r"2 kernel sizes.*got \(3, 3, 3\)"),
    (lambda: SpatialAttention(ndim=4), r"ndim to be one of 1, 2, 3, got 4"),
    (lambda: TemporalAttention(form="mlp"), r"'dense', 'conv', got 'mlp'"),
    (lambda: TemporalAttention(form="dense"), r"expected frames"),
    (lambda: TemporalAttention(frames=4), r'no frames with form="conv"'),
    (lambda: TemporalAttention(form="dense", frames=4, kernel_size=3), r"no kernel_size"),
    (lambda: CBAM(8, dialect="torch"), r"'mmyolo', 'external', got 'torch'"),
    (lambda: CBAM(8, order="spatial-depth"), r"'temporal', got 'depth'"),
    (lambda: CBAM(8, order="channel-channel"), r"distinct names"),
    (lambda: CBAM(8, order="channel-spatial+temporal", ndim=3), r"not both"),
    (lambda: CBAM(8, order="temporal"), r"ndim 1 or 3 with a temporal part, got ndim=2"),
    (lambda: CBAM(8, frames=3), r"frames only with a temporal part"),
    (lambda: CBAM(8, start="zero"), r"'paper', 'identity', got 'zero'"),
    (Seq, r"at least one gate"),
    (lambda: Seq(a=torch.nn.ReLU()), r"expected gates, with a method gate"),
    (lambda: Par(join="outputs", a=ChannelAttention(8)), r"'sum', 'max', got 'outputs'"),
    (lambda: Par(join="logits", a=ChannelAttention(8)), r'activation="identity", got a='),
    (
        lambda: Par(join="gates", start="identity", a=ChannelAttention(8)),
        r'only with join="logits"',
    ),
    (lambda: build("sseq", 8), r"'tam', got 'sseq'"),
    (lambda: build("cbam", 8, ratio=4), r"cbam takes the options .*; got 'ratio'"),
    (lambda: build("se", 8, statistics=["max"]), r"got 'statistics'"),
    (lambda: build("temporal", 8, ndim=2), r"no frame axis"),
    (
        lambda: Gate(keep="X", statistics=["mean"], mix=DenseMix(4, hidden=1)),
        r"letters, of C, T, H and W .* got 'X'",
    ),
    (lambda: PositionConv(2, ndim=1, kernel_size=0), r">= 1, got 0"),
    (lambda: ChannelAttention(8)(torch.zeros(2, 8)), r"\(N, C, L\) or .* got \(2, 8\)"),
    (lambda: ChannelAttention(8)(torch.zeros(2, 6, 3)), r"8 channels on axis 1 of x, got 6"),
    (lambda: ChannelAttention(8)(torch.zeros(2, 8, 3).long()), r"floating-point .* torch.int64"),
    (lambda: SpatialAttention()(torch.zeros(2, 8, 3)), r"\(N, C, H, W\), got \(2, 8, 3\)"),
    (lambda: TemporalAttention()(torch.zeros(2, 8, 3, 3)), r"\(N, C, T, H, W\), got"),
    (
        lambda: TemporalAttention(form="dense", frames=4)(torch.zeros(2, 8, 5)),
        r"4 frames on axis 2 of x, got 5",
    ),
    (lambda: SpatialAttention()(torch.zeros(2, 0, 3, 3)), r"at least one element"),
    (lambda: SpatialAttention()(torch.zeros(2, 8, 0, 3)), r"every axis but N, got \(2, 8, 0, 3\)"),
    (lambda: TemporalAttention()(torch.zeros(0, 8, 0)), r"every axis but N"),
    (lambda: ChannelAttention(8)([1.0]), r"expected x to be a tensor, got list"),
    (
        lambda: ChannelAttention(8)(torch.zeros(1, 8, 3, dtype=torch.float64)),
        r"parameters' dtype torch.float32, .* got torch.float64",
    ),
    (lambda: SpatialAttention(kernel_size=7.0), r">= 1, got 7.0"),
    (lambda: CBAM(8, order=5), r"order as in 'channel-spatial', got 5"),
    (lambda: Seq(gate=ChannelAttention(8)), r"names that modules don't use, got 'gate'"),
    (
        lambda: Gate(keep="S", statistics=["mean"], mix=DenseMix(4, hidden=1)),
        r'expected keep="C" with a DenseMix of axis 1',
    ),
    (
        lambda: Gate(keep="T", statistics=["mean"], mix=PositionConv(1, ndim=2, kernel_size=3)),
        r'expected keep="S" with a PositionConv over these axes, got keep=\'T\'',
    ),
    (
        lambda: Gate(keep="S", statistics=["mean"], mix=PositionConv(2, ndim=2, kernel_size=3)),
        r"expected 2 statistics, the convolution's input channels, got 1",
    ),
    (lambda: SpatialAttention(ndim=1)(torch.zeros(1, 2, 3, 3, 3)), r"\(N, C, L\), got"),
]


@pytest.mark.parametrize(("call", "message"), BAD, ids=[message for _, message in BAD])
def test_bad_arguments_say_what_was_expected_and_what_came(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_names_build_a_gate_of_every_rank_it_has():
    for name in ("cbam", "channel", "spatial", "temporal", "se"):
        for ndim in (1, 3) if name == "temporal" else (1, 2, 3):
            x = torch.randn(2, 6, *(4,) * ndim)
            gate = build(name, 6, ndim=ndim)
            torch.testing.assert_close(gate(x), x * gate.gate(x))
