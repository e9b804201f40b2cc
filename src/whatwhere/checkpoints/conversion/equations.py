"""Every dialect's function once more, on its own keys: what a conversion is compared with.

Each is written from the published definition alone, and shares nothing with what names, flips or
folds weights. Where x is (N, C, *positions) and p has the tensors of one module by their names.
"""

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from whatwhere.gates import Dialect

Tensors = Mapping[str, Tensor]
CONVOLVE = {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}


def _mean_max(x: Tensor) -> tuple[Tensor, Tensor]:
    flat = x.flatten(2)
    return flat.mean(2), flat.max(2).values


def _times(x: Tensor, logits: Tensor) -> Tensor:
    """x times σ of logits that are (N, C) or (N, 1, *positions)."""
    gate = logits.sigmoid()
    return x * gate.reshape(*gate.shape, *(1,) * (x.ndim - gate.ndim))


def _conv(maps: list[Tensor], weight: Tensor, bias: Tensor | None = None) -> Tensor:
    padding = tuple(size // 2 for size in weight.shape[2:])
    result: Tensor = CONVOLVE[weight.ndim](torch.cat(maps, 1), weight, bias, padding=padding)
    return result


def _norm(p: Tensors, at: str, x: Tensor, training: bool) -> Tensor:
    mean, variance = p[f"{at}.running_mean"].clone(), p[f"{at}.running_var"].clone()
    return F.batch_norm(x, mean, variance, p[f"{at}.weight"], p[f"{at}.bias"], training)


def _over_channels(x: Tensor) -> tuple[Tensor, Tensor]:
    return x.mean(1, keepdim=True), x.max(1, keepdim=True).values


def paper(p: Tensors, x: Tensor, _training: bool) -> Tensor:
    """x' = x · σ(MLP(mean) + MLP(max)); x' · σ(conv[mean; max]), under any tutorial's names."""
    mlp = sorted(key for key in p if "conv" not in key and key.endswith("weight"))
    (conv,) = {key.rpartition(".")[0] for key in p} - {key.rpartition(".")[0] for key in mlp}
    first, second = (key.removesuffix(".weight") for key in mlp)

    def network(pooled: Tensor) -> Tensor:
        hidden = F.linear(pooled, p[f"{first}.weight"].flatten(1), p.get(f"{first}.bias")).relu()
        return F.linear(hidden, p[f"{second}.weight"].flatten(1), p.get(f"{second}.bias"))

    mean, maximum = _mean_max(x)
    x = _times(x, network(mean) + network(maximum))
    average, largest = _over_channels(x)
    return _times(x, _conv([average, largest], p[f"{conv}.weight"], p.get(f"{conv}.bias")))


def official(p: Tensors, x: Tensor, training: bool) -> Tensor:
    """With biases; [max; mean]; a batch norm after the convolution."""
    logits = torch.zeros(())
    for pooled in _mean_max(x):
        hidden = F.linear(pooled, p["ChannelGate.mlp.1.weight"], p["ChannelGate.mlp.1.bias"])
        second = p["ChannelGate.mlp.3.weight"], p["ChannelGate.mlp.3.bias"]
        logits = logits + F.linear(hidden.relu(), *second)
    x = _times(x, logits)
    average, largest = _over_channels(x)
    spatial = _conv([largest, average], p["SpatialGate.spatial.conv.weight"])
    return _times(x, _norm(p, "SpatialGate.spatial.bn", spatial, training))


def timm(p: Tensors, x: Tensor, training: bool) -> Tensor:
    """Biases if mlp_bias; [mean; max]; a batch norm after the convolution."""
    mean, maximum = _mean_max(x)
    w1, w2 = p["channel.fc1.weight"].flatten(1), p["channel.fc2.weight"].flatten(1)
    b1, b2 = p.get("channel.fc1.bias"), p.get("channel.fc2.bias")
    of_mean = F.linear(F.linear(mean, w1, b1).relu(), w2, b2)
    of_max = F.linear(F.linear(maximum, w1, b1).relu(), w2, b2)
    x = _times(x, of_mean + of_max)
    spatial = _conv(list(_over_channels(x)), p["spatial.conv.conv.weight"])
    return _times(x, _norm(p, "spatial.conv.bn", spatial, training))


def pytorchcv(p: Tensors, x: Tensor, training: bool) -> Tensor:
    """As the official one, with names and a momentum of its own."""
    mean, maximum = _mean_max(x)

    def mlp(pooled: Tensor) -> Tensor:
        hidden = F.linear(pooled, p["ch_gate.mlp.fc1.weight"], p["ch_gate.mlp.fc1.bias"])
        return F.linear(hidden.relu(), p["ch_gate.mlp.fc2.weight"], p["ch_gate.mlp.fc2.bias"])

    x = _times(x, mlp(mean) + mlp(maximum))
    average, largest = _over_channels(x)
    spatial = _conv([largest, average], p["sp_gate.conv.conv.weight"])
    return _times(x, _norm(p, "sp_gate.conv.bn", spatial, training))


def mmyolo(p: Tensors, x: Tensor, _training: bool) -> Tensor:
    """With biases everywhere; [mean; max]; no norm."""
    layers = [
        (p[f"channel_attention.fc.{i}.conv.weight"].flatten(1),
         p[f"channel_attention.fc.{i}.conv.bias"])
        for i in (0, 1)
    ]  # fmt: skip
    logits = sum(
        F.linear(F.linear(pooled, *layers[0]).relu(), *layers[1]) for pooled in _mean_max(x)
    )
    x = _times(x, torch.as_tensor(logits))
    conv = "spatial_attention.conv.conv"
    maps = list(_over_channels(x))
    return _times(x, _conv(maps, p[f"{conv}.weight"], p[f"{conv}.bias"]))


def external(p: Tensors, x: Tensor, _training: bool) -> Tensor:
    """Without biases in the network; [max; mean]; the convolution's bias; x added at the end."""
    mean, maximum = _mean_max(x)
    w0, w1 = p["ca.se.0.weight"].flatten(1), p["ca.se.2.weight"].flatten(1)
    logits = F.linear(F.linear(maximum, w0).relu() + F.linear(mean, w0).relu(), w1)
    refined = _times(x, logits)
    average, largest = _over_channels(refined)
    spatial = _conv([largest, average], p["sa.conv.weight"], p["sa.conv.bias"])
    return _times(refined, spatial) + x


EQUATIONS: dict[Dialect, Callable[[Tensors, Tensor, bool], Tensor]] = {
    "paper": paper,
    "official": official,
    "timm": timm,
    "pytorchcv": pytorchcv,
    "mmyolo": mmyolo,
    "external": external,
}
