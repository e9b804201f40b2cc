"""Arrays in .npz files: every layout, and every way in which one can be wrong."""

import numpy as np
import pytest
import torch

from whatwhere.study.data import Augmented, DataError, DataSettings, load

RNG = np.random.default_rng(0)


def images(*shape: int) -> np.ndarray:
    return RNG.integers(0, 256, shape, dtype=np.uint8)


def labels(count: int) -> np.ndarray:
    return np.arange(count) % 3


def write(tmp_path, **arrays) -> DataSettings:
    path = tmp_path / "scans.npz"
    np.savez(path, **arrays)
    return DataSettings(source=str(path))


def raw(data, split, index) -> torch.Tensor:
    return data.unnormalise(getattr(data, split)[index][0]) * 255


@pytest.mark.parametrize(
    ("stored", "shape"),
    [
        ((12, 10), (1, 12, 10)),
        ((12, 10, 1), (1, 12, 10)),
        ((12, 10, 3), (3, 12, 10)),
        ((9, 12, 10), (1, 9, 12, 10)),
        ((9, 12, 10, 1), (1, 9, 12, 10)),
        ((9, 12, 10, 3), (3, 9, 12, 10)),
    ],
)
def test_layouts(tmp_path, stored, shape):
    counts = {"train": 30, "val": 6, "test": 9}
    arrays = {f"{split}_images": images(count, *stored) for split, count in counts.items()}
    arrays |= {f"{split}_labels": labels(count)[:, None] for split, count in counts.items()}
    data = load(write(tmp_path, **arrays))
    assert (data.name, data.classes, data.shape) == ("scans", ("0", "1", "2"), shape)
    assert data.ndim == len(shape) - 1
    for split, count in counts.items():
        assert getattr(data, split).labels.tolist() == (np.arange(count) % 3).tolist()
        expected = arrays[f"{split}_images"][5]
        expected = np.moveaxis(expected, -1, 0) if len(shape) == len(stored) else expected[None]
        assert (raw(data, split, 5) - torch.from_numpy(expected.copy())).abs().max() < 1e-3
    assert Augmented(data.train, seed=0)[0][0].shape == shape


def test_missing_splits_are_cut(tmp_path):
    settings = write(tmp_path, train_images=images(60, 8, 8), train_labels=labels(60))
    data = load(settings)
    assert [len(s) for s in (data.train, data.val, data.test)] == [42, 9, 9]
    seen = {
        raw(data, s, i).round().int().numpy().tobytes() for s in ("val", "test") for i in range(9)
    }
    assert len(seen) == 18
    assert not seen & {raw(data, "train", i).round().int().numpy().tobytes() for i in range(42)}
    assert load(settings).fingerprint == data.fingerprint
    again = DataSettings(source=settings.source, split_seed=1)
    assert load(again).fingerprint != data.fingerprint


def test_fingerprint_sees_a_single_pixel_and_label(tmp_path):
    names = [
        f"{split}_{kind}" for split in ("train", "val", "test") for kind in ("images", "labels")
    ]
    arrays = {name: images(9, 8, 8) if "images" in name else labels(9) for name in names}
    prints = [load(write(tmp_path, **arrays)).fingerprint]
    arrays["test_images"][4, 3, 2] ^= 1
    prints.append(load(write(tmp_path, **arrays)).fingerprint)
    arrays["val_labels"][4] = 0
    prints.append(load(write(tmp_path, **arrays)).fingerprint)
    assert len(set(prints)) == 3


def test_labels_need_not_start_at_zero(tmp_path):
    data = load(write(tmp_path, train_images=images(30, 8, 8), train_labels=labels(30) * 5 + 2))
    assert data.classes == ("2", "7", "12")
    assert set(data.train.labels.tolist()) == {0, 1, 2}


def test_images_are_resized(tmp_path):
    settings = write(tmp_path, train_images=images(30, 12, 16, 3), train_labels=labels(30))
    assert load(DataSettings(source=settings.source, size=8)).shape == (3, 8, 8)


def test_sequences(tmp_path):
    sequences = RNG.normal([[[3.0], [-50.0]]], [[[1.0], [7.0]]], (60, 2, 32))
    data = load(write(tmp_path, train_sequences=sequences, train_labels=labels(60)))
    assert (data.shape, data.ndim) == ((2, 32), 1)
    x = torch.stack([data.train[i][0] for i in range(len(data.train))])
    assert x.mean((0, 2)).abs().max() < 1e-5
    assert (x.std((0, 2)) - 1).abs().max() < 1e-3
    shown = data.unnormalise(x)
    assert (shown.min(), shown.max()) == (pytest.approx(0, abs=1e-6), pytest.approx(1, abs=1e-6))
    assert len(shown.unique()) > 1000


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": images(3)}, r"expected train_images or train_sequences, .* got \[x\]"),
        ({"val_images": images(3, 8, 8)}, "expected either train_images or train_sequences"),
        ({"train_images": images(9, 8, 8)}, "expected train_labels beside train_images"),
        ({"train_images": RNG.random((9, 8, 8)), "train_labels": labels(9)}, "uint8, got float64"),
        ({"train_images": images(9, 8), "train_labels": labels(9)}, r"train_images: .*\(9, 8\)"),
        (
            {"train_images": images(9, 4, 8, 8, 2), "train_labels": labels(9)},
            r"expected shape .* got \(9, 4, 8, 8, 2\)",
        ),
        (
            {"train_images": images(9, 8, 8), "train_labels": np.ones((9, 14), int)},
            "one label per sample, got 14 of them; multi-label",
        ),
        (
            {"train_images": images(9, 8, 8), "train_labels": np.ones(9)},
            "expected integers .* got float64",
        ),
        (
            {"train_images": images(9, 8, 8), "train_labels": labels(8)},
            "as many labels as samples .* got 8 for 9",
        ),
        (
            {"train_images": images(9, 8, 8), "train_labels": np.ones(9, int)},
            "at least 2 classes, got 1: 1",
        ),
        ({"train_sequences": images(9, 8), "train_labels": labels(9)}, r"shape \(N, C, L\)"),
        (
            {
                "train_images": images(9, 8, 8),
                "train_labels": labels(9),
                "test_images": images(2, 8, 9),
                "test_labels": labels(2),
            },
            "one shape, got",
        ),
        (
            {
                "train_images": images(9, 8, 8),
                "train_labels": labels(9),
                "test_images": images(2, 8, 8),
                "test_labels": labels(2) + 2,
            },
            r"labels of test to be among those of train, got \[3\]",
        ),
    ],
)
def test_wrong_arrays(tmp_path, arrays, message):
    with pytest.raises(DataError, match=message):
        load(write(tmp_path, **arrays))


def test_values_that_are_not_finite_are_counted(tmp_path):
    sequences = np.zeros((9, 2, 16))
    sequences[0, 0, 0], sequences[1, 1, 1], sequences[2, 0, 3] = np.nan, -np.inf, 1e300
    with pytest.raises(DataError, match="got 3 that are NaN or infinite"):
        load(write(tmp_path, train_sequences=sequences, train_labels=labels(9)))


def test_volumes_are_not_resized(tmp_path):
    settings = write(tmp_path, train_images=images(9, 5, 8, 8), train_labels=labels(9))
    with pytest.raises(DataError, match=r"size only with images .* shape \(1, 5, 8, 8\)"):
        load(DataSettings(source=settings.source, size=16))


def test_pickles_are_refused(tmp_path):
    objects = np.array([{"a": 1}] * 9, dtype=object)
    with pytest.raises(DataError, match=r"cannot be read as an .npz file .*allow_pickle"):
        load(write(tmp_path, train_images=objects, train_labels=labels(9)))


def test_not_an_npz(tmp_path):
    path = tmp_path / "scans.npz"
    path.write_text("not a zip file")
    with pytest.raises(DataError, match=r"cannot be read as an .npz file"):
        load(DataSettings(source=str(path)))
