"""DistributedDataParallel and FSDP2 over gloo, in two processes on this machine."""

import subprocess
import sys
from pathlib import Path

import pytest

LAUNCH = "-m torch.distributed.run --standalone --nproc-per-node 2 -m tests.surgery."
ROOT = Path(__file__).parents[2]


def run(worker, *options):
    done = subprocess.run(
        [sys.executable, *f"{LAUNCH}{worker}".split(), *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("options", [[], ["fuse"]], ids=str)
def test_two_ddp_processes_agree(options):
    run("ddp_worker", *options)


@pytest.mark.parametrize("options", [[], ["fuse"]], ids=str)
def test_two_fsdp_processes_train_as_one_does(options):
    run("fsdp_worker", *options)
