"""Gates that add the shortcut and apply the ReLU of their block: equal, and only where allowed."""

import copy
import pickle
import subprocess
import sys

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from tests.cases import randomise
from whatwhere import attached, attend, checkpoints, detach
from whatwhere.look import record
from whatwhere.study.networks import SmallResNet
from whatwhere.surgery import deferred, fuse
from whatwhere.surgery.deferred import Deferred

X = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
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


@pytest.fixture
def passes(kernels, monkeypatch):
    """What every pass of a gate that waited did at its end."""
    seen = []
    cbam = deferred.cbam

    def spy(x, *, residual, activation, inplace, **options):
        seen.append((residual is not None, activation, inplace))
        return cbam(x, residual=residual, activation=activation, inplace=inplace, **options)

    monkeypatch.setattr(deferred, "cbam", spy)
    return seen


def gated_and_fused(model, **options):
    attend(model, "cbam", start="paper", **options)
    for name, parameter in model.named_parameters():
        if ".attention." in name:
            nn.init.normal_(parameter, std=0.5)
    for name, buffer in model.named_buffers():
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 2.0)
    fused = copy.deepcopy(model)
    return model, fused, fuse(fused)


def small():
    return gated_and_fused(SmallResNet(5, channels=(8, 16), blocks=(1, 2)))


def gradients(model, x):
    x = x.clone().requires_grad_()
    y = model(x)
    weights = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)
    return y, torch.autograd.grad((y * weights).sum(), [x, *model.parameters()])


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


class Block(nn.Module):
    """x to end(BN(conv x), x)."""

    def __init__(self, end):
        super().__init__()
        self.conv, self.bn, self.relu = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.ReLU()
        self.end = end

    def forward(self, x):
        # In a network, shortcuts are results of something.
        return self.end(self, self.bn(self.conv(x)), x.clone())


def inplace_relu(_, branch, x):
    branch += x
    return F.relu(branch, inplace=True)


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


RELU, ADD, WAITED = (True, "relu", False), (True, None, False), (False, None, False)
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
        with pytest.raises(ValueError, match=r"Block to have a channel .* found none"):
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


@pytest.mark.parametrize("place", ["bn", "bn.attention", "relu", "conv", ""])
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


def test_gates_can_be_recorded(passes):
    model, fused, _ = small()
    model.eval(), fused.eval()
    with record(model) as expected, torch.no_grad():
        model(X)
    with record(fused) as recorded, torch.no_grad():
        fused(X)
    assert list(recorded) == list(expected)
    assert passes == []
    for name, [gate] in recorded.items():
        torch.testing.assert_close(gate, expected[name][0])


def test_the_network_stays_what_it_was(kernels):
    model = SmallResNet(5, channels=(8, 16), blocks=(1, 2))
    keys, modules = list(model.state_dict()), dict(model.named_modules())
    report = attend(model, "cbam", fuse=True)
    assert set(report.fused) == {site.name for site in report.sites}
    assert str(report).count("  fused with add, relu") == 3
    assert [key for key in model.state_dict() if ".attention." not in key] == keys
    assert len(dict(model.named_modules())) == len(set(map(id, model.modules())))
    detach(model)
    assert dict(model.named_modules()) == modules
    assert not any(module._forward_hooks for module in model.modules())


def test_copies_fuse_by_themselves(passes):
    model, fused, _ = small()
    expected = model.eval()(X)
    for other in (copy.deepcopy(fused), pickle.loads(pickle.dumps(fused))):
        passes.clear()
        torch.testing.assert_close(other.eval()(X), expected)
        assert passes == [RELU] * 3
        own = set(map(id, other.modules()))
        for site in attached(other):
            passed = other.get_submodule(site.site).attention.fusion.passed
            assert own.issuperset(map(id, passed))


def test_a_new_process_reads_the_pickle(tmp_path):
    _, fused, _ = small()
    with torch.no_grad():
        torch.save((fused.eval(), X, fused(X)), tmp_path / "model.pt")
    code = (
        "import sys, torch; model, x, y = torch.load(sys.argv[1], weights_only=False)\n"
        "with torch.no_grad(): torch.testing.assert_close(model(x), y)"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "model.pt"], check=True, timeout=120)


def test_checkpoints_hold_gates_that_can_be_fused_again(tmp_path, passes):
    _, fused, sites = small()
    checkpoints.save(fused, tmp_path / "model.safetensors")
    loaded = SmallResNet(5, channels=(8, 16), blocks=(1, 2))
    checkpoints.load(loaded, tmp_path / "model.safetensors")
    assert fuse(loaded) == sites
    torch.testing.assert_close(loaded.eval()(X), fused.eval()(X))
    assert passes == [RELU] * 6


def test_compiled_and_exported_it_is_not_fused(kernels):
    model, fused, _ = small()
    expected = model.eval()(X)
    torch._dynamo.reset()
    compiled = torch.compile(fused.eval(), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(X), expected)
    auto = torch.export.Dim.AUTO
    program = torch.export.export(fused, (X,), dynamic_shapes=({0: auto, 2: auto, 3: auto},))
    torch.testing.assert_close(program.module()(X), expected)


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # torch's own, between its graphs
def test_a_site_that_is_kept_from_the_compiler_fuses_before_compiled_code(kernels):
    class Eager(nn.BatchNorm2d):
        @torch.compiler.disable
        def __call__(self, x):
            return super().__call__(x)

    model, fused, _ = small()
    fused.stages[0][0].bn2.__class__ = Eager
    torch._dynamo.reset()
    compiled = torch.compile(fused.eval(), backend="aot_eager")
    y, ours = gradients(compiled, X)
    expected, theirs = gradients(model.eval(), X)
    torch.testing.assert_close(y, expected)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_autocast_half_precision_and_transforms(passes):
    model, fused, _ = small()
    for each in (model, fused):
        with torch.autocast("cpu", torch.bfloat16):
            each.result = each.eval()(X)
    torch.testing.assert_close(fused.result, model.result, rtol=0.05, atol=0.05)
    assert len(passes) == 3
    half = fused.bfloat16()
    torch.testing.assert_close(
        half(X.bfloat16()), model.bfloat16()(X.bfloat16()), rtol=0.05, atol=0.05
    )
    passes.clear()
    model.float(), fused.float()
    y = torch.func.vmap(lambda x: fused(x[None])[0])(X)
    torch.testing.assert_close(y, model(X))
    assert passes == []


def test_gradients_of_gradients(passes):
    model, fused, _ = gated_and_fused(SmallResNet(5, channels=(8,), blocks=(1,)).double())
    results = []
    for each in (model, fused):
        x = X.double().requires_grad_()
        (grad,) = torch.autograd.grad(each.eval()(x).square().sum(), x, create_graph=True)
        results.append(torch.autograd.grad(grad.square().sum(), list(each.parameters())[:-1]))
    assert passes == [RELU]
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)


def test_memory_formats_are_kept(kernels):
    model, fused, _ = small()
    x = X.contiguous(memory_format=torch.channels_last)
    outputs = [each.eval().stages(each.stem(x)) for each in (model, fused)]
    assert outputs[0].stride() == outputs[1].stride()
    torch.testing.assert_close(*outputs)


def test_where_nothing_fuses_it_is_refused():
    model = SmallResNet(5)
    keys = list(model.state_dict())
    for gate in ("se", "spatial"):
        with pytest.raises(ValueError, match=r"channel and then a spatial gate .* found none"):
            attend(model, gate, fuse=True)
    with pytest.raises(ValueError, match=r"found none"):
        attend(model, "cbam", where="stem.0", fuse=True)
    with pytest.raises(ValueError, match=r"found none"):
        attend(model, "cbam", order="channel+spatial", fuse=True)
    assert list(model.state_dict()) == keys
    assert attached(model) == ()


def test_norms_inside_gates_fuse_in_evaluation_alone(passes):
    model, fused, _ = gated_and_fused(
        SmallResNet(5, channels=(8,), blocks=(1,)), dialect="official"
    )
    for training in (True, False):
        torch.testing.assert_close(fused.train(training)(X), model.train(training)(X))
    assert passes == [RELU]


class Test_a_gate_that_waits:  # noqa: N801
    @pytest.fixture
    def waiting(self, kernels):
        model = Block(lambda _, b, x: F.relu(b + x))
        attend(model, "cbam", where="bn", start="paper", reduction_ratio=1, fuse=True)
        randomise(model)
        model.eval()
        out = model.bn(model.conv(X))
        assert type(out) is Deferred
        detach(model)
        return out

    def test_is_the_tensor_to_all_else(self, waiting):
        x = X.clone()
        value = waiting.tensor()
        assert waiting.shape == value.shape
        for use in (
            lambda y: y * 2,
            lambda y: 2 - y,
            lambda y: -y,
            lambda y: y[0],
            lambda y: y > 0,
            lambda y: y.mean(),
            lambda y: torch.cat([y, x]),
            x.sub,
            lambda y: torch.stack(list(y)),
            lambda y: y + 1,
            lambda y: 1 + y,
            lambda y: F.conv2d(y, torch.ones(1, 3, 1, 1)),
            F.relu,
            lambda y: F.layer_norm(y, y.shape[1:]),
            lambda y: pickle.loads(pickle.dumps(y.detach())),
            lambda y: torch.as_tensor(y.detach().numpy()),
        ):
            assert torch.equal(use(waiting), use(value))

    def test_computes_with_the_gradients_of_its_time(self, waiting):
        with torch.no_grad():
            assert waiting.mean().requires_grad is False
        assert waiting.requires_grad
        assert waiting.grad_fn is not None

    def test_refuses_a_sum_whose_gradient_would_be_lost(self, waiting):
        with torch.no_grad(), pytest.raises(RuntimeError, match=r"with gradients .* fuse=True"):
            (waiting + X).relu()

    def test_refuses_a_shortcut_that_changed(self, waiting):
        shortcut = X.clone()
        total = waiting + shortcut
        shortcut.add_(1)
        with pytest.raises(RuntimeError, match=r"the shortcut changed in place meanwhile"):
            total.relu()

    def test_can_be_added_to_itself(self, waiting):
        torch.testing.assert_close((waiting + waiting).relu(), (2 * waiting.tensor()).relu())
