"""Cuts, limits, normalisation and augmentation, which all sources share."""

import json
from dataclasses import asdict

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from whatwhere.study.data import Augmented, DataError, DataSettings, load
from whatwhere.study.data.splitting import Part, complete, limit, stratified
from whatwhere.study.data.views import views


@pytest.fixture(scope="module")
def clips():
    return load(DataSettings(source="clips", max_train=40))


def part(counts: list[int]) -> Part:
    labels = np.repeat(np.arange(len(counts)), counts)
    return Part(torch.zeros(len(labels), 1, 8, 8), np.arange(len(labels)), labels)


def test_settings_are_json():
    settings = DataSettings(source="somewhere", size=64, max_train=100)
    assert DataSettings(**json.loads(json.dumps(asdict(settings)))) == settings


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"validation_fraction": 0.0}, "above 0 .* got 0.0 and 0.15"),
        ({"validation_fraction": 0.5, "test_fraction": 0.5}, "leave something .* 0.5 and 0.5"),
        ({"size": 7}, "size to be at least 8, got 7"),
        ({"max_train": 0}, "max_train to be at least 2, got 0"),
        ({"max_unreadable": -1}, "max_unreadable to be at least 0, got -1"),
        ({"split_seed": -1}, "split_seed to be at least 0, got -1"),
    ],
)
def test_settings_out_of_range(wrong, message):
    with pytest.raises(DataError, match=message):
        DataSettings(**wrong)


@pytest.mark.parametrize(
    ("source", "there"), [("nowhere", "does not exist"), ("notes.txt", "is a file of another kind")]
)
def test_unknown_source(tmp_path, monkeypatch, source, there):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(DataError, match=f"expected source to be .*{source}' {there}"):
        load(DataSettings(source=source))


def test_stratified_gives_every_class_its_share():
    labels = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [600, 300, 3]))
    chosen = stratified(labels, 301, seed=5)
    assert len(set(chosen.tolist())) == 301
    assert np.bincount(labels[chosen]).tolist() == [200, 100, 1]
    assert set(stratified(labels, 100, seed=5)) < set(chosen)
    assert set(stratified(labels, 301, seed=6)) != set(chosen)


def test_missing_splits_are_cut_from_train():
    source = part([80, 20])
    done = complete({"train": source}, DataSettings(test_fraction=0.25), ["a", "b"])
    assert {name: np.bincount(p.labels).tolist() for name, p in done.items()} == {
        "train": [48, 12],
        "val": [12, 3],
        "test": [20, 5],
    }
    every = np.concatenate([p.rows for p in done.values()])
    assert sorted(every) == list(range(100))
    assert all((source.labels[p.rows] == p.labels).all() for p in done.values())


def test_every_class_is_in_every_cut_however_small():
    done = complete({"train": part([3, 3, 3])}, DataSettings(), ["a", "b", "c"])
    assert sorted(done) == ["test", "train", "val"]
    assert all(sorted(each.labels) == [0, 1, 2] for each in done.values())


def test_a_lone_val_becomes_the_test():
    val = part([7, 3])
    done = complete({"train": part([80, 20]), "val": val}, DataSettings(), ["a", "b"])
    assert done["test"] is val
    assert len(done["val"].rows) == 15
    assert len(done["train"].rows) == 85


def test_a_class_too_small_to_cut():
    with pytest.raises(DataError, match=r"class 'b' has 2 training samples, too few .*train, test"):
        complete({"train": part([80, 2])}, DataSettings(), ["a", "b"])


def test_limit_is_proportional():
    parts = {"train": part([60, 40]), "val": part([12, 8]), "test": part([30, 20])}
    limited = limit(parts, DataSettings(max_train=10))
    assert {name: np.bincount(p.labels).tolist() for name, p in limited.items()} == {
        "train": [6, 4],
        "val": [1, 1],
        "test": [3, 2],
    }
    assert limit(parts, DataSettings(max_train=100)) == parts
    with pytest.raises(DataError, match="at least the number of classes, 3, got 2"):
        limit({"train": part([9, 9, 9])}, DataSettings(max_train=2))


def test_samples_are_normalised_and_back(clips):
    x = torch.stack([clips.train[i][0] for i in range(len(clips.train))])
    assert abs(x.mean()) < 1e-4
    assert abs(x.std() - 1) < 1e-4
    pixels = clips.unnormalise(x) * 255
    assert (pixels - pixels.round()).abs().max() < 1e-2
    assert torch.equal(clips.unnormalise(x[3]), clips.unnormalise(x)[3])


def test_augmentation_is_a_function_of_seed_epoch_and_index(clips):
    def samples(seed, epoch, order):
        augmented = Augmented(clips.train, seed=seed)
        augmented.set_epoch(epoch)
        return torch.stack([augmented[i][0] for i in order])

    order = list(range(40))
    reference = samples(1, 2, order)
    torch.manual_seed(12345)
    assert torch.equal(samples(1, 2, order[::-1]).flip(0), reference)
    assert not torch.equal(samples(1, 3, order), reference)
    assert not torch.equal(samples(2, 2, order), reference)
    assert Augmented(clips.train, seed=1)[7][1] == clips.train.labels[7]


def test_augmentation_does_not_depend_on_workers(clips):
    augmented = Augmented(clips.train, seed=3)
    batches = [list(DataLoader(augmented, batch_size=16, num_workers=n)) for n in (0, 2)]
    for (one, _), (two, _) in zip(*batches, strict=True):
        assert torch.equal(one, two)


def test_augmentation_leaves_the_generators_alone(clips, monkeypatch):
    def refuse(seed):
        raise AssertionError("reseeded")

    monkeypatch.setattr(torch.cuda, "manual_seed_all", refuse)
    before = torch.get_rng_state()
    Augmented(clips.train, seed=0)[0]
    assert torch.equal(torch.get_rng_state(), before)


def test_a_clip_shifts_as_a_whole(clips):
    augmented = Augmented(clips.train, seed=0)
    shifts = set()
    for index in range(40):
        plain, moved = clips.train[index][0], augmented[index][0]
        found = [
            (down, right)
            for down in (-1, 0, 1)
            for right in (-1, 0, 1)
            if torch.equal(
                plain.roll((down, right), (2, 3))[..., 1:-1, 1:-1], moved[..., 1:-1, 1:-1]
            )
        ]
        assert len(found) == 1
        shifts.add(found[0])
    assert len(shifts) == 9


def test_sequences_roll():
    sequence = torch.arange(64.0).expand(2, 64)
    augment = views("sequences", (2, 64)).augment
    starts = {int(augment(sequence)[0, 0]) for _ in range(200)}
    assert starts == {60, 61, 62, 63, 0, 1, 2, 3, 4}


def test_photographs_are_zoomed_and_mirrored():
    both = views("photographs", (1, 73, 73), 64)
    ramp = torch.arange(73, dtype=torch.uint8).expand(1, 73, 73)
    assert both.evaluate(ramp)[0, 0].tolist() == list(range(4, 68))
    slopes = [augmented[0, 0].int().diff() for augmented in (both.augment(ramp) for _ in range(50))]
    assert {tuple(slope.shape) for slope in slopes} == {(63,)}
    assert 10 < sum(int(slope.sum()) > 0 for slope in slopes) < 40
    widths = [abs(int(slope.sum())) for slope in slopes]
    assert min(widths) < 58
    assert max(widths) > 66
