"""Grad-CAM, by captum: what a network's answer rests on, to be seen beside what its gates do."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from whatwhere.evaluation import evaluating


def grad_cam(
    model: nn.Module,
    x: Tensor,
    *,
    target: int | Sequence[int] | None = None,
    layer: str | None = None,
) -> Tensor:
    r"""The positions that speak for a class: relu(Σ_c mean_S(∂ logit / ∂ A_c) · A_c).

    Gradients of parameters are not touched, and the network stays as found.

    Args:
        model: a classifier, from x to logits (N, K).
        x: (N, C, *S) as the network takes it, on its device.
        target: the class, or one per sample; if not given, that which the network answers.
        layer: qualified name of the module whose output is A; if not given, ``last_layer``'s.

    Returns:
        (N, 1, \*s), as large as A's positions.

    Raises:
        ValueError: the output is not (N, K), or no module has an output with positions.
        ImportError: captum is not installed.

    Source: Selvaraju et al., Grad-CAM, ICCV 2017, equations 1 and 2.
    """
    try:
        from captum.attr import LayerGradCam
    except ImportError as error:
        raise ImportError(
            'grad_cam: expected captum, which is not installed: pip install "whatwhere[look]"'
        ) from error
    if target is None:
        wanted = torch.tensor(answers(model, x), device=x.device)
    else:
        classes = [target] * len(x) if isinstance(target, int) else list(target)
        wanted = torch.tensor(classes, device=x.device)
    with evaluating(model), torch.compiler.set_stance("force_eager"):
        name = last_layer(model, x) if layer is None else layer
        with torch.enable_grad():
            # Where all parameters are frozen, the input makes the graph.
            given = x.detach().clone().requires_grad_()
            method: Any = LayerGradCam(model, model.get_submodule(name))
            seen: Tensor = method.attribute(given, target=wanted, relu_attributions=True)
    return seen.detach()


def answers(model: nn.Module, x: Tensor) -> list[int]:
    """The class that the network answers to each sample.

    Raises:
        ValueError: the output is not (N, K).

    >>> answers(nn.Flatten(), torch.eye(3))
    [0, 1, 2]
    """
    with evaluating(model):
        logits = model(x)
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(
            f"grad_cam: expected a classifier, whose output is (N, K), got {got}; pass "
            "grad_cam=False to draw the gates alone"
        )
    found: list[int] = logits.argmax(1).tolist()
    return found


def last_layer(model: nn.Module, x: Tensor) -> str:
    """The module that last returned a feature map with more than one position: Grad-CAM's layer.

    That is the last stage of a classifier. What gates are made of inside is not looked at.

    Raises:
        ValueError: there is none, as where the network looks at single positions.

    >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    >>> last_layer(net, torch.zeros(1, 1, 8, 8))
    '1'
    """
    found: list[str] = []
    handles = []

    def watch(name: str) -> None:
        def see(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.ndim == x.ndim and output[0, 0].numel() > 1:
                found.append(name)

        handles.append(model.get_submodule(name).register_forward_hook(see))

    try:
        for name in _outside_gates(model, ""):
            watch(name)
        with evaluating(model):
            model(x)
    finally:
        for handle in handles:
            handle.remove()
    if not found:
        raise ValueError(
            f"grad_cam: expected {type(model).__name__} to have a module whose output has "
            f"positions, got none for x of shape {tuple(x.shape)}; pass layer="
        )
    return found[-1]


def _outside_gates(module: nn.Module, name: str) -> Iterator[str]:
    """The names of all modules, down to the outermost ones of gates."""
    if name:
        yield name
    if not type(module).__module__.startswith("whatwhere.gates."):
        for child, each in module.named_children():
            yield from _outside_gates(each, f"{name}.{child}" if name else child)
