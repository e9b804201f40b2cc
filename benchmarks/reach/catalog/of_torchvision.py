"""Each family of torchvision: classification, segmentation, detection, video, optical flow."""

from collections.abc import Iterator
from typing import Any

import torch
import torchvision
from torch import nn

from benchmarks.reach.catalog.entry import Arguments, Entry, image, volume

CLASSIFICATION = (
    *("alexnet", "vgg11_bn", "resnet18", "resnet50", "resnext50_32x4d"),
    *("densenet121", "squeezenet1_1", "mobilenet_v2", "mobilenet_v3_small", "mnasnet0_5"),
    *("shufflenet_v2_x0_5", "efficientnet_b0", "efficientnet_v2_s", "regnet_x_400mf"),
    *("regnet_y_400mf", "convnext_tiny", "maxvit_t", "swin_t", "vit_b_16"),
)
SEGMENTATION = (
    *("fcn_resnet50", "deeplabv3_resnet50", "deeplabv3_mobilenet_v3_large"),
    "lraspp_mobilenet_v3_large",
)
DETECTION = (
    *("fasterrcnn_mobilenet_v3_large_320_fpn", "fasterrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn"),
    *("keypointrcnn_resnet50_fpn", "retinanet_resnet50_fpn", "fcos_resnet50_fpn", "ssd300_vgg16"),
    "ssdlite320_mobilenet_v3_large",
)
VIDEO = ("r3d_18", "mc3_18", "r2plus1d_18", "s3d", "mvit_v2_s", "swin3d_t")
SIDE = 128  # of the images given to detectors, which else scale them up


def entries() -> Iterator[Entry]:
    """The networks, in the order of the table."""
    for name in CLASSIFICATION:
        yield Entry(name, _plain(name), image())
    for name in ("googlenet", "inception_v3"):
        yield Entry(name, _plain(name, init_weights=False), image(299))
    for name in SEGMENTATION:
        yield Entry(name, _plain(name, weights=None, weights_backbone=None), image(128))
    for name in DETECTION:
        options = {} if "ssd" in name or "320" in name else {"min_size": SIDE, "max_size": SIDE}
        build = _detector(name, weights=None, weights_backbone=None, num_classes=2, **options)
        yield Entry(name, build, lambda: (_pictures(),), lambda name=name: _targets(name))
    for name in VIDEO:
        size = (16, 112, 112) if "18" in name else (16, 224, 224)
        yield Entry(name, _plain(name), volume(*size, channels=3))
    yield Entry("raft_small", _plain("raft_small"), lambda: image(128)() + image(128)())


def _plain(name: str, **options: Any) -> Any:
    def build() -> nn.Module:
        return torchvision.models.get_model(name, **options)

    return build


def _detector(name: str, **options: Any) -> Any:
    def build() -> nn.Module:
        if "rcnn" not in name:
            return torchvision.models.get_model(name, **options)
        # With random weights every box may score 0 or lie outside the image: nothing is found.
        model = torchvision.models.get_model(name, box_score_thresh=-1.0, **options)
        with torch.no_grad():
            model.roi_heads.box_predictor.bbox_pred.weight *= 1e-3
        return model

    return build


def _pictures() -> list[torch.Tensor]:
    return [torch.rand(3, SIDE, SIDE) for _ in range(2)]


def _targets(name: str) -> Arguments:
    target = {
        "boxes": torch.tensor([[8.0, 8.0, 72.0, 96.0]]),
        "labels": torch.tensor([1]),
        "masks": torch.ones(1, SIDE, SIDE, dtype=torch.uint8),
    }
    if "keypoint" in name:
        target["keypoints"] = torch.tensor([[[40.0, 40.0, 1.0]] * 17])
    return _pictures(), [target, target]
