"""Files of networks with gates: they compute what the network does, at sizes not traced."""

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from tests.cases import randomise
from tests.surgery.test_family import network
from whatwhere import attend, save
from whatwhere.cli import app
from whatwhere.export import ExportError, export
from whatwhere.export import network as exporting
from whatwhere.study.networks import SmallResNet

onnxruntime = pytest.importorskip("onnxruntime", reason="whatwhere[export] is not installed")
pytest.importorskip("onnxscript", reason="whatwhere[export] is not installed")

# One of each kind of arithmetic; docs/export.md has all.
GATES = ("cbam", "fca", "tam")


def gated(name="cbam"):
    model, x = network(name)
    attend(model, name, example=x, start="paper")
    return randomise(model), x  # a gate whose last layer is 0 would hide what is wrong before it


def in_onnxruntime(path, x):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {"x": x.numpy()})[0])


def assert_agrees(found, wanted):
    assert found.shape == wanted.shape
    assert (found - wanted).abs().max() <= 1e-5 * wanted.abs().max()


@pytest.mark.parametrize("name", GATES)
def test_onnx_files_of_gates(name, tmp_path):
    model, x = gated(name)
    done = export(model, tmp_path / "net.onnx", to="onnx", example=x)
    assert done.dynamic == (0, *range(2, x.ndim))
    assert len(set(done.differences) - {done.traced}) == 4
    for sizes in ((1, 5, 21, 33), (7, 4, 40, 18)):
        other = torch.randn(sizes[0], 2, *sizes[-(x.ndim - 2) :])
        with torch.no_grad():
            assert_agrees(in_onnxruntime(done.path, other), model(other))
    assert [each.name for each in tmp_path.iterdir()] == ["net.onnx"]


def test_onnx_axes_have_names(tmp_path):
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU())
    export(model, tmp_path / "net.onnx", to="onnx", example=torch.zeros(1, 2, 9, 9))
    session = onnxruntime.InferenceSession(str(tmp_path / "net.onnx"))
    assert session.get_inputs()[0].shape == ["batch", 2, "height", "width"]


def test_a_program_of_torch_export(tmp_path):
    model, x = gated()
    model.train()
    done = export(model, tmp_path / "net.pt2", to="torch-export", example=x)
    assert model.training
    program = torch.export.load(done.path)
    assert "whatwhere" not in str(program.graph)
    other = torch.randn(1, 2, 21, 33)
    with torch.no_grad():
        assert_agrees(program.module()(other), model.eval()(other))


def test_a_package_of_aotinductor(tmp_path):
    model = SmallResNet(3, in_channels=2, channels=(8,), blocks=(1,)).eval()
    attend(model, "cbam", example=torch.zeros(1, 2, 9, 9), start="paper")
    done = export(model, tmp_path / "net.pt2", to="aoti", example=torch.zeros(1, 2, 9, 9))
    assert done.dynamic == (0, 2, 3)
    other = torch.randn(1, 2, 21, 33)
    with torch.no_grad():
        assert_agrees(torch._inductor.aoti_load_package(str(done.path))(other), model(other))


def test_what_takes_one_size_is_exported_for_that(tmp_path):
    model = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.Flatten(), nn.Linear(4 * 64, 3))
    done = export(model, tmp_path / "net.onnx", to="onnx", example=torch.zeros(1, 2, 8, 8))
    assert done.dynamic == (0,)
    assert "height is fixed at 8: the network took no other size" in str(done)
    assert {shape[0] for shape in done.differences} == {2, 1, 3, 5}


def test_maps_of_one_position_are_no_constant(tmp_path):
    strided = [nn.Conv2d(2, 4, 3, stride=8, padding=1), nn.BatchNorm2d(4)]
    model = nn.Sequential(*strided, nn.Flatten(2), nn.Conv1d(4, 4, 1)).eval()
    done = export(model, tmp_path / "net.onnx", to="onnx", example=torch.zeros(1, 2, 8, 8))
    x = torch.randn(2, 2, 40, 24)
    with torch.no_grad():
        assert_agrees(in_onnxruntime(done.path, x), model(x))


def test_what_code_reads_is_fixed_with_a_word(tmp_path):
    class Reads(nn.Module):
        def forward(self, x):
            return sum(x[:, :, row] for row in range(x.shape[2]))

    model = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), Reads())
    done = export(model, tmp_path / "net.pt2", to="torch-export", example=torch.zeros(1, 2, 8, 6))
    assert done.dynamic == (0, 3)
    assert "height is fixed at 8: the network's code reads it" in done.notes


def test_a_file_that_differs_is_not_left_behind(tmp_path, monkeypatch):
    # Adaptive pooling as the exporter translates it: windows of the traced size.
    monkeypatch.setattr(exporting.targets, "decomposed", lambda program: program)
    model = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.AdaptiveAvgPool2d(3))
    x = torch.zeros(1, 2, 9, 9)
    path = tmp_path / "net.onnx"
    path.write_bytes(b"an older file")
    with pytest.raises(ExportError, match=r"(differs from|does not run).*dynamic=\"batch\""):
        export(model, path, to="onnx", example=x)
    assert path.read_bytes() == b"an older file"
    assert list(tmp_path.iterdir()) == [path]
    assert export(model, path, to="onnx", example=x, dynamic="batch").dynamic == (0,)


def test_wrong_values_are_measured_against_the_largest_output():
    wanted = [torch.tensor([100.0, 1.0])]
    assert exporting._difference(wanted, [torch.tensor([100.0, 2.0])]) == pytest.approx(0.01)
    assert exporting._difference(wanted, [torch.tensor([[100.0, 1.0]])]) == float("inf")
    nan = exporting._difference(wanted, [torch.tensor([100.0, float("nan")])])
    assert not nan <= exporting.TOLERANCE


def test_refusals(tmp_path):
    model = nn.Conv2d(2, 4, 3)
    with pytest.raises(ExportError, match=r"torch\.jit\.script can't compile"):
        export(model, tmp_path / "net.pt", to="torchscript")
    with pytest.raises(ValueError, match=r"ending in \.onnx"):
        export(model, tmp_path / "net.pt2", to="onnx")
    with pytest.raises(ValueError, match=r"float32, got torch\.bfloat16"):
        export(nn.Conv2d(2, 4, 3).bfloat16(), tmp_path / "net.onnx", to="onnx")
    with pytest.raises(ValueError, match=r"folder of .* to exist"):
        export(model, tmp_path / "none" / "net.onnx", to="onnx")
    assert list(tmp_path.iterdir()) == []


def test_the_command(tmp_path):
    arguments = {"classes": 3, "in_channels": 2, "channels": [8], "blocks": [1]}
    model = SmallResNet(3, in_channels=2, channels=(8,), blocks=(1,))
    attend(model, "se", example=torch.zeros(1, 2, 9, 9))
    checkpoint = tmp_path / "net.safetensors"
    name = "whatwhere.study.networks.SmallResNet"
    save(model, checkpoint, network=name, arguments=arguments)
    given = ["export", str(checkpoint), "--to", "torch-export", "--shape", "2x20x24"]
    result = CliRunner().invoke(app, given, catch_exceptions=False)
    assert result.exit_code == 0
    assert "any batch, height, width" in result.output
    assert "1x2x21x33: differs from the live network by" in result.output
    assert (tmp_path / "net.pt2").exists()
