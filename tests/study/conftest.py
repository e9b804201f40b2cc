"""A study small enough for tests: two classes of 12×12 pictures that a tiny net tells apart."""

import numpy as np
import pytest

from whatwhere.study.data import DataSettings
from whatwhere.study.settings import StudySettings


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    random = np.random.default_rng(0)
    arrays = {}
    for split, count in (("train", 96), ("val", 33), ("test", 47)):
        labels = np.arange(count) % 2
        images = random.integers(0, 120, (count, 12, 12))
        images[labels == 1, 3:9, 5:7] += 100
        images[labels == 0, 5:7, 3:9] += 100
        arrays[f"{split}_images"] = images.astype(np.uint8)
        arrays[f"{split}_labels"] = labels[:, None]
    path = tmp_path_factory.mktemp("data") / "bars.npz"
    np.savez(path, **arrays)
    return path


@pytest.fixture
def settings(pictures):
    return StudySettings(
        data=DataSettings(source=str(pictures)),
        variants=("none", "cbam"),
        control="none",
        seeds=1,
        epochs=3,
        batch_size=16,
    )
