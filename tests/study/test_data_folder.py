"""Image folders, of real photographs written out as files: layouts, formats, and broken files."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image

from whatwhere.study.data import Augmented, DataError, DataSettings, load
from whatwhere.study.data import folder as folder_module
from whatwhere.study.data.pixels import to_pixels

TEXTURES = {name: getattr(skimage.data, name)() for name in ("brick", "grass", "gravel")}
SIDE = 48


def patches(name: str, count: int, *, first: int = 0, colour: bool = False) -> list[Image.Image]:
    """Disjoint patches of a photograph, of 100 that it has."""
    photograph = TEXTURES[name]
    if colour:
        photograph = np.stack([photograph, photograph // 2, 255 - photograph], -1)
    corners = [(y, x) for y in range(0, 480, SIDE) for x in range(0, 480, SIDE)]
    return [
        Image.fromarray(np.ascontiguousarray(photograph[y : y + SIDE, x : x + SIDE]))
        for y, x in corners[first : first + count]
    ]


def write(root: Path, count: int, *, first: int = 0, colour: bool = False) -> None:
    for name in TEXTURES:
        (root / name).mkdir(parents=True)
        for number, patch in enumerate(patches(name, count, first=first, colour=colour)):
            patch.save(root / name / f"{number:03}.png")


def settings(root: Path, **options) -> DataSettings:
    return DataSettings(source=str(root), size=28, **options)


def sizes(data) -> list[int]:
    return [len(data.train), len(data.val), len(data.test)]


@pytest.fixture
def textures(tmp_path) -> Path:
    write(tmp_path / "textures", 20)
    return tmp_path / "textures"


def test_class_folders_are_cut(textures):
    (textures / "brick" / "notes.txt").write_text("no image")
    (textures / "brick" / "._000.png").write_text("left by macOS")
    data = load(settings(textures))
    assert (data.name, data.classes) == ("textures", ("brick", "grass", "gravel"))
    assert (data.shape, data.ndim) == ((1, 28, 28), 2)
    assert sizes(data) == [42, 9, 9]
    for split, each in ((data.train, 14), (data.val, 3), (data.test, 3)):
        assert split.labels.bincount().tolist() == [each] * 3
    assert data.skipped == ()
    assert load(settings(textures)).fingerprint == data.fingerprint
    assert load(settings(textures, split_seed=1)).fingerprint != data.fingerprint


def test_samples_are_the_photographs(textures):
    data = load(settings(textures))
    x, label = data.train[0]
    expected = [
        np.asarray(patch.resize((32, 32), Image.Resampling.BILINEAR))[2:30, 2:30]
        for patch in patches(data.classes[label], 20)
    ]
    shown = (data.unnormalise(x) * 255)[0].numpy()
    assert min(np.abs(shown - each).max() for each in expected) < 2


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"train": 20, "val": 4, "test": 6}, [60, 12, 18]),
        ({"train": 20, "valid": 4, "test": 6}, [60, 12, 18]),
        ({"Train": 20, "Validation": 4, "Test": 6}, [60, 12, 18]),
        ({"train": 20, "test": 6}, [51, 9, 18]),
        ({"train": 20, "val": 4}, [51, 9, 12]),
        ({"train": 20}, [42, 9, 9]),
    ],
)
def test_split_folders(tmp_path, given, expected):
    first = 0
    for name, count in given.items():
        write(tmp_path / name, count, first=first)
        first += count
    assert sizes(load(settings(tmp_path))) == expected


def test_a_class_may_be_called_train(tmp_path):
    write(tmp_path, 10)
    (tmp_path / "brick").rename(tmp_path / "train")
    assert load(settings(tmp_path)).classes == ("grass", "gravel", "train")


def test_grey_among_colour_becomes_rgb(tmp_path):
    write(tmp_path, 10, colour=True)
    for path in sorted((tmp_path / "brick").iterdir()):
        Image.open(path).convert("L").save(path)
    data = load(settings(tmp_path))
    assert data.shape == (3, 28, 28)
    x = torch.stack([data.unnormalise(data.train[i][0]) for i in range(len(data.train))])
    spread = (x.amax(1) - x.amin(1)).flatten(1).amax(1)
    assert torch.equal(spread < 1e-6, data.train.labels == data.classes.index("brick"))


def test_broken_files_are_skipped_and_named(textures):
    whole = (textures / "grass" / "003.png").read_bytes()
    (textures / "grass" / "003.png").write_bytes(whole[: len(whole) // 2])
    (textures / "gravel" / "notes.jpg").write_text("not a photograph at all")
    photograph = textures / "gravel" / "004.jpg"
    patches("gravel", 1, first=50)[0].save(photograph)
    photograph.write_bytes(photograph.read_bytes()[:500])
    data = load(settings(textures))
    assert {Path(each.path).name for each in data.skipped} == {"003.png", "notes.jpg", "004.jpg"}
    reasons = {Path(each.path).name: each.reason for each in data.skipped}
    assert "truncated" in reasons["003.png"]
    assert "cannot identify" in reasons["notes.jpg"]
    assert "truncated" in reasons["004.jpg"]
    assert sum(sizes(data)) == 59


def test_too_many_broken_files(textures):
    for number in range(7):
        (textures / "brick" / f"{number:03}.png").write_text("")
    message = r"7 of 60 images cannot be read, more than max_unreadable=6; .*\n.*brick/000.png: "
    with pytest.raises(DataError, match=message):
        load(settings(textures, max_unreadable=6))
    assert len(load(settings(textures, max_unreadable=7)).skipped) == 7


def test_a_class_of_broken_files(textures):
    for path in (textures / "grass").iterdir():
        path.write_text("")
    with pytest.raises(DataError, match="class 'grass' has no readable images for train"):
        load(settings(textures))


def test_folders_too_large_for_memory_are_decoded_when_used(textures, monkeypatch):
    write(textures.parent / "more", 20, colour=True)
    for path in sorted((textures.parent / "more" / "brick").iterdir()):
        Image.open(path).convert("L").save(path)
    for root in (textures, textures.parent / "more"):
        kept = load(settings(root))
        with monkeypatch.context() as patch:
            patch.setattr(folder_module, "MEMORY", 0)
            lazy = load(settings(root))
        assert lazy.fingerprint == kept.fingerprint
        assert (lazy.mean, lazy.std) == (kept.mean, kept.std)
        for index in range(len(kept.train)):
            assert torch.equal(lazy.train[index][0], kept.train[index][0])
        assert torch.equal(Augmented(lazy.train, seed=1)[5][0], Augmented(kept.train, seed=1)[5][0])


def test_a_file_that_goes_away_is_named(textures, monkeypatch):
    monkeypatch.setattr(folder_module, "MEMORY", 0)
    data = load(settings(textures))
    shutil.rmtree(textures / "brick")
    with pytest.raises(DataError, match=r"brick.*\.png was readable at first and no longer is"):
        [data.train[index] for index in range(len(data.train))]


def test_fingerprint_follows_the_content(textures):
    before = load(settings(textures)).fingerprint
    textures.rename(textures.parent / "moved")
    assert load(settings(textures.parent / "moved")).fingerprint == before
    patches("brick", 1, first=77)[0].save(textures.parent / "moved" / "brick" / "000.png")
    assert load(settings(textures.parent / "moved")).fingerprint != before


def test_progress_is_shown_for_many_files(textures, monkeypatch, capsys):
    monkeypatch.setattr(folder_module, "PROGRESS_FROM", 10)
    monkeypatch.setenv("FORCE_COLOR", "1")  # as on a terminal
    load(settings(textures))
    assert "Checking images" in capsys.readouterr().err


def test_cameras_hold_themselves_upright(tmp_path):
    upright = patches("brick", 1, colour=True)[0]
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    assert torch.equal(to_pixels(Image.open(tmp_path / "turned.png")), to_pixels(upright))


def test_deep_grey_keeps_its_range(tmp_path):
    deep = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    pixels = to_pixels(Image.open(tmp_path / "deep.png"))
    assert pixels.flatten().tolist() == (deep >> 8).flatten().tolist()
    with pytest.raises(ValueError, match="mode F has no known range"):
        to_pixels(Image.fromarray(np.zeros((4, 4), np.float32)))


def test_palettes_and_transparency(tmp_path):
    for mode in ("P", "LA", "RGBA", "CMYK"):
        assert to_pixels(patches("brick", 1, colour=True)[0].convert(mode)).shape == (3, SIDE, SIDE)
    see_through = patches("brick", 1)[0].convert("P")
    see_through.save(tmp_path / "see_through.png", transparency=bytes(range(256)))
    assert to_pixels(Image.open(tmp_path / "see_through.png")).shape == (3, SIDE, SIDE)


def _no_images(root):
    (root / "a").mkdir(parents=True)
    (root / "b").mkdir()


def _flat(root):
    root.mkdir()
    patches("brick", 1)[0].save(root / "a.png")


def _one_class(root):
    write(root, 10)
    shutil.rmtree(root / "brick")
    shutil.rmtree(root / "grass")


def _few(root):
    write(root, 10)
    for number in range(2, 10):
        (root / "grass" / f"{number:03}.png").unlink()


def _other_classes(root):
    write(root / "train", 10)
    write(root / "test", 10)
    (root / "test" / "brick").rename(root / "test" / "bricks")


def _empty_class(root):
    write(root, 10)
    (root / "moss").mkdir()


def _no_train(root):
    write(root / "val", 10)
    write(root / "test", 10)


def _two_vals(root):
    for name in ("train", "val", "valid"):
        write(root / name, 10)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_no_images, "one folder of images per class .* found 2 folders without images and 0"),
        (_flat, "found 0 folders without images and 1 images beside them"),
        (_one_class, "at least 2 classes, got 1: gravel"),
        (_few, "class 'grass' has 2 training samples, too few"),
        (
            _other_classes,
            r"same classes in train/ and test/, .* lacks \[brick\] and adds \[bricks\]",
        ),
        (_empty_class, "class 'moss' has no images in "),
        (_no_train, "expected a train folder in .* beside test, val, found none"),
        (_two_vals, "expected one folder for val in .*, found val and valid"),
    ],
)
def test_wrong_folders(tmp_path, make, message):
    make(tmp_path / "root")
    with pytest.raises(DataError, match=message):
        load(settings(tmp_path / "root"))
