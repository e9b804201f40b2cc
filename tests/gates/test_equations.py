"""Every gate against its equation, written out in numpy-like torch, and against timm."""

import pytest
import torch
import torch.nn.functional as F
from timm.layers.cbam import CbamModule

from tests.cases import SHAPES, layouts, randomise
from whatwhere import CBAM, ChannelAttention, SpatialAttention, TemporalAttention, build, convert
from whatwhere.gates import DIALECTS

F64 = {"rtol": 1e-12, "atol": 1e-12}
CONVOLVE = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


def shared_mlp(descriptor, mix):
    hidden = descriptor @ mix.reduce.weight.T
    if mix.reduce.bias is not None:
        hidden = hidden + mix.reduce.bias
    out = hidden.clamp(min=0) @ mix.expand.weight.T
    return out if mix.expand.bias is None else out + mix.expand.bias


def channel_equation(x, gate):
    rows = x.reshape(x.shape[0], x.shape[1], -1)
    logits = shared_mlp(rows.mean(2), gate.mix) + shared_mlp(rows.max(2).values, gate.mix)
    return logits.sigmoid().reshape(*x.shape[:2], *(1,) * (x.ndim - 2))


def spatial_equation(x, gate):
    maps = torch.stack([x.mean(1), x.max(1).values], dim=1)
    padding = [size // 2 for size in gate.mix.conv.weight.shape[2:]]
    return CONVOLVE[x.ndim - 2](maps, gate.mix.conv.weight, padding=padding).sigmoid()


def frames_of(x):
    return x.transpose(1, 2).flatten(2)  # (N, T, everything else)


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_channel_attention_is_its_equation(ndim):
    for shape in SHAPES[ndim]:
        gate = randomise(ChannelAttention(shape[1], reduction_ratio=2).double())
        x = torch.randn(shape, dtype=torch.float64)
        expected = channel_equation(x, gate) if shape[0] else x.new_zeros(0, 8, *(1,) * ndim)
        for _, view in layouts(x):
            torch.testing.assert_close(gate.gate(view), expected, **F64)
            torch.testing.assert_close(gate(view), x * expected, **F64)


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_spatial_attention_is_its_equation(ndim):
    for shape in SHAPES[ndim]:
        gate = randomise(SpatialAttention(ndim=ndim, kernel_size=3).double())
        x = torch.randn(shape, dtype=torch.float64)
        expected = spatial_equation(x, gate)
        for _, view in layouts(x):
            torch.testing.assert_close(gate.gate(view), expected, **F64)
            torch.testing.assert_close(gate(view), x * expected, **F64)


def test_spatial_attention_with_one_kernel_size_per_axis_gates_each_frame_by_itself():
    clips = randomise(SpatialAttention(ndim=3, kernel_size=(1, 7, 7)).double())
    images = SpatialAttention(ndim=2).double()
    images.mix.conv.weight.data = clips.mix.conv.weight.data.squeeze(2)
    x = torch.randn(2, 4, 3, 9, 8, dtype=torch.float64)
    for frame in range(3):
        torch.testing.assert_close(clips.gate(x)[:, :, frame], images.gate(x[:, :, frame]), **F64)


@pytest.mark.parametrize("shape", [(2, 8, 6), (2, 4, 6, 5, 3)])
def test_temporal_attention_dense_is_its_equation(shape):
    gate = randomise(TemporalAttention(form="dense", frames=6).double())
    x = torch.randn(shape, dtype=torch.float64)
    frames = frames_of(x)
    logits = shared_mlp(frames.mean(2), gate.mix) + shared_mlp(frames.max(2).values, gate.mix)
    expected = logits.sigmoid().reshape(2, 1, 6, *(1,) * (x.ndim - 3))
    torch.testing.assert_close(gate.gate(x), expected, **F64)
    torch.testing.assert_close(gate(x), x * expected, **F64)


@pytest.mark.parametrize("shape", [(2, 8, 6), (2, 4, 6, 5, 3), (1, 4, 1, 1, 1)])
def test_temporal_attention_conv_is_its_equation(shape):
    gate = randomise(TemporalAttention().double())
    x = torch.randn(shape, dtype=torch.float64)
    frames = frames_of(x)
    maps = torch.stack([frames.mean(2), frames.max(2).values], dim=1)
    logits = F.conv1d(maps, gate.mix.conv.weight, padding=1)
    expected = logits.sigmoid().reshape(shape[0], 1, shape[2], *(1,) * (x.ndim - 3))
    torch.testing.assert_close(gate.gate(x), expected, **F64)


def test_squeeze_and_excitation_is_its_equation():
    gate = randomise(build("se", 8, reduction_ratio=2).double())
    x = torch.randn(2, 8, 5, 4, dtype=torch.float64)
    expected = shared_mlp(x.mean((2, 3)), gate.mix).sigmoid()[:, :, None, None]
    torch.testing.assert_close(gate(x), x * expected, **F64)


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_cbam_is_channel_then_spatial(ndim):
    shape = SHAPES[ndim][0]
    cbam = randomise(CBAM(shape[1], reduction_ratio=2, kernel_size=3, ndim=ndim).double())
    x = torch.randn(shape, dtype=torch.float64)
    refined = x * channel_equation(x, cbam.gates.channel)
    expected = refined * spatial_equation(refined, cbam.gates.spatial)
    torch.testing.assert_close(cbam(x), expected, **F64)
    torch.testing.assert_close(x * cbam.gate(x), expected, **F64)


def test_cbam_orders():
    x = torch.randn(2, 8, 4, 5, 5, dtype=torch.float64)
    cbam = randomise(CBAM(8, ndim=3, kernel_size=3, order="temporal-spatial-channel").double())
    parts = cbam.gates
    torch.testing.assert_close(cbam(x), parts.channel(parts.spatial(parts.temporal(x))), **F64)


def test_parallel_cbam_adds_logits_before_one_sigmoid():
    x = torch.randn(2, 8, 5, 5, dtype=torch.float64)
    cbam = randomise(CBAM(8, reduction_ratio=2, kernel_size=3, order="channel+spatial").double())
    channel = channel_equation(x, cbam.gates.channel).logit()
    spatial = spatial_equation(x, cbam.gates.spatial).logit()
    torch.testing.assert_close(cbam(x), x * (channel + spatial).sigmoid(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("channels", [8, 24, 40, 64])
@pytest.mark.parametrize("training", [False, True])
def test_timm_dialect_equals_timm_in_outputs_and_gradients(channels, training):
    theirs = randomise(CbamModule(channels)).double().train(training)
    ours = CBAM(channels, dialect="timm").double().train(training)
    ours.load_state_dict(convert(theirs.state_dict(), source="timm").state_dict)
    x = torch.randn(3, channels, 9, 6, dtype=torch.float64)  # no ties, where gradients differ
    weights = torch.randn_like(x)
    results = []
    for module in (theirs, ours):
        leaf = x.clone().requires_grad_()
        y = module(leaf)
        (y * weights).sum().backward()
        results.append((y, leaf.grad, {n: p.grad for n, p in module.named_parameters()}))
    (y, grad, grads), (our_y, our_grad, our_grads) = results
    torch.testing.assert_close(our_y, y, **F64)
    torch.testing.assert_close(our_grad, grad, rtol=1e-10, atol=1e-10)
    expected = convert({**theirs.state_dict(), **grads}, source="timm").state_dict
    for name, gradient in our_grads.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-10, atol=1e-10)


class OfficialCBAM(torch.nn.Module):
    """The authors' module in its own terms: two descriptors, biases, [max, mean], batch norm."""

    def __init__(self, channels, hidden):
        super().__init__()
        self.ChannelGate = torch.nn.Module()
        self.ChannelGate.mlp = torch.nn.Sequential(
            torch.nn.Flatten(),
            torch.nn.Linear(channels, hidden),
            torch.nn.ReLU(),
            torch.nn.Linear(hidden, channels),
        )
        self.SpatialGate = torch.nn.Module()
        self.SpatialGate.spatial = torch.nn.Module()
        self.SpatialGate.spatial.conv = torch.nn.Conv2d(2, 1, 7, padding=3, bias=False)
        self.SpatialGate.spatial.bn = torch.nn.BatchNorm2d(1, momentum=0.01)

    def forward(self, x):
        size = x.shape[2:]
        mlp = self.ChannelGate.mlp
        logits = mlp(F.avg_pool2d(x, size)) + mlp(F.max_pool2d(x, size))
        x = x * logits.sigmoid()[:, :, None, None]
        maps = torch.cat([x.max(1, keepdim=True).values, x.mean(1, keepdim=True)], 1)
        spatial = self.SpatialGate.spatial
        return x * spatial.bn(spatial.conv(maps)).sigmoid()


@pytest.mark.parametrize("training", [False, True])
def test_official_dialect_equals_the_authors_module(training):
    theirs = randomise(OfficialCBAM(32, 2)).double().train(training)
    ours = CBAM(32, dialect="official").double().train(training)
    ours.load_state_dict(convert(theirs.state_dict(), source="official").state_dict)
    x = torch.randn(3, 32, 9, 6, dtype=torch.float64)
    torch.testing.assert_close(ours(x), theirs(x), **F64)
    torch.testing.assert_close(
        ours.gates.spatial.mix.norm.running_mean, theirs.SpatialGate.spatial.bn.running_mean
    )


def test_official_dialect_starts_as_the_authors_network_starts_it():
    spatial = CBAM(32, dialect="official").eval().gates.spatial
    assert torch.equal(spatial.gate(torch.randn(1, 32, 5, 5)), torch.full((1, 1, 5, 5), 0.5))


def test_dialects_are_different_functions():
    x = torch.randn(2, 24, 6, 6)
    outputs = [randomise(CBAM(24, dialect=dialect)).eval()(x) for dialect in DIALECTS]
    counts = {d: sum(p.numel() for p in CBAM(24, dialect=d).parameters()) for d in DIALECTS}
    assert counts == {
        "paper": 24 * 2 + 98,
        "official": 24 * 2 + 25 + 98 + 2,
        "timm": 24 * 4 + 98 + 2,
        "pytorchcv": 24 * 2 + 25 + 98 + 2,
        "mmyolo": 24 * 2 + 25 + 98 + 1,
        "external": 24 * 2 + 98 + 1,
    }
    assert not torch.allclose(outputs[0], outputs[1])


def test_the_external_dialect_adds_x():
    cbam = randomise(CBAM(24, dialect="external", kernel_size=9).double())
    x = torch.randn(2, 24, 6, 5, dtype=torch.float64)
    refined = cbam.gates.spatial(cbam.gates.channel(x))
    torch.testing.assert_close(cbam(x), x + refined, **F64)
    torch.testing.assert_close(cbam(x), x * cbam.gate(x), **F64)
    with pytest.raises(ValueError, match=r"dialect='external', which adds x to what it gates"):
        CBAM(24, dialect="external", start="identity")
    with pytest.raises(ValueError, match=r"got order='channel\+spatial'"):
        CBAM(24, dialect="external", order="channel+spatial")
