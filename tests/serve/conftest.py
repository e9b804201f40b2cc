"""A study's folder as ``compare`` leaves it, of networks with random weights."""

import json

import numpy as np
import pytest
import torch

from tests.study.results_fixture import build_results, write_results
from whatwhere import checkpoints
from whatwhere.study.backbones import Backbone
from whatwhere.study.build import build_network
from whatwhere.study.data import DataSettings, load
from whatwhere.study.settings import StudySettings, Variant

VARIANTS = (Variant("plain", "baseline"), Variant("cbam", "attention", "cbam"))


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """Two variants, two seeds, on 40 pictures of 16×16 in three classes."""
    folder = tmp_path_factory.mktemp("study") / "bars_and_*dots*"
    source = folder.with_name("bars.npz")
    random = np.random.default_rng(0)
    arrays = {}
    for split, count in (("train", 40), ("val", 12), ("test", 30)):
        arrays[f"{split}_images"] = random.integers(0, 255, (count, 16, 16), np.uint8)
        arrays[f"{split}_labels"] = np.arange(count) % 3
    np.savez(source, **arrays)
    settings = StudySettings(data=DataSettings(source=str(source)), variants=("none", "cbam"))
    data = load(settings.data)
    for variant in VARIANTS:
        for seed in (0, 1):
            save_trial(folder, variant, seed, data)
    write_results(folder, build_results(variants=("plain", "cbam"), seeds=(0, 1)))
    study = {
        "settings": settings.fixed(),
        "threads": 1,
        "fingerprint": data.fingerprint,
        "variants": [{"name": variant.name, "width": 1.0} for variant in VARIANTS],
    }
    (folder / "study.json").write_text(json.dumps(study), encoding="utf-8")
    return folder


def save_trial(folder, variant, seed, data):
    backbone = Backbone("small", classes=3, in_channels=1, ndim=2)
    network = build_network(
        backbone, variant, where="auto", start="paper", shape=data.shape, seed=seed
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for parameter in network.parameters():  # so that every gate matters
            parameter.data += 0.3 * torch.randn_like(parameter)
    path = folder / "trials" / f"{variant.name}-seed{seed}" / "model.safetensors"
    path.parent.mkdir(parents=True)
    checkpoints.save(
        network,
        path,
        **backbone.recipe(),
        facts={
            "backbone": "small",
            "classes": ["a_b", "<i>", "c"],
            "shape": data.shape,
            "width": 1.0,
            "mean": data.mean,
            "std": data.std,
            "data": data.name,
            "variant": variant.name,
            "seed": seed,
            "test": {"accuracy": 0.5},
        },
    )
