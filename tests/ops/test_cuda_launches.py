"""What the operations launch on a GPU: how many kernels, and nothing beside them.

Nothing is compiled or run: the launches alone are looked at.
"""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

pytest.importorskip("triton")

from triton.runtime.jit import JITFunction

from tests.ops.compiled import kinds
from whatwhere.ops import cuda
from whatwhere.ops.cuda import tiles

BOTH = ("mean", "max")
MAPS = [(64, 112), (256, 56), (512, 28), (1024, 14), (2048, 7)]
LAYOUTS = [torch.contiguous_format, torch.channels_last]
# The one thing that is asked of torch: memory. So nothing waits, and a CUDA graph holds all there
# is; what torch would compute would be launches more.
MEMORY = {"aten.empty.memory_format", "aten.empty_like.default", "aten.new_empty.default"}


class Watch(TorchDispatchMode):
    """The names of kernels launched and of torch's operators inside the block."""

    def __init__(self, monkeypatch):
        super().__init__()
        self.kernels, self.operators = [], []
        monkeypatch.setattr(JITFunction, "run", self.launched)

    @property
    def launched(self):
        def run(kernel, *_arguments, **_options):
            self.kernels.append(kernel.fn.__name__)

        return run

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.operators.append(str(function))
        return function(*args, **(kwargs or {}))


@pytest.fixture
def watch(monkeypatch):
    return Watch(monkeypatch)


def cbam_of(shape, layout=torch.contiguous_format, wc_layout=torch.contiguous_format):
    """x, what else the operation takes, and what its backward does."""
    x = torch.empty(shape).contiguous(memory_format=layout)
    channels, units = shape[1], shape[1] // 16
    wc = torch.empty(1, 2, 7, 7).contiguous(memory_format=wc_layout)
    w0, w1 = torch.empty(units, channels), torch.empty(channels, units)
    options = BOTH, BOTH, 1.0, 2.0
    return x, (w0, torch.empty(units), w1, torch.empty(channels), wc, torch.empty(1), *options)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("samples", [1, 3, 8])
@pytest.mark.parametrize(("channels", "size"), MAPS)
def test_a_small_batch_takes_few_launches(channels, size, samples, layout, watch):
    x, given = cbam_of((samples, channels, size, size), layout, layout)
    with watch:
        y, saved = cuda.cbam(x, *given, x, True)
    # Weights of more than 64 KiB are not for every program to read.
    network = "network" if channels <= 512 else "gate_of_parts"
    assert watch.kernels == ["pool_positions", network, "pool_channels", "convolve_and_apply"]
    assert set(watch.operators) <= MEMORY
    watch.kernels.clear()
    with watch:
        cuda.cbam_backward(y, x, saved, *given, y)
    assert watch.kernels == [
        *("sweep", "map_gradients", "weighted", "finish_sums", "hidden_gradient"),
        *("descriptor_gradient", "spread", "parameter_gradients"),
    ]
    assert set(watch.operators) <= MEMORY


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_many_weights_over_large_maps_leave_the_positions_shared_out(layout, watch):
    x, given = cbam_of((1, 1024, 56, 56), layout)
    with watch:
        cuda.cbam(x, *given, None, False)
    assert watch.kernels == [
        *("pool_positions", "finish_pooling", "hidden", "channel_gate"),
        *("pool_channels", "convolve_and_apply"),
    ]


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize(("channels", "size"), MAPS)
def test_a_large_batch_takes_hardly_more(channels, size, layout, watch):
    x, given = cbam_of((64, channels, size, size), layout)
    with watch:
        y, saved = cuda.cbam(x, *given, None, False)
        assert len(watch.kernels) <= 6
        cuda.cbam_backward(y, x, saved, *given, None)
    assert len(watch.kernels) <= 6 + 8
    assert set(watch.operators) <= MEMORY


def test_chunks_repeat_all_but_what_is_of_the_whole_batch(watch, monkeypatch):
    x, given = cbam_of((20, 64, 8, 8))
    room = 14 / 20 * x.nbytes / tiles.SHARE_OF_CACHE
    monkeypatch.setattr(tiles, "cache_bytes", lambda _device: room)
    with watch:
        y, saved = cuda.cbam(x, *given, x, True)
        forward = list(watch.kernels)
        cuda.cbam_backward(y, x, saved, *given, y)
    assert [forward.count(name) for name in sorted({*forward})] == [2] * 5
    backward = watch.kernels[len(forward) :]
    counts = {name: backward.count(name) for name in {*backward}}
    assert counts.pop("parameter_gradients") == 1
    assert set(counts.values()) == {3}
    assert set(watch.operators) <= MEMORY


@pytest.mark.parametrize(
    ("shape", "tensors", "expected"),
    [
        ((256, 256, 56, 56), 1, 8),  # 3.2 MB each, in 0.4 of 64 MiB
        ((256, 256, 56, 56), 2, 4),
        ((9, 256, 56, 56), 1, 5),  # even chunks: 5 and 4, not 8 and 1
        ((8, 256, 56, 56), 1, 8),
        ((4, 64, 512, 512), 1, 4),  # no sample fits: all at once
        ((0, 8, 4, 4), 1, 0),
    ],
)
def test_as_many_samples_as_fit_are_computed_together(shape, tensors, expected, monkeypatch):
    monkeypatch.setattr(tiles, "cache_bytes", lambda _device: 2**26)
    assert tiles.chunk_of(torch.empty(shape, device="meta"), tensors) == expected


def forwards_and_backwards(shape, layout):
    """Launch all of CBAM."""
    x, given = cbam_of(shape, layout)
    y, saved = cuda.cbam(x, *given, None, True)
    cuda.cbam_backward(y, x, saved, *given, y)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_a_network_at_any_batch_is_few_compilations(layout):
    """The five maps of a ResNet-50, each at any of 13 batches."""
    with kinds() as found:
        for channels, size in MAPS:
            for samples in (1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33):
                forwards_and_backwards((samples, channels, size, size), layout)
    assert len({name for name, _ in found}) == 16  # all of them
    assert len(found) <= 44


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_shapes_share_kernels(layout):
    """A new size is a new kernel where rows become whole vectors, or tiles another power of two."""
    with kinds() as found:
        for height in range(5, 60, 3):
            for samples in (1, 4, 20):
                forwards_and_backwards((samples, 96, height, height + 2), layout)
    assert len(found) <= 44
    with kinds() as more:
        for height in range(70, 130, 7):
            for samples in (1, 4, 20):
                forwards_and_backwards((samples, 96, height, height + 2), layout)
    assert len(more) <= 36


def test_chunks_are_no_other_kernels(monkeypatch):
    """Not even where chunks begin at addresses that are no multiple of 16 bytes."""
    with kinds() as whole:
        forwards_and_backwards((20, 65, 7, 5), torch.contiguous_format)
    room = 14 * 65 * 7 * 5 * 4 / tiles.SHARE_OF_CACHE
    monkeypatch.setattr(tiles, "cache_bytes", lambda _device: room)
    with kinds() as found:
        forwards_and_backwards((20, 65, 7, 5), torch.contiguous_format)
    assert found <= whole
