"""End to end: a network plain, with each peer's CBAM, and with ours, at the same places."""

import copy
from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from whatwhere import attend
from whatwhere.bench.measure.agreement import norm_error
from whatwhere.bench.measure.peers import build_peer, has_norm
from whatwhere.bench.measure.specification import Specification, Weights
from whatwhere.bench.measure.timing import Call, Say, interleave
from whatwhere.bench.settings import NetworkCase, Settings
from whatwhere.surgery import sites

CLASSES = 1000
LEARNING_RATE = 1e-4
OURS = ("ours", "ours fused")
CHECKED_SAMPLES = 2
# Of norms, through some fifty layers in float32, where a few ReLUs fall on the other side.
ALLOWED = 1e-2

Make = Callable[[int, Weights], nn.Module]


def measure_network(case: NetworkCase, settings: Settings, say: Say) -> dict[str, Any]:
    """The record: quartiles of inference and of a training step, and their ratios to plain."""
    torch.manual_seed(0)
    plain = _backbone(case)
    images = torch.randn(case.batch, 3, case.side, case.side)
    labels = torch.randint(0, CLASSES, (case.batch,))
    modes = {"eager": build_networks(plain, settings)}
    if settings.compiled_networks:
        modes["compiled"] = {
            name: cast(nn.Module, torch.compile(copy.deepcopy(network), dynamic=False))
            for name, network in modes["eager"].items()
        }
    record: dict[str, Any] = {"network": case.network, "batch": case.batch, "side": case.side}
    for mode, networks in modes.items():
        say(f"{mode}: comparing with the reference")
        # Compiled code is checked on the batch it is timed on, since another is compiled anew.
        samples = CHECKED_SAMPLES if mode == "eager" else case.batch
        wrong = _disagreements(plain, networks, images[:samples], labels[:samples])
        if wrong:
            return {**record, "status": "refused", "disagreements": wrong}
    passes = {}
    for mode, networks in modes.items():
        for which in ("inference", "training step"):
            name = f"{which}, {mode}"
            passes[name] = _timed(which, networks, images, labels, settings, name, say)
    return {**record, "status": "measured", "passes": passes}


def build_networks(plain: nn.Module, settings: Settings) -> dict[str, nn.Module]:
    """The variants by name; all have the plain network's weights, and the same gates' weights."""
    networks = {"plain": plain}
    networks |= {name: _with_ours(plain, fuse=name == "ours fused") for name in OURS}
    for peer in settings.peers:

        def make(channels: int, weights: Weights, peer: Any = peer) -> nn.Module:
            module = build_peer(peer, channels, ndim=2, weights=weights)
            assert isinstance(module, nn.Module)  # every peer takes images
            return module

        networks[peer] = with_gates(plain, make, norm=has_norm(peer))
    return networks


def with_gates(network: nn.Module, make: Make, *, norm: bool) -> nn.Module:
    """A copy of the network with a module after every residual branch."""
    network = copy.deepcopy(network)
    for index, site in enumerate(sites(network, kind="blocks")):
        module = network.get_submodule(site.name)
        module.add_module("attention", make(site.channels, _weights(site.channels, index, norm)))
        module.register_forward_hook(_apply)
    return network


def _with_ours(network: nn.Module, *, fuse: bool) -> nn.Module:
    # The paper's start, so that weights mean the same as in the peers.
    network = copy.deepcopy(network)
    report = attend(network, "cbam", start="paper", fuse=fuse)
    for index, site in enumerate(report.sites):
        gate = network.get_submodule(f"{site.name}.attention")
        _weights(site.channels, index, False).fill(gate)
    return network


def _weights(channels: int, index: int, norm: bool) -> Weights:
    return Weights.random(channels, ndim=2, norm=norm, seed=index)


def _apply(site: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
    gated: Tensor = cast(Any, site).attention(output)
    return gated


def _backbone(case: NetworkCase) -> nn.Module:
    from torchvision import models

    network: nn.Module = models.get_model(case.network, num_classes=CLASSES)
    return network


def _disagreements(
    plain: nn.Module, networks: dict[str, nn.Module], images: Tensor, labels: Tensor
) -> list[dict[str, str | float]]:
    """Outputs in eval mode, and the gates' gradients of a training step, that are wrong."""
    found: list[dict[str, str | float]] = []
    for norm in (False, True):
        reference = with_gates(plain, lambda _channels, weights: Specification(weights), norm=norm)
        expected = _values(reference.double(), images.double(), labels)
        for name, network in networks.items():
            normed = name not in (*OURS, "plain") and has_norm(cast(Any, name))
            if name == "plain" or normed != norm:
                continue
            got = _values(network, images, labels)
            for key, value in expected.items():
                error = norm_error(got[key], value)
                if not error <= ALLOWED:
                    found.append(
                        {"variant": name, "value": key, "error": error, "allowed": ALLOWED}
                    )
    return found


def _values(network: nn.Module, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
    with torch.no_grad():
        output = network.eval()(images)
    gates = [p for name, p in network.named_parameters() if ".attention." in name]
    loss = F.cross_entropy(network.train()(images), labels)
    gradients = torch.autograd.grad(loss, gates)
    # One vector of all gates: single ones can be arbitrarily small.
    return {"output": output, "gradient of the gates": torch.cat([g.flatten() for g in gradients])}


def _inference(network: nn.Module, images: Tensor) -> Call:
    def call() -> object:
        with torch.no_grad():
            return network(images)

    return call


def _training_step(network: nn.Module, images: Tensor, labels: Tensor) -> Call:
    optimizer = torch.optim.SGD(network.parameters(), lr=LEARNING_RATE)

    def call() -> object:
        optimizer.zero_grad()
        loss = F.cross_entropy(network(images), labels)
        loss.backward()
        optimizer.step()
        return loss

    return call


def _timed(
    which: str,
    networks: dict[str, nn.Module],
    images: Tensor,
    labels: Tensor,
    settings: Settings,
    name: str,
    say: Say,
) -> dict[str, Any]:
    calls: dict[str, Call] = {}
    for each, network in networks.items():
        network.train(which == "training step")
        calls[each] = (
            _training_step(network, images, labels)
            if network.training
            else _inference(network, images)
        )
    timed = interleave(
        calls, settings, before=lambda: None, say=lambda text: say(f"{name}: {text}")
    )
    return timed.as_dict()
