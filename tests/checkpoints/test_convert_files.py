"""Files with CBAMs of other code bases, converted by the function and by the command."""

import os
import sys

import pytest
import safetensors.torch
import torch
from torch import nn
from typer.testing import CliRunner

from tests.cases import randomise
from tests.checkpoints.foreign import Official, ResNet, Tutorial
from whatwhere import cli, load
from whatwhere.checkpoints import convert_file, describe

SMALL = {"counts": (1, 1), "width": 16, "classes": 10}


def theirs():
    return ResNet(lambda c: {"cbam": Official(c, c // 16)}, **SMALL).eval()


def plain():
    return ResNet(lambda _channels: {}, **SMALL).eval()


def equal(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


def read(path):
    if path.suffix == ".safetensors":
        return safetensors.torch.load_file(path)
    return torch.load(path, weights_only=True)


def write(state_dict, path, **options):
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(dict(state_dict), path)
    else:
        torch.save(state_dict, path, **options)


@pytest.mark.parametrize("middle", ["ours.safetensors", "ours.pth"])
@pytest.mark.parametrize("name", ["theirs.safetensors", "theirs.pth"])
def test_a_file_becomes_ours_is_loaded_and_comes_back(tmp_path, name, middle):
    model = theirs()
    write(model.state_dict(), tmp_path / name)
    converted = convert_file(tmp_path / name, tmp_path / middle)
    assert (converted.source, len(converted.gates)) == ("official", 2)
    other = load(tmp_path / middle, into=plain())
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(other.eval()(x), model(x))
    convert_file(tmp_path / middle, tmp_path / f"back-{name}", target="official")
    assert equal(read(tmp_path / f"back-{name}"), model.state_dict())
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [name, middle, f"back-{name}"]
    )


def test_what_the_header_says(tmp_path):
    write(theirs().state_dict(), tmp_path / "theirs.pth")
    convert_file(tmp_path / "theirs.pth", tmp_path / "ours.safetensors")
    description = describe(tmp_path / "ours.safetensors")
    assert [gate["site"] for gate in description["gates"]] == ["layer1.0.bn3", "layer2.0.bn3"]
    assert description["facts"]["converted"]["source"] == "official"
    with pytest.raises(ValueError, match="does not say how its network is built"):
        load(tmp_path / "ours.safetensors")


@pytest.mark.parametrize("middle", ["ours.safetensors", "ours.pth"])
def test_a_module_alone_too(tmp_path, middle):
    module = randomise(Tutorial(network="sharedMLP"))
    write(module.state_dict(), tmp_path / "theirs.pth")
    converted = convert_file(tmp_path / "theirs.pth", tmp_path / middle)
    convert_file(
        tmp_path / middle, tmp_path / "back.pth", target="paper", spelling=converted.spelling
    )
    assert equal(read(tmp_path / "back.pth"), module.state_dict())


@pytest.mark.parametrize("options", [{}, {"_use_new_zipfile_serialization": False}])
def test_what_training_scripts_save_beside_the_weights(tmp_path, options):
    """As the authors' script: an epoch, the wrapped network, the optimiser, a best accuracy."""
    model = theirs()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    held = {
        "epoch": 3,
        "arch": "resnet",
        "state_dict": nn.DataParallel(model).state_dict(),
        "best_prec1": torch.tensor(75.0),
        "optimizer": optimizer.state_dict(),
    }
    write(held, tmp_path / "checkpoint.pth", **options)
    converted = convert_file(tmp_path / "checkpoint.pth", tmp_path / "ours.pth")
    assert len(converted.gates) == 2
    write({"model": model.state_dict(), "ema": model.state_dict()}, tmp_path / "two.pth")
    with pytest.raises(ValueError, match=r"of which \['model', 'ema'\] are state_dicts"):
        convert_file(tmp_path / "two.pth", tmp_path / "out.pth")


class Runs:
    def __reduce__(self):
        return os.mkdir, ("made by the file",)


def cut(path, share):
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("a.pth", lambda path: torch.save(Runs(), path), "expected a state_dict, whole"),
        (
            "a.pth",
            lambda path: torch.save({"state_dict": {"a": torch.ones(1)}, "extra": Runs()}, path),
            "expected a state_dict, whole",
        ),
        ("a.pth", lambda path: torch.save(Official(), path), "expected a state_dict, whole"),
        ("a.pth", lambda path: torch.save([1, 2], path), "expected a state_dict in .*, got list"),
        ("a.pth", lambda path: torch.save({"epoch": 1}, path), r"or one beside .*got \['epoch'\]"),
        ("a.pth", lambda path: path.write_bytes(b""), "expected a state_dict, whole"),
        ("a.pth", lambda path: path.write_bytes(b"no tensors"), "expected a state_dict, whole"),
        ("a.safetensors", lambda path: path.write_bytes(b"\x09" + b"\0" * 7 + b"{"), "safetensors"),
        ("a.pth", lambda path: write(plain().state_dict(), path), "found none among"),
        ("a.safetensors", lambda path: write(plain().state_dict(), path), "found none among"),
    ],
    ids=["code", "code beside", "a module", "a list", "no weights", "empty", "text", "header",
         "another network", "another network's safetensors"],
)  # fmt: skip
def test_what_is_no_such_file_is_refused(tmp_path, monkeypatch, name, make, message):
    monkeypatch.chdir(tmp_path)
    make(tmp_path / name)
    with pytest.raises(ValueError, match=message):
        convert_file(tmp_path / name, tmp_path / "out.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("share", [0.0001, 0.01, 0.3, 0.9, 0.999])
@pytest.mark.parametrize("name", ["cut.safetensors", "cut.pth", "old.pth"])
def test_files_cut_short_are_refused(tmp_path, name, share):
    options = {"_use_new_zipfile_serialization": False} if name == "old.pth" else {}
    write(theirs().state_dict(), tmp_path / name, **options)
    cut(tmp_path / name, share)
    with pytest.raises(ValueError, match=r"expected a (state_dict|safetensors file), whole"):
        convert_file(tmp_path / name, tmp_path / "out.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_name_that_says_no_format_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"ends in \.safetensors, \.pth, \.pt, \.bin, got out$"):
        convert_file(tmp_path / "missing", tmp_path / "out")


def run(*arguments):
    return CliRunner().invoke(cli.app, ["convert", *map(str, arguments)])


def test_the_command(tmp_path):
    write(theirs().state_dict(), tmp_path / "theirs.pth")
    done = run(tmp_path / "theirs.pth", tmp_path / "ours.safetensors")
    assert done.exit_code == 0
    assert "2 CBAMs from official to whatwhere: largest difference on random input" in done.output
    assert "layer1.0.cbam -> layer1.0.bn3.attention" in done.output
    assert "dialect='official', reduction_ratio=16, kernel_size=7" in done.output
    done = run(
        tmp_path / "ours.safetensors",
        tmp_path / "back.pth",
        *("--from", "whatwhere", "--to", "timm", "--site", r"(.+)[.]bn3=\1.attn"),
    )
    assert "layer1.0.bn3.attention -> layer1.0.attn" in done.output
    assert "layer1.0.attn.channel.fc1.bias" in read(tmp_path / "back.pth")
    done = run(
        tmp_path / "theirs.pth",
        tmp_path / "paper.pth",
        *("--to", "paper", "--spelling", "ca.sharedMLP.0 sa.conv1 conv_bias", "--eval-only"),
    )
    assert done.exit_code == 1
    assert "no bias in the network" in str(done.exception)


def test_the_command_says_what_is_wrong_in_a_line(tmp_path, monkeypatch, capsys):
    write(plain().state_dict(), tmp_path / "plain.pth")
    arguments = ["whatwhere", "convert", str(tmp_path / "plain.pth"), str(tmp_path / "out.pth")]
    monkeypatch.setattr(sys, "argv", arguments)
    monkeypatch.setattr(sys, "path", [*sys.path])
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    assert exit_.value.code == 2
    assert capsys.readouterr().err.startswith("whatwhere: convert: expected the keys of a CBAM")
