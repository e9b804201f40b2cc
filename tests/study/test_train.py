"""``whatwhere train`` on one device and on two over gloo: one loss curve, through killed processes.

The runs are small and few, and each is used by several tests.
"""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from whatwhere import checkpoints
from whatwhere.files import read_json
from whatwhere.study.build import load_data
from whatwhere.study.data import DataSettings
from whatwhere.study.devices import DeviceError, Devices
from whatwhere.study.launch import run_trial
from whatwhere.study.settings import StudySettings, parse_variants
from whatwhere.study.trainer import check_started
from whatwhere.study.trial import Trial

ROOT = Path(__file__).parents[2]
TORCHRUN = "-m torch.distributed.run --standalone --nproc-per-node 2 --max-restarts"
# 6 steps an epoch, so that the 9th is the 3rd of the second epoch, after a checkpoint in the 8th.
OPTIONS = ["--epochs", "3", "--batch-size", "16", "--checkpoint-every", "4"]
pytestmark = pytest.mark.xdist_group("train")


def launch(pictures, out, *options, backbone="grouped", dies="0 -1 -", launcher=()):
    command = ["-m", "whatwhere", "train", str(pictures), "--out", str(out), *OPTIONS, *options]
    function = f"tests.study.backbone_function:{backbone}"
    return subprocess.run(
        [sys.executable, *launcher, *command, "--backbone", function],
        cwd=ROOT,
        env={
            **os.environ,
            "DIES": dies,
            "OMP_NUM_THREADS": "1",
            # Else torchrun's restarted processes read addresses of the dead ones.
            "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
        },
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def run(pictures, out, *options, **given):
    """A training's record, and what it said."""
    done = launch(pictures, out, *options, **given)
    assert done.returncode == 0, done.stderr[-3000:]
    return read_json(out / "result.json"), done.stderr


def curve(record, name):
    return [epoch[name] for epoch in record["epochs"]]


@pytest.fixture(scope="module")
def one(pictures, tmp_path_factory):
    out = tmp_path_factory.mktemp("train") / "one"
    return run(pictures, out)[0], out


@pytest.fixture(scope="module", params=["ddp", "fsdp"])
def two(request, pictures, tmp_path_factory):
    """By the command, and as a study starts its trials."""
    out = tmp_path_factory.mktemp("train") / request.param
    if request.param == "ddp":
        return run(pictures, out, "--devices", "2", "--strategy", "ddp")[0], out
    settings = StudySettings(
        data=DataSettings(source=str(pictures)),
        backbone="tests.study.backbone_function:grouped",
        epochs=3,
        batch_size=16,
        devices=Devices(devices=2, strategy="fsdp"),
    )
    trial = Trial(out, settings, parse_variants(["cbam"])[-1], 0)
    run_trial(trial)
    assert not (trial.folder / "output.txt").exists()
    return trial.result(), out


def test_two_processes_have_the_loss_curve_of_one(one, two):
    for name in ("train_loss", "val_loss"):
        torch.testing.assert_close(curve(two[0], name), curve(one[0], name), rtol=1e-5, atol=0)
    weights = [load_file(out / record["checkpoint"]) for record, out in (one, two)]
    assert list(weights[0]) == list(weights[1])
    for name, tensor in weights[0].items():
        torch.testing.assert_close(weights[1][name], tensor, rtol=0, atol=1e-5)


def test_every_sample_is_counted_once(one, two, settings):
    # 33 and 47 samples do not divide by two, nor by the batches.
    data = load_data(settings.data)
    shares = [
        [(epoch["val_accuracy"], len(data.val)) for epoch in record["epochs"]]
        + [(record["test"]["accuracy"], len(data.test))]
        for record, _ in (one, two)
    ]
    assert shares[0] == shares[1]
    assert all(share == round(share * samples) / samples for share, samples in shares[0])
    assert two[0]["test"]["loss"] == pytest.approx(one[0]["test"]["loss"], rel=1e-5)


def test_the_network_of_two_processes_is_saved_whole(two, settings):
    from tests.study.backbone_function import grouped

    record, out = two
    data = load_data(settings.data)
    network = grouped(2, in_channels=1, ndim=2)
    checkpoints.load(out / record["checkpoint"], into=network)
    x = torch.stack([data.test[index][0] for index in range(len(data.test))])
    with torch.no_grad():
        right = network.eval()(x).argmax(1) == data.test.labels
    assert record["test"]["accuracy"] == int(right.sum()) / len(right)
    assert {gate["kind"] for gate in record["gates"]} == {"what", "where"}


def test_a_killed_process_is_restarted_and_changes_nothing(pictures, tmp_path):
    options = ("--devices", "2")
    whole, _ = run(pictures, tmp_path / "whole", *options, backbone="mortal")
    killed, said = run(
        pictures,
        tmp_path / "killed",
        *options,
        backbone="mortal",
        dies=f"0 9 {tmp_path / 'dead'}",
        launcher=(*TORCHRUN.split(), "1"),
    )
    assert "exitcode: -9" in said
    assert killed["resumed"] == 1
    for name in ("train_loss", "val_loss", "val_accuracy"):
        assert curve(killed, name) == curve(whole, name)
    weights = [load_file(tmp_path / name / "model.safetensors") for name in ("whole", "killed")]
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())


def test_a_lost_process_ends_the_training_with_a_word(pictures, tmp_path):
    out = tmp_path / "lost"
    dies = f"1 9 {tmp_path / 'dead'}"
    done = launch(pictures, out, "--devices", "2", backbone="mortal", dies=dies)
    # Either this process finds out, or Lightning's observer, which ends it by SIGKILL.
    said = {1: "another process of this training was lost", -9: "terminated with code -9"}
    assert said[done.returncode] in done.stderr
    saved = sorted(path.stem for path in (out / "training").glob("*.ckpt"))
    assert saved == ["epoch=00000-step=000000006", "epoch=00001-step=000000008"]


def test_processes_that_would_train_each_for_itself_are_refused(pictures, tmp_path):
    done = launch(pictures, tmp_path / "never", launcher=(*TORCHRUN.split(), "0"))
    assert done.returncode == 1  # torchrun's
    assert "make up the 2 processes that torchrun started, got 1 × 1" in done.stderr
    assert not (tmp_path / "never").exists()


def test_another_training_in_the_folder_is_refused(one, pictures):
    done = launch(pictures, one[1], "--epochs", "9")
    assert done.returncode == 2
    assert "epochs was 3 and is now 9" in done.stderr
    assert "Traceback" not in done.stderr


def test_devices_that_can_not_be_had_are_refused(settings):
    with pytest.raises(DeviceError, match="above 1 with --strategy fsdp, got one device"):
        Devices(strategy="fsdp")
    with pytest.raises(DeviceError, match="several devices with --sync-batchnorm, got one"):
        Devices(sync_batchnorm=True)
    with pytest.raises(DeviceError, match="to be a multiple of 3 devices, got 16"):
        Devices(devices=3).check_batch(16, 100)
    with pytest.raises(DeviceError, match="on several devices, got 12"):
        Devices(devices=2).check_batch(16, 12)
    with pytest.raises(DeviceError, match="as steps, 200, or as minutes, 5m, got 'soon'"):
        replace(settings, checkpoint_every="soon")
    with pytest.raises(DeviceError, match="torchrun or SLURM to start the processes of 2 machines"):
        check_started(Devices(num_nodes=2))


def test_synchronous_batch_norms_are_for_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceError, match="torch's SyncBatchNorm does not run on the CPU"):
        Devices(devices=2, sync_batchnorm=True)
