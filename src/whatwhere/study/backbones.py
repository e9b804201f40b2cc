"""Backbones by name: the small residual net, timm, torchvision, papers, a user's function."""

import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor, nn

from whatwhere.cost import parameters
from whatwhere.study.networks import SmallResNet

PAPER = "paper/"


class BackboneError(ValueError):
    """A backbone that can't be found, built or widened."""


@dataclass(frozen=True)
class Backbone:
    """A network by name, for data of one shape.

    Args:
        name: "small"; "timm/NAME"; "torchvision/NAME", video models too; "paper/NAME" of
            ``whatwhere.paper``, with gates of its own if the name says so ("paper/resnet50-cbam");
            "package.module:function", called as ``function(classes, in_channels=..., ndim=...)``
            with, if it takes one, ``width=`` a factor to widen by; or a bare NAME, looked for in
            timm, then torchvision.
        classes: number of classes.
        in_channels: channels of the data.
        ndim: position axes of the data.
        pretrained: load the library's pretrained weights.
    """

    name: str
    classes: int
    in_channels: int
    ndim: int
    pretrained: bool = False

    def build(self, *, seed: int, width: float = 1.0) -> nn.Module:
        """The network, initialised from the seed; ``width`` multiplies its channels.

        Raises:
            BackboneError: there is no such network, or it can't be widened.
        """
        maker = self._maker()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            try:
                return maker(width)
            except (TypeError, RuntimeError, ValueError, OSError) as error:
                raise BackboneError(
                    f"backbone {self.name!r} could not be built for {self.classes} classes, "
                    f"{self.in_channels} channels and {self.ndim} position axes"
                    f"{'' if width == 1.0 else f', widened by {width:.3f}'}: {error}"
                ) from error

    def widens(self) -> bool:
        """Whether the network can be built wider, as the capacity control needs.

        Raises:
            BackboneError: it can't be built at all.
        """
        plain = self.parameters_at(1.0)
        try:
            return self.parameters_at(2.0) > plain
        except BackboneError:
            return False

    def recipe(self, *, width: float = 1.0) -> dict[str, Any]:
        """What ``checkpoints.save`` is told of how the network is built; timm's says so itself."""
        if self.name.startswith(PAPER):
            from whatwhere import paper

            return paper.recipe(self.name.removeprefix(PAPER), **self._paper_arguments(width))
        if self.name != "small":
            return {}
        name = f"{SmallResNet.__module__}.{SmallResNet.__name__}"
        return {"network": name, "arguments": self._small_arguments(width)}

    def parameters_at(self, width: float) -> int:
        """Parameters of the network widened by a factor."""
        with torch.device("meta"):
            return parameters(self._without_weights().build(seed=0, width=width))

    def _without_weights(self) -> "Backbone":
        return Backbone(self.name, self.classes, self.in_channels, self.ndim)

    def _maker(self) -> Callable[[float], nn.Module]:
        library, _, model = self.name.rpartition("/")
        if self.name == "small":
            return self._small
        if ":" in self.name:
            return _from_function(self)
        if library == "paper":
            return self._paper
        if library not in ("", "timm", "torchvision"):
            raise BackboneError(
                f"expected a backbone of timm/, torchvision/ or paper/, got {self.name!r}"
            )
        if library in ("", "timm"):
            import timm

            if timm.is_model(model):
                return lambda width: _from_timm(self, model, width)
        if library in ("", "torchvision"):
            import torchvision

            if model in torchvision.models.list_models():
                return lambda width: _from_torchvision(self, model, width)
        raise BackboneError(
            f"expected the backbone small, package.module:function or a model of timm or "
            f"torchvision, got {self.name!r}{_close_names(model)}"
        )

    def _small(self, width: float) -> nn.Module:
        if self.pretrained:
            raise ValueError("the small backbone has no pretrained weights")
        return SmallResNet(**self._small_arguments(width))

    def _paper(self, width: float) -> nn.Module:
        if self.pretrained:
            raise ValueError("the networks of papers have no pretrained weights here")
        if self.ndim != 2:
            raise ValueError("the networks of papers take images, (N, C, H, W)")
        from whatwhere import paper

        return paper.build(self.name.removeprefix(PAPER), **self._paper_arguments(width))

    def _paper_arguments(self, width: float) -> dict[str, Any]:
        return {"classes": self.classes, "in_channels": self.in_channels, "width": width}

    def _small_arguments(self, width: float) -> dict[str, Any]:
        return {
            "classes": self.classes,
            "in_channels": self.in_channels,
            "ndim": self.ndim,
            "channels": [round(channels * width) for channels in (16, 32, 64)],
        }


def _from_timm(backbone: Backbone, model: str, width: float) -> nn.Module:
    import timm

    if backbone.ndim != 2:
        raise ValueError("the models of timm take images, (N, C, H, W)")
    options: dict[str, Any] = {
        "num_classes": backbone.classes,
        "in_chans": backbone.in_channels,
    }
    if width == 1.0:
        network: nn.Module = timm.create_model(model, pretrained=backbone.pretrained, **options)
        return network
    # timm's ResNets take the channels of their stages; other families refuse the argument.
    with torch.device("meta"):
        plain: Any = timm.create_model(model, **options)
    if not isinstance(plain, timm.models.ResNet):
        raise ValueError(f"timm's {type(plain).__name__} takes no channels to widen by")
    stages = [
        info["num_chs"] // getattr(plain, info["module"])[0].expansion
        for info in plain.feature_info
        if info["module"].startswith("layer")
    ]
    wide: nn.Module = timm.create_model(
        model, channels=tuple(round(channels * width) for channels in stages), **options
    )
    return wide


def _from_torchvision(backbone: Backbone, model: str, width: float) -> nn.Module:
    import torchvision

    builder = torchvision.models.get_model_builder(model)
    options: dict[str, Any] = {}
    if width != 1.0:
        options["width_per_group"] = round(64 * width)
    if backbone.pretrained:
        network: nn.Module = builder(weights="DEFAULT", **options)
        _replace_head(network, backbone.classes)
    else:
        network = builder(weights=None, num_classes=backbone.classes, **options)
    expected = next(m.in_channels for m in network.modules() if hasattr(m, "in_channels"))
    if backbone.in_channels == 1 and expected == 3:
        network.register_forward_pre_hook(_grey_to_rgb)
    elif backbone.in_channels != expected:
        raise ValueError(f"it takes {expected} channels, the data has {backbone.in_channels}")
    return network


def _replace_head(network: nn.Module, classes: int) -> None:
    name, head = [(n, m) for n, m in network.named_modules() if isinstance(m, nn.Linear)][-1]
    parent, _, attribute = name.rpartition(".")
    setattr(network.get_submodule(parent), attribute, nn.Linear(head.in_features, classes))


def _grey_to_rgb(_network: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
    (x,) = inputs
    return (x.expand(-1, 3, *x.shape[2:]),)


def _from_function(backbone: Backbone) -> Callable[[float], nn.Module]:
    module, _, attribute = backbone.name.partition(":")
    try:
        function = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise BackboneError(f"backbone {backbone.name!r} can't be imported: {error}") from error
    takes_width = "width" in inspect.signature(function).parameters

    def make(width: float) -> nn.Module:
        if backbone.pretrained:
            raise ValueError("a function loads its own weights; leave pretrained off")
        options: dict[str, Any] = {"width": width} if takes_width else {}
        if width != 1.0 and not takes_width:
            raise ValueError("the function takes no width")
        network: nn.Module = function(
            backbone.classes, in_channels=backbone.in_channels, ndim=backbone.ndim, **options
        )
        return network

    return make


def _close_names(model: str) -> str:
    import timm
    import torchvision

    known = sorted({*timm.list_models(), *torchvision.models.list_models()})
    close = get_close_matches(model, known, n=3)
    return f"; close names: {', '.join(close)}" if close else ""
