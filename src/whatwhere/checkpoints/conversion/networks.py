"""Names of whole networks: those of pytorchcv's residual networks, told in torchvision's."""

import re

# pytorchcv's name and torchvision's, with {stage}, {unit} (from 1), {block} (from 0) and {n}.
_PAIRS = (
    ("features.init_block.conv.conv.", "conv1."),
    ("features.init_block.conv.bn.", "bn1."),
    ("features.stage{stage}.unit{unit}.body.conv{n}.conv.", "layer{stage}.{block}.conv{n}."),
    ("features.stage{stage}.unit{unit}.body.conv{n}.bn.", "layer{stage}.{block}.bn{n}."),
    ("features.stage{stage}.unit{unit}.identity_conv.conv.", "layer{stage}.{block}.downsample.0."),
    ("features.stage{stage}.unit{unit}.identity_conv.bn.", "layer{stage}.{block}.downsample.1."),
    ("features.stage{stage}.unit{unit}.cbam.", "layer{stage}.{block}.cbam."),
    ("output.", "fc."),
)
_NUMBERS = {"unit": 1, "block": 0}


def from_pytorchcv(name: str) -> str:
    """Torchvision's name of a tensor or module of pytorchcv's; the same where it has none.

    >>> from_pytorchcv("features.stage2.unit1.body.conv3.bn.weight")
    'layer2.0.bn3.weight'
    """
    return _renamed(name, [(theirs, ours) for theirs, ours in _PAIRS])


def to_pytorchcv(name: str) -> str:
    """Pytorchcv's name of a tensor or module of torchvision's; the same where it has none.

    >>> to_pytorchcv("layer2.0.bn3.weight")
    'features.stage2.unit1.body.conv3.bn.weight'
    """
    return _renamed(name, [(ours, theirs) for theirs, ours in _PAIRS])


def _renamed(name: str, pairs: list[tuple[str, str]]) -> str:
    for before, after in pairs:
        pattern = re.sub(r"\\{(\w+)\\}", r"(?P<\1>\\d+)", re.escape(before))
        match = re.match(pattern, f"{name}.")
        if match is not None:
            numbers = {key: int(value) for key, value in match.groupdict().items()}
            for given, wanted in (("unit", "block"), ("block", "unit")):
                if given in numbers and wanted not in numbers:
                    numbers[wanted] = numbers[given] - _NUMBERS[given] + _NUMBERS[wanted]
                    break
            return (after.format(**numbers) + f"{name}."[match.end() :]).removesuffix(".")
    return name
