"""Faults: what ends a study says so, and nothing finished is lost, doubled or other than it was."""

import errno
import json
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from whatwhere.files import read_json, write_json
from whatwhere.study import build
from whatwhere.study.compare import compare
from whatwhere.study.data import DataSettings
from whatwhere.study.faults import children_without_sigint, ends_study
from whatwhere.study.resuming import newest_checkpoint
from whatwhere.study.settings import StudyError, StudySettings, parse_variants
from whatwhere.study.training import Classifier
from whatwhere.study.trial import Trial, run_trial


def settings_on(pictures):
    return StudySettings(
        data=DataSettings(source=str(pictures), max_train=48),
        variants=("none", "cbam"),
        control="none",
        seeds=1,
        epochs=3,
        batch_size=16,
    )


def trial_in(folder, settings, variant="cbam", **options):
    return Trial(folder, settings, parse_variants([variant])[-1], 0, **options)


def stopped(trial, monkeypatch, *, epoch=2):
    """Run a trial until an epoch begins, and leave it there as an interruption would."""

    def stop(self):
        if self.current_epoch == epoch:
            raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(Classifier, "on_train_epoch_start", stop)
        with pytest.raises(SystemExit):
            run_trial(trial)
    (saved,) = (trial.folder / "training").glob("*.ckpt")
    return saved


def weights(trial):
    record = trial.result()
    assert record["status"] == "finished", record["reason"]
    return load_file(trial.run / record["checkpoint"])


def assert_same_bits(first, second):
    mine, theirs = weights(first), weights(second)
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in mine.items())
    assert first.result()["test"] == second.result()["test"]


@pytest.fixture(scope="module")
def undisturbed(pictures, tmp_path_factory):
    trial = trial_in(tmp_path_factory.mktemp("undisturbed"), settings_on(pictures))
    run_trial(trial)
    return trial


@pytest.fixture
def settings(pictures):
    return settings_on(pictures)


@pytest.fixture
def whole(undisturbed, tmp_path):
    """A copy of the same trial, undisturbed."""
    return replace(undisturbed, run=shutil.copytree(undisturbed.run, tmp_path / "whole"))


@pytest.mark.parametrize("variant", ["cbam", "bam"])
def test_deterministic_trials_have_the_same_bits_resumed_or_not(
    tmp_path, settings, monkeypatch, variant
):
    settings = replace(settings, deterministic=True)
    first, second, third = (
        trial_in(tmp_path / name, settings, variant) for name in ("first", "second", "third")
    )
    run_trial(first)
    run_trial(second)
    stopped(third, monkeypatch)
    run_trial(third)
    assert third.result()["resumed"] == 1
    assert_same_bits(first, second)
    assert_same_bits(first, third)
    assert not torch.are_deterministic_algorithms_enabled()


def test_an_operation_without_a_deterministic_version_is_named(tmp_path, settings):
    asked = replace(
        settings, backbone="tests.study.backbone_function:scattered", deterministic=True
    )
    trial = trial_in(tmp_path / "refused", asked, "none")
    run_trial(trial)
    record = trial.result()
    assert record["status"] == "failed"
    assert record["reason"].startswith("put_ has no deterministic version in torch on this device")
    assert "go without --deterministic" in record["reason"]
    run_trial(other := trial_in(tmp_path / "taken", replace(asked, deterministic=False), "none"))
    assert other.result()["status"] == "finished"


def test_one_wrong_bit_in_a_checkpoint_is_found(tmp_path, settings, whole, monkeypatch):
    trial = trial_in(tmp_path / "damaged", settings)
    saved = stopped(trial, monkeypatch)
    assert newest_checkpoint(saved.parent) == saved
    content = saved.read_bytes()
    for share in (0.2, 0.5, 0.9):
        wrong = bytearray(content)
        wrong[int(share * len(content))] ^= 1
        saved.write_bytes(wrong)
        assert newest_checkpoint(saved.parent) is None
    saved.write_bytes(wrong)
    run_trial(trial)  # from the start, then
    assert_same_bits(trial, whole)


def test_the_checkpoint_before_a_torn_one_is_taken(tmp_path, settings, whole, monkeypatch):
    trial = trial_in(tmp_path / "torn", settings)
    saved = stopped(trial, monkeypatch)
    torn = saved.with_name("epoch=00009.ckpt")
    torn.write_bytes(saved.read_bytes()[:1000])
    assert newest_checkpoint(saved.parent) == saved
    assert not torn.exists()
    run_trial(trial)
    assert_same_bits(trial, whole)


def test_a_record_counts_for_its_own_trial_alone(whole, tmp_path, settings):
    other = trial_in(tmp_path / "whole", settings, "none")
    other.folder.mkdir(parents=True)
    shutil.copy(whole.folder / "result.json", other.folder)
    assert whole.done()
    assert not other.done()


@pytest.mark.parametrize("name", ["starts.json", "progress.json"])
def test_damaged_notes_of_a_trial_cost_nothing(tmp_path, settings, whole, name):
    trial = trial_in(tmp_path / "noted", settings)
    trial.folder.mkdir(parents=True)
    (trial.folder / name).write_bytes(b"\xff{")
    run_trial(trial)
    assert_same_bits(trial, whole)


@pytest.mark.parametrize("limit", [100, 700_000])
def test_a_disk_without_room_ends_the_study_and_the_trial_goes_on(tmp_path, settings, whole, limit):
    trial = trial_in(tmp_path / "small", settings)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(StudyError, match=r"no room to write in .*the same command goes on"):
            run_trial(trial)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert trial.result() is None
    assert not list(trial.run.rglob("*.part"))
    run_trial(trial)
    assert_same_bits(trial, whole)


def test_no_trial_runs_on_changed_or_missing_data(tmp_path, settings, pictures, monkeypatch):
    trial = trial_in(tmp_path, settings, fingerprint="another")
    with pytest.raises(StudyError, match="the data have changed while the study ran"):
        run_trial(trial)
    assert trial.result() is None
    build.load_data.cache_clear()
    moved = pictures.rename(pictures.with_suffix(".away"))
    try:
        with pytest.raises(StudyError, match="could be read when the study began, and now can't"):
            run_trial(trial)
    finally:
        moved.rename(pictures)
    assert trial.result() is None


def test_a_study_whose_folder_goes_writes_no_record(tmp_path, settings, monkeypatch):
    trial = trial_in(tmp_path / "run", settings)
    trial.run.mkdir()
    write_json(trial.run / "study.json", {})
    end = Classifier.on_train_end

    def lose(self):
        shutil.rmtree(trial.run)
        trial.folder.mkdir(parents=True)  # as trainers do
        end(self)

    monkeypatch.setattr(Classifier, "on_train_end", lose)
    with pytest.raises(StudyError, match="was removed"):
        run_trial(trial)
    assert trial.result() is None


@pytest.mark.parametrize("content", [None, b"", b"{", b"\xff\xfe", b"[]", b'{"settings": {}}'])
def test_trials_without_the_settings_they_ran_with_are_not_touched(whole, settings, content):
    path = whole.run / "study.json"
    if content is not None:
        path.write_bytes(content)
    before = (whole.folder / "result.json").read_bytes()
    with pytest.raises(StudyError, match=r"Put study\.json back from a copy, or choose another"):
        compare(settings, whole.run)
    assert (whole.folder / "result.json").read_bytes() == before
    assert path.exists() == (content is not None)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES])
def test_errors_of_the_whole_disk_are_seen_through_what_wraps_them(tmp_path, number):
    inner = OSError(number, os.strerror(number), str(tmp_path / "x"))
    outer = RuntimeError("failed writing file")
    outer.__cause__ = inner
    assert os.strerror(number) in str(ends_study(outer, tmp_path))
    elsewhere = OSError(errno.EACCES, "Permission denied", "/elsewhere/x")
    assert ends_study(elsewhere, tmp_path) is None
    assert ends_study(ValueError("kernel_size"), tmp_path) is None
    assert "was removed" in str(ends_study(ValueError("any"), tmp_path / "nowhere"))


def test_rusts_words_for_a_full_disk_are_understood(tmp_path):
    error = RuntimeError("I/O error: No space left on device (os error 28)")
    assert "no room to write" in str(ends_study(error, tmp_path))


def test_studies_from_before_the_option_go_on(tmp_path, settings, whole):
    from whatwhere.study.compare import _known_study

    fixed = settings.fixed()
    del fixed["deterministic"]
    known = {"settings": json.loads(json.dumps(fixed)), "threads": 1, "fingerprint": "x"}
    write_json(tmp_path / "study.json", {**known, "variants": []})
    assert _known_study(settings, tmp_path) == read_json(tmp_path / "study.json")
    with pytest.raises(StudyError, match="deterministic was False and is now True"):
        _known_study(replace(settings, deterministic=True), tmp_path)


def test_a_training_that_gets_sigterm_says_so_and_does_not_end_well(pictures, tmp_path):
    options = ["--epochs", "500", "--batch-size", "16", "--deterministic"]
    command = [sys.executable, "-m", "whatwhere", "train", str(pictures), "--out", str(tmp_path)]
    process = subprocess.Popen([*command, *options], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 300
    while not list(tmp_path.glob("training/*.ckpt")):
        assert time.monotonic() < deadline, "no epoch ended"
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    process.terminate()
    _, text = process.communicate(timeout=60)
    assert process.returncode == 143
    assert "the same command goes on from here" in text
    assert not (tmp_path / "result.json").exists()


def test_ctrl_c_does_not_reach_workers_while_they_import():
    spawn = multiprocessing.get_context("spawn")
    with children_without_sigint():
        pool = ProcessPoolExecutor(1, mp_context=spawn)
        blocked = pool.submit(signal.pthread_sigmask, signal.SIG_BLOCK, ())
    with pool:
        assert signal.SIGINT in blocked.result(timeout=120)
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
