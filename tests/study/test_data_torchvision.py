"""torchvision's sets: FakeData as it is, and sets of files written here in its own layouts."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from whatwhere.study.data import DataError, DataSettings, load


@pytest.fixture
def register(monkeypatch):
    """Make a class of the test one of torchvision.datasets."""

    def add(cls):
        monkeypatch.setattr(torchvision.datasets, cls.__name__, cls, raising=False)
        names = (*torchvision.datasets.__all__, cls.__name__)
        monkeypatch.setattr(torchvision.datasets, "__all__", names)

    return add


class Tiny:
    """A set in memory: image i is of one colour, i."""

    classes = ("left", "right")
    sides = (10,)

    def __init__(self, count: int, root: Path | None = None, download: bool = False) -> None:
        self.count = count
        self.root = root
        self.download = download

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index):
        side = self.sides[index % len(self.sides)]
        return Image.new("RGB", (side, 10), (index, index, index)), index % 2


def test_a_set_without_root_or_split():
    data = load(DataSettings(source="torchvision:FakeData", size=24, max_train=100))
    assert (data.name, data.shape, len(data.classes)) == ("FakeData", (3, 24, 24), 10)
    assert [len(s) for s in (data.train, data.val, data.test)] == [100, 21, 21]
    image, label = torchvision.datasets.FakeData(100)[0]
    expected = image.resize((24, 24), Image.Resampling.BILINEAR)
    everything = load(DataSettings(source="torchvision:FakeData", size=24))
    samples = [
        s[i] for s in (everything.train, everything.val, everything.test) for i in range(len(s))
    ]
    wanted = torch.from_numpy(np.array(expected)).permute(2, 0, 1)
    close = [
        found for x, found in samples if (everything.unnormalise(x) * 255 - wanted).abs().max() < 2
    ]
    assert close == [label]


def test_a_set_with_a_train_flag(register):
    class Flagged(Tiny):
        def __init__(self, root, train=True, download=False):
            super().__init__(40 if train else 12, root, download)

    register(Flagged)
    data = load(DataSettings(source="torchvision:Flagged"))
    assert data.classes == ("left", "right")
    assert [len(s) for s in (data.train, data.val, data.test)] == [34, 6, 12]
    assert data.test.labels.tolist() == [0, 1] * 6
    assert (data.unnormalise(data.test[7][0]) * 255).round().unique().tolist() == [7]


@pytest.mark.parametrize(
    ("counts", "sizes"),
    [
        ({"train": 40, "val": 10, "test": 12}, [40, 10, 12]),
        ({"train": 40, "valid": 10, "test": 12}, [40, 10, 12]),
        ({"trainval": 40, "test": 12}, [34, 6, 12]),
        ({"train": 40, "val": 10}, [34, 6, 10]),
    ],
)
def test_a_set_with_named_splits(register, counts, sizes):
    class Named(Tiny):
        def __init__(self, root, split="train"):
            if split not in counts:
                raise ValueError(f"Unknown value '{split}' for argument split.")
            super().__init__(counts[split], root)

    register(Named)
    data = load(DataSettings(source="torchvision:Named"))
    assert [len(s) for s in (data.train, data.val, data.test)] == sizes


def test_a_set_with_splits_of_other_names(register):
    class Odd(Tiny):
        def __init__(self, split):
            raise ValueError(f"Unknown value '{split}' for argument split.")

    register(Odd)
    with pytest.raises(DataError, match=r"a split named train or trainval: .*'test'"):
        load(DataSettings(source="torchvision:Odd"))


def test_images_of_several_sizes_need_a_size(register):
    class Mixed(Tiny):
        sides = (10, 14)

        def __init__(self):
            super().__init__(40)

    register(Mixed)
    with pytest.raises(DataError, match=r"differ in size, \(10, 10\) and \(10, 14\): give a size"):
        load(DataSettings(source="torchvision:Mixed"))
    assert load(DataSettings(source="torchvision:Mixed", size=8)).shape == (3, 8, 8)


def test_grey_among_colour_becomes_rgb(register):
    class Partly(Tiny):
        def __init__(self, root, train=True):
            self.train = train
            super().__init__(20, root)

        def __getitem__(self, index):
            image, label = super().__getitem__(index)
            return (image if self.train else image.convert("L")), label

    register(Partly)
    data = load(DataSettings(source="torchvision:Partly"))
    assert data.shape == (3, 10, 10)
    assert (data.unnormalise(data.test[7][0]) * 255).round().unique().tolist() == [7]


def test_a_set_too_large_for_memory(register):
    class Huge(Tiny):
        def __init__(self):
            super().__init__(2**31)

    register(Huge)
    with pytest.raises(DataError, match=r"take 600.0 GiB, more than 4: give a smaller size"):
        load(DataSettings(source="torchvision:Huge"))


def test_a_set_that_is_not_on_disk(tmp_path):
    settings = DataSettings(source="torchvision:CIFAR10", root=str(tmp_path / "sets"))
    with pytest.raises(DataError, match=r"CIFAR10 cannot be read from .*sets; pass --download"):
        load(settings)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("CIFAR11", "name a class of torchvision.datasets, got 'CIFAR11'"),
        ("CocoDetection", "CocoDetection needs more than a root and a split: .*annFile"),
    ],
)
def test_names_that_cannot_be_used(name, message):
    with pytest.raises(DataError, match=message):
        load(DataSettings(source=f"torchvision:{name}"))


def test_a_set_without_classes(register):
    class Pairs(Tiny):
        def __init__(self):
            super().__init__(40)

        def __getitem__(self, index):
            return super().__getitem__(index)[0], {"boxes": []}

    register(Pairs)
    with pytest.raises(DataError, match="one class each; it is no classification set"):
        load(DataSettings(source="torchvision:Pairs"))
