"""Small networks of other people's libraries: where gates go, and that nothing else changes.

`python -m benchmarks.reach` measures many more, and writes docs/reach.md.
"""

from importlib.util import find_spec

import pytest
import timm
import torch
import torchvision
from torch import nn

import whatwhere
from benchmarks.reach.catalog.entry import Entry
from benchmarks.reach.catalog.of_own import Chain, Functional, Repeated, TwoViews, Waves
from benchmarks.reach.network import channels_last, difference, evaluate, randomise
from benchmarks.reach.row import trains


def by_timm(name):
    return lambda: timm.create_model(name)


def by_torchvision(name, **options):
    return lambda: torchvision.models.get_model(name, **options)


def small_resnet():
    block = torchvision.models.resnet.BasicBlock
    return torchvision.models.ResNet(block, [1, 1, 1, 1], num_classes=5)


def small_clip_resnet():
    video = torchvision.models.video.resnet
    layers, kinds = [1, 1, 1, 1], [video.Conv3DSimple] * 4
    return video.VideoResNet(video.BasicBlock, kinds, layers, video.BasicStem, num_classes=5)


def small_unet():
    import segmentation_models_pytorch as smp

    return smp.Unet("resnet18", encoder_weights=None, classes=2)


def unet(axes, **options):
    def build():
        from monai.networks.nets import UNet

        return UNet(axes, 1, 2, (4, 8, 16), (2, 2), **options)

    return build


def configured(name, **options):
    def build():
        import transformers

        configuration = getattr(transformers, f"{name}Config")(**options)
        return getattr(transformers, f"{name}ForImageClassification")(configuration)

    return build


def images(side, channels=3):
    return (torch.randn(2, channels, side, side),)


def pixels(side):
    return {"pixel_values": torch.randn(2, 3, side, side)}


def last(name, *counts):
    """What the last sites of every block are called, in a network of stages of blocks."""
    return [name.format(s, b) for s, count in enumerate(counts) for b in range(count)]


DEPTHS = {"depths": [1, 1, 1, 1], "hidden_sizes": [8, 16, 24, 32]}
CASES = {
    "timm resnet": (by_timm("test_resnet"), images(64), "blocks", 4),
    "timm convnext": (
        *(by_timm("test_convnext2"), images(64), "blocks"),
        last("stages.{}.blocks.{}.drop_path", 1, 1, 1, 1),
    ),
    "timm nfnet": (
        *(by_timm("test_nfnet"), images(64), "blocks"),
        last("stages.{}.{}.drop_path", 1, 1, 1, 1),
    ),
    "timm mambaout, channels last": (
        *(by_timm("test_mambaout"), images(64), "blocks"),
        last("stages.{}.blocks.{}.ls", 1, 1, 3, 1),
    ),
    "timm efficientnet": (by_timm("test_efficientnet"), images(64), "depthwise", 2),
    "timm ghostnet, concatenated": (by_timm("ghostnet_050"), images(64), "blocks", 16),
    "torchvision resnet": (
        *(small_resnet, images(64), "blocks"),
        [f"layer{stage}.0.bn2" for stage in (1, 2, 3, 4)],
    ),
    "torchvision squeezenet": (
        *(by_torchvision("squeezenet1_1"), images(64), "stages"),
        ["features.4", "features.7", "features.12"],
    ),
    "torchvision lraspp": (
        by_torchvision("lraspp_mobilenet_v3_large", weights=None, weights_backbone=None),
        *(images(64), "blocks", 10),
    ),
    "torchvision clips": (
        *(small_clip_resnet, (torch.randn(2, 3, 4, 32, 32),), "blocks"),
        [f"layer{stage}.0.conv2.1" for stage in (1, 2, 3, 4)],
    ),
    "segmentation_models_pytorch unet": (
        *(small_unet, images(64), "blocks"),
        [f"encoder.layer{stage}.{block}.bn2" for stage in (1, 2, 3, 4) for block in (0, 1)],
    ),
    "monai unet 1-D": (
        *(unet(1, num_res_units=2), (torch.randn(2, 1, 32),), "blocks"),
        5,
    ),
    "monai unet 3-D": (
        *(unet(3, num_res_units=2), (torch.randn(2, 1, 16, 16, 16),), "blocks"),
        5,
    ),
    "transformers resnet": (
        *(configured("ResNet", embedding_size=8, layer_type="basic", **DEPTHS), pixels(64)),
        *("blocks", last("resnet.encoder.stages.{}.layers.{}.layer.1.normalization", 1, 1, 1, 1)),
    ),
    "transformers convnext": (
        *(configured("ConvNext", **DEPTHS), pixels(64), "blocks"),
        last("convnext.encoder.stages.{}.layers.{}.drop_path", 1, 1, 1, 1),
    ),
    "own functional": (Functional, images(32), "blocks", ["second", "third"]),
    "own chain": (Chain, images(32), "stages", ["6", "10"]),
    "own 1-D": (Waves, (torch.randn(2, 2, 64),), "blocks", [f"blocks.{b}.3" for b in range(3)]),
    "own repeated": (Repeated, images(32), "blocks", ["block.2"]),
}


@pytest.mark.parametrize("name", CASES)
def test_networks_keep_their_outputs_and_every_gate_learns(name):
    library = name.partition(" ")[0]
    if library not in ("own", "timm", "torchvision") and find_spec(library) is None:
        pytest.skip(f"{library} is not installed")
    build, arguments, kind, expected = CASES[name]
    model = build()
    randomise(model)
    keys = list(model.state_dict())
    before = evaluate(model, arguments)
    report = whatwhere.attend(model, "cbam", example=arguments)
    assert {site.kind for site in report.sites} == {kind}
    names = [site.name for site in report.sites]
    assert (names if isinstance(expected, list) else len(names)) == expected
    assert difference(before, evaluate(model, arguments)) == 0
    gates = [key for key in dict(model.named_parameters()) if key not in keys]
    assert trains(model, Entry(name, build, lambda: arguments), gates) == "yes"
    whatwhere.detach(model)
    assert list(model.state_dict()) == keys


@pytest.mark.parametrize("name", ["timm convnext", "torchvision clips", "own functional"])
def test_outputs_stay_in_channels_last(name):
    build, arguments, _, _ = CASES[name]
    model = build()
    randomise(model)
    arguments = channels_last(model, arguments)
    before = evaluate(model, arguments)
    whatwhere.attend(model, "cbam")
    channels_last(model, arguments)
    assert difference(before, evaluate(model, arguments)) == 0


def test_detectors_take_lists_of_images():
    model = by_torchvision(
        "ssdlite320_mobilenet_v3_large", weights=None, weights_backbone=None, num_classes=2
    )()
    randomise(model)
    arguments = ([torch.rand(3, 64, 48), torch.rand(3, 80, 64)],)
    before = evaluate(model, arguments)
    assert len(whatwhere.attend(model, "cbam", example=arguments).sites) == 10
    assert difference(before, evaluate(model, arguments)) == 0


def test_two_inputs_need_an_example():
    model = TwoViews()
    with pytest.raises(ValueError, match="pass example="):
        whatwhere.attend(model, "cbam")
    example = images(32) + images(32)
    before = evaluate(model, example)
    whatwhere.attend(model, "cbam", example=example)
    assert difference(before, evaluate(model, example)) == 0


def test_a_network_without_feature_maps_is_refused():
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    model = nn.TransformerEncoder(layer, 2)
    with pytest.raises(ValueError, match="at least one site in TransformerEncoder, found none"):
        whatwhere.attend(model, "cbam", example=torch.randn(2, 12, 16))
