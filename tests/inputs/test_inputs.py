"""Files become what the network saw in its study's test, and a picture in its own aspect."""

import av
import numpy as np
import pytest
import torch
from PIL import Image

from whatwhere import attend, save
from whatwhere.inputs import InputError, Preparation, preparation_of, read, read_one
from whatwhere.study.data import DataSettings, load
from whatwhere.study.networks import SmallResNet

HALF = {1: ((0.5,), (0.5,)), 3: ((0.5,) * 3, (0.5,) * 3)}


def preparation(*shape, **options):
    mean, std = HALF[shape[0]]
    return Preparation(shape=shape, mean=mean, std=std, **options)


def photograph(height, width, channels=3, seed=0):
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (4, 5, channels), dtype=np.uint8)
    smooth = Image.fromarray(small[..., 0] if channels == 1 else small).resize((width, height))
    return np.array(smooth)


@pytest.fixture
def video(tmp_path):
    def write(count=9, size=(32, 48), name="clip.mp4"):
        path = tmp_path / name
        with av.open(str(path), "w") as container:
            stream = container.add_stream("mpeg4", rate=5)
            stream.height, stream.width = size
            stream.pix_fmt = "yuv420p"
            for place in range(count):
                grey = np.full((*size, 3), 20 + place * 20, np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")))
            container.mux(stream.encode(None))
        return path

    return write


def test_an_image_is_what_the_study_tested_on(tmp_path):
    for split, count in (("train", 3), ("val", 1), ("test", 2)):
        for label in "ab":
            folder = tmp_path / "set" / split / label
            folder.mkdir(parents=True)
            for index in range(count):
                seed = 10 * count + index
                Image.fromarray(photograph(50 + index, 70, seed=seed)).save(folder / f"{index}.png")
    data = load(DataSettings(source=str(tmp_path / "set"), size=32))
    assert data.stored == 37
    told = Preparation(shape=data.shape, mean=data.mean, std=data.std, stored=data.stored)
    for index, path in enumerate(sorted((tmp_path / "set/test").rglob("*.png"))):
        given = read_one(path, told)
        assert torch.equal(given.x[0], data.test[index][0])


def test_every_kind_of_image_is_read_by_its_content(tmp_path):
    colour, grey = photograph(40, 60), photograph(40, 60, channels=1)
    Image.fromarray(colour).save(tmp_path / "rgb.txt", format="PNG")
    Image.fromarray(colour).convert("RGBA").save(tmp_path / "rgba.png")
    Image.fromarray(grey).save(tmp_path / "l.png")
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    exact = torch.from_numpy(colour).permute(2, 0, 1) / 255
    for name in ("rgb.txt", "rgba.png"):
        given = read_one(tmp_path / name, preparation(3, 16, 16))
        assert given.kind == "image"
        assert torch.equal(given.display, exact)
        assert given.x.shape == (1, 3, 16, 16)
        assert given.box == (10, 0, 50, 40)
    for name in ("l.png", "deep.png"):
        given = read_one(tmp_path / name, preparation(3, 16, 16))
        assert torch.equal(given.display[0], torch.from_numpy(grey) / 255)
        assert torch.equal(given.x[:, 0], given.x[:, 2])
    seen = read_one(tmp_path / "rgb.txt", preparation(1, 16, 16)).x
    red, green, blue = read_one(tmp_path / "rgb.txt", preparation(3, 16, 16)).x[0]
    assert torch.allclose(seen[0, 0], 0.299 * red + 0.587 * green + 0.114 * blue, atol=0.02)


def test_cameras_turn_their_pictures_and_large_ones_are_made_smaller(tmp_path):
    image = Image.fromarray(photograph(600, 1200))
    exif = image.getexif()
    exif[274] = 6  # to be turned clockwise
    image.save(tmp_path / "turned.jpg", exif=exif)
    given = read_one(tmp_path / "turned.jpg", preparation(3, 32, 32, stored=40))
    assert given.display.shape == (3, 768, 384)
    side = round(384 * 32 / 40)
    assert given.box == (38, 230, 38 + side, 230 + side)


def test_frames_are_evenly_spaced_over_the_video(video):
    path = video(count=9)
    given = read_one(path, preparation(1, 5, 16, 16))
    assert (given.kind, given.x.shape, given.display.shape) == (
        "video",
        (1, 1, 5, 16, 16),
        (3, 5, 32, 48),
    )
    levels = given.display.mean((0, 2, 3)) * 255
    assert torch.allclose(levels, torch.tensor([20.0, 60, 100, 140, 180]), atol=4)
    assert torch.allclose(given.x.mean((0, 1, 3, 4)), levels / 127.5 - 1, atol=0.03)
    assert given.box == (8, 0, 40, 32)
    few = read_one(video(count=3), preparation(1, 5, 16, 16)).display.mean((0, 2, 3)) * 255
    assert torch.allclose(few, torch.tensor([20.0, 20, 40, 60, 60]), atol=4)


def test_a_network_of_images_sees_frames_as_a_batch(video):
    given = read_one(video(count=9), preparation(3, 16, 16), frames=3)
    assert (given.x.shape, given.display.shape) == ((3, 3, 16, 16), (3, 3, 32, 48))


def test_an_animation_is_a_video_for_a_network_of_clips(tmp_path):
    frames = [Image.fromarray(np.full((20, 30), level, np.uint8)) for level in (0, 100, 200)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:], duration=100)
    given = read_one(tmp_path / "a.gif", preparation(1, 3, 16, 16))
    levels = given.display.mean((0, 2, 3)) * 255
    assert torch.allclose(levels, torch.tensor([0.0, 100, 200]), atol=3)
    assert read_one(tmp_path / "a.gif", preparation(3, 16, 16)).kind == "image"


def test_arrays_of_images_clips_volumes_and_sequences(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (7, 20, 30), dtype=np.uint8)
    np.savez(tmp_path / "images.npz", train_images=images + 1, test_images=images)
    found, _ = read([tmp_path / "images.npz"], preparation(1, 20, 20), most=3)
    assert [each.name for each in found] == [f"images.npz[{row}]" for row in (0, 3, 6)]
    assert torch.equal(found[1].display[0], torch.from_numpy(images[3]) / 255)
    assert torch.allclose(found[1].x[0, 0], found[1].display[0, :, 5:25] * 2 - 1)
    one, colour = images[0], rng.random((9, 9, 3), dtype=np.float32)
    np.save(tmp_path / "one.npy", one)
    np.save(tmp_path / "colour.npy", colour)
    assert read_one(tmp_path / "one.npy", preparation(1, 20, 20)).display.shape == (1, 20, 30)
    shown = read_one(tmp_path / "colour.npy", preparation(3, 9, 9)).display
    assert torch.allclose(shown, torch.from_numpy(colour).permute(2, 0, 1), atol=1 / 255)
    np.savez(tmp_path / "clips.npz", a=rng.integers(0, 256, (2, 5, 8, 8), dtype=np.uint8))
    clip = read_one(tmp_path / "clips.npz", preparation(1, 5, 8, 8))
    assert (clip.name, clip.kind, clip.x.shape) == ("clips.npz", "video", (1, 1, 5, 8, 8))
    assert read_one(tmp_path / "clips.npz", preparation(1, 5, 8, 8), volumes=True).kind == "volume"
    np.savez(tmp_path / "lines.npz", train_sequences=rng.standard_normal((4, 3, 50)))
    line = read_one(tmp_path / "lines.npz", Preparation((3, 50), (1.0,) * 3, (2.0,) * 3))
    assert (line.kind, line.x.shape) == ("sequence", (1, 3, 50))
    assert torch.allclose(line.x[0], (line.display - 1) / 2)


def bad_files(folder, video):
    (folder / "words.jpg").write_text("no picture\n" * 300)
    (folder / "empty.png").write_bytes(b"")
    Image.fromarray(photograph(40, 60)).save(folder / "good.png")
    (folder / "torn.png").write_bytes((folder / "good.png").read_bytes()[:1500])
    # A playlist that would fetch from a host, and a zip file that is no .npz.
    playlist = "#EXTM3U\n#EXTINF:9,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n"
    (folder / "list.m3u8").write_text(playlist)
    (folder / "zip.npz").write_bytes(b"PK\x03\x04 no archive")
    (folder / ".hidden.png").write_bytes(b"")
    np.savez(folder / "objects.npz", a=np.array([{}], dtype=object))
    np.savez(folder / "strings.npz", a=np.full((2, 9, 9), "x"))
    np.savez(folder / "range.npz", a=np.full((9, 9), 7.5))
    video(name="torn.mp4").write_bytes((folder / "torn.mp4").read_bytes()[:300])


def test_bad_files_are_told_in_a_line_each_and_the_others_read(tmp_path, video):
    bad_files(tmp_path, video)
    found, skipped = read([tmp_path, tmp_path / "absent.png"], preparation(3, 16, 16))
    assert [each.name for each in found] == ["good.png"]
    reasons = {bad.path.rpartition("/")[2]: bad.reason for bad in skipped}
    assert sorted(reasons) == sorted(
        {"words.jpg", "empty.png", "torn.png", "list.m3u8", "zip.npz", "objects.npz"}
        | {"strings.npz", "range.npz", "torn.mp4", "absent.png"}
    )
    assert all("\n" not in reason and reason for reason in reasons.values())
    for name in ("words.jpg", "empty.png", "list.m3u8", "torn.mp4"):
        assert reasons[name].startswith("neither an image, a video nor arrays")
    assert "truncated" in reasons["torn.png"]
    assert "No such file" in reasons["absent.png"]
    assert "got a of float64" in reasons["range.npz"]
    (tmp_path / "good.png").unlink()
    with pytest.raises(InputError, match=r"expected at least one input, got none\. .*words.jpg"):
        read([tmp_path], preparation(3, 16, 16))


def test_files_of_another_kind_than_the_network_takes_are_refused(tmp_path, video):
    Image.fromarray(photograph(40, 60)).save(tmp_path / "still.png")
    with pytest.raises(InputError, match="an image, and the network takes clips or volumes, 1×5×"):
        read_one(tmp_path / "still.png", preparation(1, 5, 16, 16))
    with pytest.raises(InputError, match="no array, and the network takes sequences"):
        read_one(video(), preparation(1, 50))
    six = Preparation((6, 16, 16), (0.5,) * 6, (0.5,) * 6)
    with pytest.raises(InputError, match="the network takes 6 channels, the file has 3"):
        read_one(tmp_path / "still.png", six)


def test_embedded_sets_are_read_by_name():
    data = load(DataSettings(source="digits"))
    told = Preparation(data.shape, data.mean, data.std)
    found, _ = read(["digits"], told, most=2)
    assert [each.name for each in found] == ["digits[0]", "digits[999]"]
    assert torch.allclose(found[1].x[0], data.test[999][0], atol=1e-5)


def saved(path, **facts):
    model = SmallResNet(4, channels=(8,), blocks=(1,))
    attend(model, "cbam")
    arguments = {"classes": 4, "channels": [8], "blocks": [1]}
    save(
        model,
        path,
        network="whatwhere.study.networks.SmallResNet",
        arguments=arguments,
        facts=facts,
    )
    return path


def test_the_checkpoint_says_what_its_network_takes_or_is_asked(tmp_path):
    facts = {"shape": [3, 16, 16], "mean": [0.1] * 3, "std": [0.2] * 3, "stored": 18}
    told = preparation_of(saved(tmp_path / "a.safetensors", classes=["x", "y"], **facts))
    assert told == Preparation((3, 16, 16), (0.1,) * 3, (0.2,) * 3, ("x", "y"), 18)
    bare = saved(tmp_path / "b.safetensors")
    with pytest.raises(InputError, match="pass the shape of one input, as in --shape 3x224x224"):
        preparation_of(bare)
    given = preparation_of(bare, shape=(3, 16, 16), mean=(0.5,) * 3)
    assert given.mean == (0.5,) * 3
    assert given.assumed == "assumed std (0.229, 0.224, 0.225)"
    with pytest.raises(InputError, match="expected a mean for each of 3 channels, got 1"):
        preparation_of(bare, shape=(3, 16, 16), mean=(0.5,))
