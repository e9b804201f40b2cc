"""DistributedDataParallel over gloo, in two processes on this machine."""

import subprocess
import sys
from pathlib import Path

import pytest

LAUNCH = "-m torch.distributed.run --standalone --nproc-per-node 2 -m tests.surgery.ddp_worker"
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("options", [[], ["fuse"]], ids=str)
def test_two_ddp_processes_agree(options):
    done = subprocess.run(
        [sys.executable, *LAUNCH.split(), *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
