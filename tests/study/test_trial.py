"""One trial: the same from the same seed, resumed or not; what goes wrong is on record."""

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from whatwhere import checkpoints
from whatwhere.study.backbones import Backbone
from whatwhere.study.build import build_network, load_data
from whatwhere.study.loaders import EpochOrder
from whatwhere.study.settings import parse_variants
from whatwhere.study.training import Classifier
from whatwhere.study.trial import Trial, run_trial

ROOT = Path(__file__).parents[2]


def trial_in(folder, settings, variant="cbam", seed=0):
    return Trial(folder, settings, parse_variants([variant])[-1], seed)


def test_a_trial_leaves_a_whole_record(tmp_path, settings):
    trial = trial_in(tmp_path, settings)
    run_trial(trial)
    record = trial.result()
    assert record["status"] == "finished", record["reason"]
    assert [epoch["epoch"] for epoch in record["epochs"]] == [1, 2, 3]
    assert record["epochs"][-1]["train_loss"] < record["epochs"][0]["train_loss"]
    assert {gate["kind"] for gate in record["gates"]} == {"what", "where"}
    assert (tmp_path / record["picture"]).stat().st_size > 1000
    assert not (trial.folder / "training").exists()
    assert list((tmp_path / "tensorboard" / trial.name).glob("events.*"))


def test_the_checkpoint_is_the_network_that_was_tested(tmp_path, settings):
    trial = trial_in(tmp_path, settings)
    run_trial(trial)
    record = trial.result()
    data = load_data(settings.data)
    network = checkpoints.load(tmp_path / record["checkpoint"])
    facts = checkpoints.describe(tmp_path / record["checkpoint"])["facts"]
    assert facts["classes"] == list(data.classes)
    x = torch.stack([data.test[index][0] for index in range(len(data.test))])
    with torch.no_grad():
        right = network.eval()(x).argmax(1) == data.test.labels
    # To the last digit: a single-precision share makes equal gains of two seeds look unequal.
    assert record["test"]["accuracy"] == int(right.sum()) / len(right)


def test_finished_trials_are_not_repeated(tmp_path, settings):
    trial = trial_in(tmp_path, settings)
    run_trial(trial)
    before = (trial.folder / "result.json").stat().st_mtime_ns
    run_trial(trial)
    assert (trial.folder / "result.json").stat().st_mtime_ns == before


KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, {root!r})
import torch; torch.set_num_threads(1)
from whatwhere.study.data import DataSettings
from whatwhere.study.settings import StudySettings, parse_variants
from whatwhere.study.trial import Trial, run_trial
settings = StudySettings(data=DataSettings(source={source!r}), **{options!r})
run_trial(Trial(Path({folder!r}), settings, parse_variants(["cbam"])[-1], 0))
"""


def test_a_trial_killed_within_an_epoch_ends_as_if_it_had_not_been(tmp_path, settings):
    settings = replace(settings, epochs=12, checkpoint_every="4")  # of 6 steps an epoch
    whole = trial_in(tmp_path / "whole", settings)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    run_trial(whole)
    torch.set_num_threads(threads)
    killed = trial_in(tmp_path / "killed", settings)
    keys = ("variants", "control", "seeds", "epochs", "batch_size", "checkpoint_every")
    code = KILLED.format(
        root=str(ROOT),
        source=settings.data.source,
        options={key: getattr(settings, key) for key in keys},
        folder=str(killed.run),
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    deadline = time.monotonic() + 120
    within = "epoch=*-step=*4.ckpt"  # 4 or 64, after neither of which an epoch ends
    while not list((killed.folder / "training").glob(within)) and time.monotonic() < deadline:
        time.sleep(0.005)
    process.kill()
    process.wait()
    assert killed.result() is None, "it finished before it could be killed"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=300)
    resumed, expected = killed.result(), whole.result()
    assert resumed["status"] == "finished", resumed["reason"]
    assert resumed["resumed"] == 1
    assert [e["train_loss"] for e in resumed["epochs"]] == [
        e["train_loss"] for e in expected["epochs"]
    ]
    weights = [load_file(t.run / t.result()["checkpoint"]) for t in (whole, killed)]
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())


def test_a_torn_training_checkpoint_costs_a_restart_not_the_trial(tmp_path, settings):
    trial = trial_in(tmp_path, settings)
    (trial.folder / "training").mkdir(parents=True)
    (trial.folder / "training" / "epoch=00001.ckpt").write_bytes(b"half a file")
    run_trial(trial)
    assert trial.result()["status"] == "finished"
    assert len(trial.result()["epochs"]) == settings.epochs


@pytest.mark.parametrize("content", ["{", "{}", "[]"])
def test_a_record_that_is_none_counts_for_nothing(tmp_path, settings, content):
    trial = trial_in(tmp_path, settings)
    trial.folder.mkdir(parents=True)
    (trial.folder / "result.json").write_text(content)
    assert not trial.done()
    run_trial(trial)
    assert trial.done()


@pytest.mark.parametrize("steps", [1, 2, 5, 10, 11, 20, 500])
def test_the_learning_rate_rises_to_its_peak_and_falls(settings, steps):
    classifier = Classifier(torch.nn.Linear(1, 2), settings, classes=2, steps=steps, seed=0)
    configured = classifier.configure_optimizers()
    optimizer, schedule = configured["optimizer"], configured["lr_scheduler"]["scheduler"]
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    peak = rates.index(max(rates))
    assert max(rates) == pytest.approx(settings.learning_rate)
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert min(rates) > 0
    assert steps < 20 or rates[-1] < 0.05 * max(rates)


def test_divergence_is_said_and_not_tried_again(tmp_path, settings):
    trial = trial_in(tmp_path, replace(settings, learning_rate=1e30))
    run_trial(trial)
    record = trial.result()
    assert record["status"] == "diverged"
    assert "loss became" in record["reason"]
    assert "lower --learning-rate may help" in record["reason"]
    assert trial.done()


def test_failures_are_on_record_with_their_trace_and_tried_again(tmp_path, settings):
    trial = trial_in(tmp_path, settings, variant="cbam:kernel_size=4")
    run_trial(trial)
    record = trial.result()
    assert record["status"] == "failed"
    assert "kernel_size to be odd" in record["reason"]
    assert "Traceback" in (trial.folder / "error.txt").read_text()
    assert not trial.done()
    json.dumps(record, allow_nan=False)


def test_one_seed_means_the_same_shared_weights_and_order(settings):
    data = load_data(settings.data)
    backbone = Backbone("small", classes=2, in_channels=1, ndim=2)
    plain, gated = (
        build_network(backbone, variant, where="auto", start="identity", shape=data.shape, seed=3)
        for variant in parse_variants(["cbam"])
    )
    shared = gated.state_dict()
    assert all(torch.equal(tensor, shared[name]) for name, tensor in plain.state_dict().items())
    other = backbone.build(seed=4).state_dict()
    assert not torch.equal(other["head.weight"], shared["head.weight"])


def test_order_depends_on_seed_and_epoch_alone():
    def order(seed, epoch):
        sampler = EpochOrder(50, seed=seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    assert order(1, 2) == order(1, 2)
    assert {index for _, index in order(1, 2)} == set(range(50))
    assert [i for _, i in order(1, 2)] != [i for _, i in order(1, 3)]
    assert [i for _, i in order(1, 2)] != [i for _, i in order(2, 2)]
