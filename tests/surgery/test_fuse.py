"""Gates that add the shortcut and apply the ReLU of their block: equal, and only where allowed."""

import copy

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from tests.cases import randomise
from tests.surgery.fused import (
    ADD,
    RELU,
    WAITED,
    Block,
    X,
    gated_and_fused,
    gradients,
    inplace_relu,
)
from whatwhere import attend
from whatwhere.surgery import fuse

NETWORKS = {
    "resnet18": (8, "relu"),
    "resnet50": (16, "relu"),
    "resnext50_32x4d": (16, "relu"),
    "wide_resnet50_2": (16, "relu"),
    "regnet_y_400mf": (16, "relu"),
    "r3d_18": (8, "relu"),
    "mobilenet_v2": (10, "add"),
    "timm/resnet26d": (8, "relu"),
    "timm/resnetv2_50": (16, "add"),
    "timm/regnety_002": (13, "relu"),
}


@pytest.mark.parametrize("kernels", ["cpu"], indirect=True)
@pytest.mark.parametrize("name", NETWORKS)
def test_networks_are_equal_in_values_and_gradients(name, passes):
    module, _, short = name.rpartition("/")
    model = timm.create_model(short) if module else torchvision.models.get_model(name)
    model, fused, sites = gated_and_fused(model.double())
    count, last = NETWORKS[name]
    assert list(sites.values()) == [last] * count
    shape = (2, 3, 2, 32, 32) if name == "r3d_18" else (2, 3, 48, 40)
    x = torch.randn(shape, dtype=torch.float64)
    ends = [(True, "relu" if last == "relu" else None)] * count
    with torch.no_grad():
        torch.testing.assert_close(fused.eval()(x), model.eval()(x), rtol=1e-9, atol=1e-9)
    assert [each[:2] for each in passes] == ends
    passes.clear()
    torch.manual_seed(2)
    y, ours = gradients(fused.train(), x)
    torch.manual_seed(2)
    expected, theirs = gradients(model.train(), x)
    assert passes == [(*end, False) for end in ends]
    torch.testing.assert_close(y, expected, rtol=1e-8, atol=1e-8)
    largest = max(each.abs().max() for each in theirs)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-9 * float(largest))


def uneven(block, branch, x):
    return F.relu((branch * 0.5 if block.training else branch) + x)


def kept_branch(block, branch, x):
    total = branch + x
    block.kept = branch
    return torch.relu(total)


def changed_shortcut(_, branch, x):
    total = branch + x
    x.add_(1)
    return F.relu(total) + x


ENDS = {
    "F.relu(branch + x)": (lambda _, b, x: F.relu(b + x), RELU),
    "F.relu(x + branch)": (lambda _, b, x: F.relu(x + b), RELU),
    "torch.relu(torch.add(branch, x))": (lambda _, b, x: torch.relu(torch.add(b, x)), RELU),
    "torch.add(x, branch).relu()": (lambda _, b, x: torch.add(x, b).relu(), RELU),
    "x.add(branch)": (lambda _, b, x: x.add(b), ADD),
    "branch.add(x)": (lambda _, b, x: b.add(x), ADD),
    "module": (lambda block, b, x: block.relu(b + x), RELU),
    "in place": (inplace_relu, (True, "relu", True)),
    "branch.add_(x).relu()": (lambda _, b, x: b.add_(x).relu(), RELU),
    "branch.add_(x).relu_()": (lambda _, b, x: b.add_(x).relu_(), (True, "relu", True)),
    "torch.relu_(branch + x)": (lambda _, b, x: torch.relu_(b + x), RELU),
    "branch.add_(x)": (lambda _, b, x: b.add_(x), (True, None, True)),
    "no ReLU": (lambda _, b, x: b + x, ADD),
    "GELU": (lambda _, b, x: F.gelu(b + x), ADD),
    "sum used twice": (lambda _, b, x: (b + x).relu() + (b + x).sigmoid(), None),
    "sum kept": (lambda _, b, x: (lambda s: F.relu(s) - s)(b + x), ADD),
    "branch used twice": (lambda _, b, x: F.relu(b * b.mean() + x), None),
    "alpha": (lambda _, b, x: F.relu(torch.add(b, x, alpha=2)), WAITED),
    "other shape": (lambda _, b, x: F.relu(b + x[:, :1]), None),
    "into the shortcut": (lambda _, b, x: F.relu(x.clone().add_(b)), None),
    "training": (uneven, RELU),
    "kept": (kept_branch, RELU),
    "shortcut changed": (changed_shortcut, ADD),
}


@pytest.mark.parametrize("name", ENDS)
def test_blocks_end_as_they_are_written(name, passes):
    end, expected_pass = ENDS[name]
    model = Block(end)
    attend(model, "cbam", where="bn", start="paper", reduction_ratio=1)
    randomise(model)
    fused = copy.deepcopy(model)
    if expected_pass is None:
        with pytest.raises(ValueError, match=r"Block to have a gate, .* found none"):
            fuse(fused)
        return
    fuse(fused)
    with torch.no_grad():
        torch.testing.assert_close(fused.eval()(X), model.eval()(X))
    assert passes == [expected_pass]
    for training in (False, True):
        y, ours = gradients(fused.train(training), X)
        expected, theirs = gradients(model.train(training), X)
        torch.testing.assert_close(y, expected)
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    if name == "kept":
        torch.testing.assert_close(fused.kept + 0, model.kept)


INSIDE = ["bn.attention", *(f"bn.attention.gates.{n}" for n in ("spatial", "channel.activation"))]


class Keeping(nn.BatchNorm2d):
    def forward(self, x):
        self.kept = super().forward(x)
        return self.kept


@pytest.mark.parametrize(
    ("site", "reused"),
    [
        (nn.BatchNorm2d(3), True),
        (Keeping(3), False),
        (nn.ReLU(inplace=True), False),
        (nn.Unflatten(1, (3,)), False),
    ],
    ids=["norm", "keeps its output", "in place", "view"],
)
def test_memory_is_reused_only_where_nobody_else_has_it(site, reused, passes):
    model = Block(inplace_relu)
    model.bn = copy.deepcopy(site)
    attend(model, "cbam", where="bn", start="paper", example=X)
    fused = copy.deepcopy(model)
    fuse(fused)
    kept = []
    fused.conv.register_forward_hook(lambda _m, _i, output: kept.append(output))
    with torch.no_grad():
        torch.testing.assert_close(fused.eval()(X), model.eval()(X))
        before = model.conv(X) if not isinstance(site, nn.ReLU) else model.conv(X).relu()
    assert passes == [(True, "relu", reused)]
    assert torch.equal(kept[0], before)


@pytest.mark.parametrize("place", ["bn", *INSIDE, "relu", "conv", ""])
@pytest.mark.parametrize("kind", ["forward", "full_backward", "forward_pre"])
def test_hooks_see_what_they_would_have_seen(place, kind, kernels):
    inplace = kind != "full_backward"  # which torch itself does not take together

    def end(block, branch, x):
        if place == "":  # where it may be hooked, and fuses nevertheless
            return inplace_relu(block, branch, x)
        return block.relu(branch.add_(x) if inplace else branch + x)

    model = Block(end)
    attend(model, "cbam", where="bn", start="paper", reduction_ratio=1, example=X)
    fused = copy.deepcopy(model)
    fuse(fused)
    seen = []
    for each in (model, fused):
        seen.append([])

        def hook(_module, *values, seen=seen[-1]):
            seen.extend(
                tensor.detach().clone()
                for value in values
                for tensor in (value if isinstance(value, tuple) else (value,))
            )

        handle = getattr(each.get_submodule(place), f"register_{kind}_hook")(hook)
        gradients(each.eval(), X)
        if kind != "full_backward":
            with torch.no_grad():
                each(X)
        handle.remove()
    assert len(seen[0]) == len(seen[1]) > 0
    assert all(type(each) is Tensor for each in seen[1])
    for one, other in zip(*seen, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
