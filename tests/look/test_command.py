"""``whatwhere look``: what a user sees of it, and where its files are."""

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from whatwhere import attend, save
from whatwhere.cli import app
from whatwhere.commands.look import plain_of
from whatwhere.study.networks import SmallResNet

FACTS = {"shape": [3, 16, 16], "mean": [0.5] * 3, "std": [0.5] * 3, "classes": ["cat", "dog"]}


def checkpoint(path, *, gate="cbam", facts=FACTS):
    path.parent.mkdir(parents=True, exist_ok=True)
    model = SmallResNet(2, channels=(8,), blocks=(1,))
    if gate is not None:
        attend(model, gate)
    network = "whatwhere.study.networks.SmallResNet"
    arguments = {"classes": 2, "channels": [8], "blocks": [1]}
    save(model, path, network=network, arguments=arguments, facts=facts)
    return path


@pytest.fixture
def pictures(tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / folder / "a cat.png")
    (tmp_path / "two" / "words.txt").write_text("no picture")
    return tmp_path


def run(*arguments):
    return CliRunner().invoke(app, ["look", *map(str, arguments)])


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_each_input_has_a_folder_with_an_overview_and_each_gate(pictures):
    model = checkpoint(pictures / "run/trials/cbam-seed0/model.safetensors")
    plain = checkpoint(pictures / "run/trials/none-seed0/model.safetensors", gate=None)
    before = files(pictures)
    out = pictures / "out"
    done = run(model, pictures / "one/a cat.png", pictures / "two", "--out", out)
    assert done.exit_code == 0, done.output
    names = [
        "gate-01-stages.0.0.bn2.attention.gates.channel.png",
        "gate-02-stages.0.0.bn2.attention.gates.spatial.png",
        "overview.png",
    ]
    folders = ("a_cat.png", "a_cat.png-2")
    assert files(out) == sorted(f"{each}/{name}" for each in folders for name in names)
    assert [name for name in files(pictures) if not name.startswith("out/")] == before
    for path in out.glob("*/*.png"):
        with Image.open(path) as image:
            image.load()
            assert min(image.size) > 200
    words = " ".join(done.output.split())
    assert f"Grad-CAM of {plain} beside it" in words
    assert "words.txt: neither an image, a video nor arrays" in words
    assert "a cat.png: cat " in words or "a cat.png: dog " in words


def test_what_was_there_is_replaced_whole(pictures):
    model, out = checkpoint(pictures / "model.safetensors"), pictures / "out"
    old = out / "a_cat.png/overview.png"
    old.parent.mkdir(parents=True)
    old.write_bytes(b"old")
    held = old.open("rb")  # a reader sees the old file to its end
    with held:
        assert run(model, pictures / "one", "--out", out).exit_code == 0
        assert held.read() == b"old"
    with Image.open(old) as image:
        assert image.format == "PNG"
    assert not [name for name in files(out) if ".part" in name]


def test_nothing_to_look_at_is_an_error(pictures):
    model = checkpoint(pictures / "model.safetensors")
    done = run(model, pictures / "two/words.txt", "--out", pictures / "out")
    assert "expected at least one input, got none" in str(done.exception)
    assert not (pictures / "out").exists()


def test_defaults_are_said_where_the_checkpoint_is_silent(pictures):
    facts = {"shape": [3, 16, 16]}
    model = checkpoint(pictures / "model.safetensors", facts=facts)
    done = run(model, pictures / "one", "--mean", "0.1,0.2,0.3", "--out", pictures / "out")
    assert "assumed std (0.229, 0.224, 0.225)" in done.output
    assert "class 0 " in done.output or "class 1 " in done.output
    wrong = run(model, pictures / "one", "--mean", "0.1,x", "--out", pictures / "out")
    assert "expected --mean as in 0.5,0.5,0.5, got '0.1,x'" in str(wrong.exception)


def test_the_plain_network_is_the_one_with_the_same_seed(tmp_path):
    seeds = [tmp_path / f"trials/none-seed{seed}/model.safetensors" for seed in (0, 1)]
    for path in seeds:
        path.parent.mkdir(parents=True)
        path.touch()
    assert plain_of(tmp_path / "trials/cbam_order=x-seed1/model.safetensors") == seeds[1]
    assert plain_of(tmp_path / "trials/se-seed2/model.safetensors") is None
    assert plain_of(seeds[0]) is None
    assert plain_of(tmp_path / "elsewhere/se-seed1/model.safetensors") is None
