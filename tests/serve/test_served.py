"""The networks of a study's folder: found, loaded, handed out one at a time; what is with them."""

import json
import shutil
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch

from whatwhere import checkpoints
from whatwhere.look import record
from whatwhere.serve.examples import OFFERED
from whatwhere.serve.opening import opened
from whatwhere.serve.state import Member, Served, members_of, open_network, study_of


@pytest.fixture(scope="module")
def site(run):
    return opened(run, tell=lambda _: None)


def test_a_study_is_opened_with_all_there_is(site, run):
    assert list(site.served.members) == [
        "plain, seed 0",
        "plain, seed 1",
        "cbam, seed 0",
        "cbam, seed 1",
    ]
    assert site.served.classes == ("a_b", "<i>", "c")
    assert site.notes == ("small, 3 classes, inputs of 1 × 16 × 16, 4 trained networks",)
    assert "Does attention help?" in site.report
    with np.load(run.with_name("bars.npz")) as arrays:
        images = arrays["test_images"]
    step = -(-len(images) // OFFERED)
    assert [given.name for given in site.offered] == [str(i % 3) for i in range(0, 30, step)]
    for given, image in zip(site.offered, images[::step], strict=True):
        shown = (given.display[0] * 255).round().byte()
        assert torch.equal(shown, torch.from_numpy(image))


def test_means_are_those_of_the_test_samples(site):
    title = "cbam, seed 0"
    with site.served.use(title) as model, torch.no_grad(), record(model) as recorded:
        model(site.served.samples)
    means = site.served.means(title)
    assert set(means) == set(recorded)
    for name, [gate] in recorded.items():
        assert torch.allclose(means[name].float(), gate.mean(0), atol=1e-6)


def test_names_of_other_classes_are_refused(site):
    members = list(site.served.members.values())
    preparation = replace(site.served.preparation, classes=("a", "b"))
    with pytest.raises(ValueError, match="as the network has answers, 3, got 2"):
        Served(members, preparation=preparation)
    preparation = replace(preparation, classes=None)
    assert Served(members, preparation=preparation).classes == ("0", "1", "2")


def test_networks_are_for_one_thread_at_a_time(site):
    inside = threading.Event()

    def other():
        with site.served.use("plain, seed 0"):
            inside.set()

    thread = threading.Thread(target=other)
    with site.served.use("cbam, seed 0"):
        thread.start()
        assert not inside.wait(0.2)
    assert inside.wait(30)
    thread.join()


def test_a_trial_alone_has_the_samples_of_its_study(run):
    path = run / "trials" / "cbam-seed1" / "model.safetensors"
    assert study_of(path) == run
    alone = opened(path, tell=lambda _: None)
    assert len(alone.offered) > 0
    assert alone.report is None
    assert list(alone.served.members) == ["model"]


def test_what_is_missing_is_said_and_the_rest_is_there(run, tmp_path):
    folder = tmp_path / "study"
    shutil.copytree(run, folder)
    study = json.loads((folder / "study.json").read_text())
    study["fingerprint"] = "of others"
    (folder / "study.json").write_text(json.dumps(study))
    (folder / "results.json").unlink()
    site = opened(folder, tell=lambda _: None)
    assert site.offered == ()
    assert site.report is None
    assert "have changed since the study (fingerprint of others, now" in site.notes[1]
    assert "results.json" in site.notes[2]
    shutil.rmtree(folder / "trials")
    with pytest.raises(ValueError, match="finished trials"):
        members_of(folder)
    with pytest.raises(ValueError, match="does not exist"):
        members_of(folder / "nowhere")


def test_a_control_of_another_width_is_left_out(run, tmp_path):
    folder = tmp_path / "study"
    shutil.copytree(run, folder)
    study = json.loads((folder / "study.json").read_text())
    study["variants"][0]["width"] = 1.25
    (folder / "study.json").write_text(json.dumps(study))
    assert [member.title for member in members_of(folder)] == ["cbam, seed 0", "cbam, seed 1"]


def test_code_of_the_users_own_runs_only_if_trusted(tmp_path):
    from tests.study.backbone_function import make

    network = make(2, in_channels=1, ndim=2).eval()
    facts = {
        "backbone": "tests.study.backbone_function:make",
        "classes": ["a", "b"],
        "shape": [1, 8, 8],
        "width": 1.0,
    }
    path = tmp_path / "model.safetensors"
    checkpoints.save(network, path, facts=facts)
    member = Member("model", path, facts, "model", 0, 0)
    with pytest.raises(ValueError, match="--trust tests lets it run"):
        open_network(member)
    x = torch.randn(2, 1, 8, 8)
    assert torch.equal(open_network(member, trust=["tests"])(x), network(x))
