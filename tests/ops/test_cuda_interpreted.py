"""The kernels for NVIDIA GPUs, run by Triton's interpreter in processes of their own.

Whether kernels are interpreted is decided when Triton is imported, so these tests can't share a
process with the others. The checks are in ``interpreted``; those of ``test_dispatch`` run there
once more.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")

ROOT = Path(__file__).parents[2]
PARTS = {
    "primitives": ["tests/ops/interpreted/of_primitives.py"],
    "cbam": ["tests/ops/interpreted/of_cbam.py"],
    "public": ["tests/ops/interpreted/of_public.py", "tests/ops/interpreted/of_benchmark.py"],
    # But for those in float64, which is the specification's on GPUs.
    "dispatch": ["tests/ops/test_dispatch.py", "-k", "cuda and not specifications"],
}


@pytest.mark.parametrize("part", PARTS)
def test_interpreted(part, tmp_path):
    own = {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1", "TRITON_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    command += ["-W", "ignore::RuntimeWarning"]  # of NumPy, which computes infinities and NaN here
    done = subprocess.run(
        [*command, *PARTS[part]],
        check=False,
        cwd=ROOT,
        env=os.environ | own,
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout
