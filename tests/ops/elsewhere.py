"""What tests run in other processes and threads: a training step of CBAM, told by its bits."""

import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import torch

from whatwhere import implementation, ops

ROOT = Path(__file__).parents[2]


def run_python(code, *, timeout=60, **environment):
    """What a new interpreter prints, and its errors; it fails the test if it fails, or hangs."""
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", **environment},
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        # With its children, which hold its output open.
        os.killpg(process.pid, signal.SIGKILL)
        output, errors = process.communicate()
        raise AssertionError(f"hangs: {output}{errors}") from None
    assert process.returncode == 0, output + errors
    return output, errors


def arguments(dtype=torch.float32, samples=5):
    """x and the parameters of ``ops.cbam``, always the same."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape, dtype=torch.float32):
        return torch.randn(shape, generator=generator).to(dtype)

    # Too small for torch to share its own operations out: in a forked process these would hang.
    x = random(samples, 24, 10, 18, dtype=dtype)
    wide = ops.accumulation_dtype(dtype)
    weights = {"reduce_weight": (4, 24), "expand_weight": (24, 4), "conv_weight": (1, 2, 7, 7)}
    return x, {name: random(*shape, dtype=wide) / 3 for name, shape in weights.items()}


def forward_bits(dtype=torch.float32, samples=5):
    """The output's bits, from the kernels."""
    x, weights = arguments(dtype, samples)
    with torch.no_grad(), implementation("cpu"):
        return _bits(ops.cbam(x, **weights))


def training_bits(dtype=torch.float32, samples=5):
    """The bits of the output and of every gradient, from the kernels."""
    x, weights = arguments(dtype, samples)
    given = [t.requires_grad_() for t in (x, *weights.values())]
    with implementation("cpu"):
        y = ops.cbam(x, **weights)
        return _bits(y.detach(), *torch.autograd.grad(y, given, x.detach()))


def _bits(*tensors):
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()


def in_child(function):
    """What ``function`` returns, a string, in a forked process."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.write(writer, function().encode())
            code = 0
        finally:
            os._exit(code)
    os.close(writer)
    with os.fdopen(reader) as stream:
        result = stream.read()
    assert os.waitpid(child, 0)[1] == 0
    return result


class Steps(torch.utils.data.Dataset):
    """Training steps as a data set, to be run by its workers."""

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return training_bits()
