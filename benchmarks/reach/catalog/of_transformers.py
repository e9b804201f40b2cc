"""Networks of Hugging Face transformers from their default configurations."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
import transformers
from torch import nn

from benchmarks.reach.catalog.entry import Arguments, Entry, volume

CLASSIFICATION = (
    *("ResNet", "RegNet", "ConvNext", "ConvNextV2", "MobileNetV1", "MobileNetV2", "EfficientNet"),
    *("Bit", "HGNetV2", "TextNet", "PoolFormer", "FocalNet", "MobileViT", "MobileViTV2"),
    *("SwiftFormer", "PvtV2", "Segformer", "Cvt", "Levit", "Swin", "ViT"),
)
STAGES = ["stage1", "stage2", "stage3", "stage4"]
SMALL = {"EfficientNet": {"width_coefficient": 1.0, "depth_coefficient": 1.0, "hidden_dim": 1280}}


def entries() -> Iterator[Entry]:
    """The networks, in the order of the table."""
    for family in CLASSIFICATION:
        side = 256 if family in ("MobileViT", "MobileViTV2") else 224
        build = _configured(f"{family}ForImageClassification", family, SMALL.get(family, {}))
        yield Entry(f"{family}ForImageClassification", build, _pixels(side))
    for family in ("MobileNetV2", "MobileViT"):
        build = _configured(f"{family}ForSemanticSegmentation", family, {})
        yield Entry(f"{family}ForSemanticSegmentation", build, _pixels(256))
    backbone = {"backbone_config": transformers.ResNetConfig(out_features=STAGES)}
    uper = _configured("UperNetForSemanticSegmentation", "UperNet", backbone)
    yield Entry("UperNetForSemanticSegmentation (ResNet)", uper, _pixels(128))
    last = {"backbone_config": transformers.ResNetConfig(out_features=STAGES[-1:])}
    detr = _configured("DetrForObjectDetection", "Detr", last)
    yield Entry("DetrForObjectDetection (ResNet)", detr, _pixels(128))
    yield Entry("EncodecModel", _configured("EncodecModel", "Encodec", {}), _audio(4800))
    yield Entry("DacModel", _configured("DacModel", "Dac", {}), _audio(5120))
    wave = _configured("Wav2Vec2Model", "Wav2Vec2", {"num_hidden_layers": 2})
    yield Entry("Wav2Vec2Model", wave, lambda: (torch.randn(2, 5000),))


def _configured(kind: str, configuration: str, options: dict[str, Any]) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        return getattr(transformers, kind)(
            getattr(transformers, f"{configuration}Config")(**options)
        )

    return build


def _pixels(side: int) -> Callable[[], Arguments]:
    return lambda: {"pixel_values": torch.randn(2, 3, side, side)}


def _audio(length: int) -> Callable[[], Arguments]:
    return volume(length, channels=1)
