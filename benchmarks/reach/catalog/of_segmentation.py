"""Decoders and encoders of segmentation-models-pytorch."""

from collections.abc import Callable, Iterator

import segmentation_models_pytorch as smp
from torch import nn

from benchmarks.reach.catalog.entry import Entry, image

DECODERS = (
    *("Unet", "UnetPlusPlus", "MAnet", "Linknet", "FPN", "PSPNet", "DeepLabV3"),
    *("DeepLabV3Plus", "PAN", "UPerNet", "Segformer"),
)
ENCODERS = (
    *("resnet50", "se_resnet50", "densenet121", "vgg11_bn", "mobilenet_v2", "efficientnet-b0"),
    *("timm-efficientnet-b0", "mobileone_s0", "mit_b0", "inceptionv4", "xception", "dpn68"),
    *("timm-regnetx_002", "tu-convnext_atto", "tu-hrnet_w18_small"),
)


def entries() -> Iterator[Entry]:
    """The networks, in the order of the table."""
    for decoder in DECODERS:
        side = 256 if decoder == "PAN" else 128
        yield Entry(f"{decoder} (resnet18)", _build(decoder, "resnet18"), image(side))
    for encoder in ENCODERS:
        yield Entry(f"Unet ({encoder})", _build("Unet", encoder), image(128))


def _build(decoder: str, encoder: str) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        return getattr(smp, decoder)(encoder, encoder_weights=None, classes=3)

    return build
