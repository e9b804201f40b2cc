"""CBAM checkpoints of other code bases, as the state_dict of ``whatwhere.CBAM``.

The dialects differ in more than names: see the table in ``CBAM``. Weights are converted to the
CBAM of the same dialect, so no number changes, only names and 1×1-convolution shapes.
"""

from collections.abc import Mapping

from torch import Tensor

from whatwhere.checks import check_choice
from whatwhere.gates import Dialect

_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")

# their key -> our key, relative to one CBAM module
_KEYS: dict[Dialect, dict[str, str]] = {
    # the two classes of tutorials, held as channel and spatial
    "paper": {
        "channel.sharedMLP.0.weight": "gates.channel.mix.reduce.weight",
        "channel.sharedMLP.2.weight": "gates.channel.mix.expand.weight",
        "spatial.conv1.weight": "gates.spatial.mix.conv.weight",
    },
    # Jongchan/attention-module@459efad
    "official": {
        "ChannelGate.mlp.1.weight": "gates.channel.mix.reduce.weight",
        "ChannelGate.mlp.1.bias": "gates.channel.mix.reduce.bias",
        "ChannelGate.mlp.3.weight": "gates.channel.mix.expand.weight",
        "ChannelGate.mlp.3.bias": "gates.channel.mix.expand.bias",
        "SpatialGate.spatial.conv.weight": "gates.spatial.mix.conv.weight",
        **{f"SpatialGate.spatial.bn.{k}": f"gates.spatial.mix.norm.{k}" for k in _NORM},
    },
    # timm.layers.CbamModule
    "timm": {
        "channel.fc1.weight": "gates.channel.mix.reduce.weight",
        "channel.fc2.weight": "gates.channel.mix.expand.weight",
        "spatial.conv.conv.weight": "gates.spatial.mix.conv.weight",
        **{f"spatial.conv.bn.{k}": f"gates.spatial.mix.norm.{k}" for k in _NORM},
    },
}


def convert(state_dict: Mapping[str, Tensor], *, dialect: Dialect) -> dict[str, Tensor]:
    """The state_dict of ``CBAM(channels, dialect=dialect)`` from that of one foreign CBAM module.

    Args:
        state_dict: of the foreign module, with keys relative to it.
        dialect: where it comes from: "official" (Jongchan/attention-module), "timm" (CbamModule),
            "paper" (tutorial classes with ``sharedMLP`` and ``conv1``, the channel module's keys
            under ``channel.`` and the spatial module's under ``spatial.``).

    Raises:
        ValueError: keys are missing or unknown: nothing is dropped in silence.

    >>> import torch
    >>> from timm.layers.cbam import CbamModule
    >>> from whatwhere import CBAM
    >>> theirs, ours = CbamModule(32).eval(), CBAM(32, dialect="timm").eval()
    >>> keys = ours.load_state_dict(convert(theirs.state_dict(), dialect="timm"))
    >>> x = torch.randn(2, 32, 9, 9)
    >>> torch.allclose(theirs(x), ours(x), atol=1e-6)
    True
    """
    check_choice("convert", "dialect", dialect, tuple(_KEYS))
    keys = _KEYS[dialect]
    missing = sorted(set(keys) - set(state_dict))
    unknown = sorted(set(state_dict) - set(keys))
    if missing or unknown:
        raise ValueError(
            f"convert: expected the keys of one CBAM of dialect {dialect!r}; "
            f"missing {missing}, unknown {unknown}"
        )
    converted = {}
    for theirs, ours in keys.items():
        tensor = state_dict[theirs]
        linear = ours.endswith(("reduce.weight", "expand.weight"))
        converted[ours] = tensor.flatten(1) if linear else tensor
    return converted
