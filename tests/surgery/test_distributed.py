"""DistributedDataParallel over gloo, in two processes on this machine."""

import subprocess
import sys
from pathlib import Path

LAUNCH = "-m torch.distributed.run --standalone --nproc-per-node 2 -m tests.surgery.ddp_worker"
ROOT = Path(__file__).parents[2]


def test_two_ddp_processes_agree():
    done = subprocess.run(
        [sys.executable, *LAUNCH.split()],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
