"""A classifier of the embedded digits in int8: its accuracy is held to a bound."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader

from whatwhere import attend
from whatwhere.export import ExportError, export, quantize
from whatwhere.study.data import DataSettings, load
from whatwhere.study.networks import SmallResNet

pytest.importorskip("onnxruntime", reason="whatwhere[export] is not installed")
pytest.importorskip("onnxscript", reason="whatwhere[export] is not installed")


def trained(data, epochs):
    model = SmallResNet(10, in_channels=1, channels=(16, 32), blocks=(1, 1))
    attend(model, "cbam", example=torch.zeros(1, *data.shape))
    loader = DataLoader(data.train, batch_size=50, shuffle=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 6e-3, epochs * len(loader))
    for _ in range(epochs):
        for x, labels in loader:
            optimizer.zero_grad()
            F.cross_entropy(model(x), labels).backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def test_int8_keeps_the_accuracy(tmp_path):
    data = load(DataSettings(size=24, max_train=3000))
    model = trained(data, epochs=10)
    calibration = [x for x, _ in DataLoader(data.train, batch_size=50)][:6]
    test = list(DataLoader(data.test, batch_size=100))
    source, target = tmp_path / "net.onnx", tmp_path / "net.int8.onnx"
    export(model, source, to="onnx", example=torch.zeros(1, *data.shape))
    done = quantize(source, target, calibration, test)
    with torch.no_grad():
        live = sum(int((model(x).argmax(1) == labels).sum()) for x, labels in test)
    assert done.samples == len(data.test) > 400
    assert done.source_accuracy == live / done.samples > 0.8
    assert done.accuracy >= done.source_accuracy - 0.02
    assert target.stat().st_size < source.stat().st_size / 2

    target.unlink()
    dark = [torch.zeros_like(x) for x in calibration]  # says nothing of the range of real inputs
    with pytest.raises(ExportError, match=r"lose at most 0\.02"):
        quantize(source, target, dark, test)
    assert list(tmp_path.iterdir()) == [source]
    with pytest.raises(ValueError, match="got 0 and"):
        quantize(source, target, [], test)
    with pytest.raises(ValueError, match="another file"):
        quantize(source, source, calibration, test)
