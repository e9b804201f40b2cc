"""Gates in living networks: outputs, names, copies, compilation, distribution, removal."""

import copy
import io
import pickle

import pytest
import timm
import torch
import torchvision
from torch import nn

from tests.cases import randomise
from whatwhere import attached, attend, detach
from whatwhere.study.networks import SmallResNet
from whatwhere.surgery import reattach


def small(ndim=2):
    return randomise(SmallResNet(5, in_channels=3, ndim=ndim, channels=(8, 16), blocks=(1, 2)))


def gated(**options):
    model = small()
    attend(model, "cbam", **options)
    return randomise(model).eval()


X = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", ["resnet18", "resnext50_32x4d", "r3d_18", "mc3_18", "r2plus1d_18"])
def test_identity_start_leaves_torchvision_outputs_bit_equal(name):
    model = randomise(torchvision.models.get_model(name)).eval()
    x = torch.randn(1, 3, *((4, 32, 32) if "_18" in name and name != "resnet18" else (64, 64)))
    x = x if x.ndim == (5 if name.endswith("_18") else 4) else x[:, :, 0]
    with torch.no_grad():
        before = model(x)
        report = attend(model, "cbam")
        assert torch.equal(model(x), before)
    assert report.parameters_added == sum(
        p.numel() for n, p in model.named_parameters() if ".attention." in n
    )


@pytest.mark.parametrize(
    "name", ["resnet18", "resnet26d", "resnetv2_50", "seresnet18", "skresnet18"]
)
def test_identity_start_leaves_timm_outputs_bit_equal(name):
    model = timm.create_model(name).eval()
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        before = model(x)
        attend(model, "cbam")
        assert torch.equal(model(x), before)


@pytest.mark.parametrize("gate", ["cbam", "channel", "se", "spatial", "temporal"])
@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_every_gate_goes_into_every_rank(gate, ndim):
    if (gate, ndim) == ("temporal", 2):
        pytest.skip("images have no frame axis")
    model = small(ndim).eval()
    x = torch.randn(2, 3, *(8,) * ndim)
    before = model(x)
    attend(model, gate, example=x)
    assert torch.equal(model(x), before)
    randomise(model)
    model(x).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_the_dense_temporal_form_reads_its_frames_off_each_site():
    model = torchvision.models.video.r3d_18()
    x = torch.randn(1, 3, 8, 16, 16)
    attend(model, "temporal", form="dense", example=x)
    assert [gate.options["frames"] for gate in attached(model)] == [8, 8, 4, 4, 2, 2, 1, 1]
    assert model.eval()(x).isfinite().all()


def test_an_identity_start_that_is_none_is_noticed(monkeypatch):
    monkeypatch.setattr("whatwhere.gates.mixes.DenseMix.constant_logits", lambda *_: None)
    model = small()
    with pytest.raises(RuntimeError, match=r"stages.0.0.bn2 does not start as the identity"):
        attend(model, "se")
    assert attached(model) == ()


def test_only_gate_keys_are_new():
    model = small()
    before = list(model.state_dict())
    attend(model, "cbam")
    after = list(model.state_dict())
    assert [key for key in after if ".attention." not in key] == before
    assert len(after) > len(before)
    missing, unexpected = model.load_state_dict(small().state_dict(), strict=False)
    assert unexpected == []
    assert all(".attention." in key for key in missing)


def test_paper_start_changes_the_output():
    model = small().eval()
    before = model(X)
    attend(model, "cbam", start="paper")
    assert not torch.allclose(model(X), before)


def test_the_gate_acts_where_it_was_put():
    model = small().eval()
    attend(model, "se", where="stem")
    randomise(model)
    relu = model.stem[2]
    seen = []
    handle = relu.register_forward_hook(lambda _, i, o: seen.append((i[0].clone(), o)))
    model(X)
    handle.remove()
    inputs, output = seen[0]
    torch.testing.assert_close(output, relu.attention(inputs.relu()))


def test_detach_gives_the_very_modules_back():
    model = small().eval()
    modules = dict(model.named_modules())
    parameters = dict(model.named_parameters())
    before = model(X)
    attend(model, "cbam", start="paper")
    taken = detach(model)
    assert len(taken) == 3
    assert dict(model.named_modules()) == modules
    assert all(p is parameters[n] for n, p in model.named_parameters())
    assert not any(module._forward_hooks for module in model.modules())
    assert torch.equal(model(X), before)


def test_attending_twice_is_refused_and_changes_nothing():
    model = gated()
    before = model(X)
    with pytest.raises(ValueError, match=r"network without gates, got one with 3 \(cbam at"):
        attend(model, "se")
    assert torch.equal(model(X), before)


def test_copies_are_independent_and_complete():
    model = gated()
    expected = model(X)
    copies = [copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    copies.append(torch.load(buffer, weights_only=False))
    for other in copies:
        assert torch.equal(other(X), expected)
        assert attached(other) == attached(model)
        for parameter in other.parameters():
            nn.init.zeros_(parameter)
    assert torch.equal(model(X), expected)


def test_state_dict_round_trip():
    model, other = gated(), small()
    reattach(other, attached(model))
    other.load_state_dict(model.state_dict())
    assert torch.equal(other.eval()(X), model(X))


def test_train_and_eval_reach_the_gates():
    model = gated(dialect="official")
    norms = [m for n, m in model.named_modules() if n.endswith("spatial.mix.norm")]
    assert len(norms) == 3
    assert not any(norm.training for norm in norms)
    assert all(norm.training for norm in norms if model.train())


def test_compiles_whole_and_exports_with_dynamic_sizes():
    model = gated()
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(X), model(X))
    auto = torch.export.Dim.AUTO
    program = torch.export.export(model, (X,), dynamic_shapes=({0: auto, 2: auto, 3: auto},))
    other = torch.randn(3, 3, 24, 40)
    torch.testing.assert_close(program.module()(other), model(other))


@pytest.mark.parametrize("attended", ["before", "after"])
def test_code_compiled_for_the_plain_network_does_not_run_for_the_gated_one(attended):
    torch._dynamo.config.skip_nnmodule_hook_guards = True  # as torch has it
    torch._dynamo.reset()
    plain = small().eval()
    model = copy.deepcopy(plain)
    if attended == "before":
        attend(model, "cbam", start="paper")
    compiled = torch.compile(plain, backend="eager")
    expected = compiled(X)
    if attended == "after":
        attend(model, "cbam", start="paper")
    torch.testing.assert_close(torch.compile(model, backend="eager")(X), model(X))
    torch.testing.assert_close(compiled(X), expected)
    attend(plain, "cbam", start="paper")
    torch.testing.assert_close(compiled(X), plain(X))
    assert not torch.allclose(plain(X), expected)


def test_gates_train_under_autocast():
    model = gated().train()
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(X).float().square().mean()
    loss.backward()
    gradients = [p.grad for n, p in model.named_parameters() if ".attention." in n]
    assert all(g is not None and g.isfinite().all() for g in gradients)


def test_a_dropped_hook_is_an_error_not_a_silence():
    model = gated()
    model.stages[0][0].bn2._forward_hooks.clear()
    with pytest.raises(RuntimeError, match=r"bn2.attention is no longer applied"):
        attached(model)


def test_no_site_says_what_was_looked_at_and_how_to_name_one():
    model = torchvision.models.vgg11()
    with pytest.raises(ValueError, match=r"found none. Looked for additions") as caught:
        attend(model, "cbam", where="blocks")
    assert 'where=["NAME", ...]' in str(caught.value)
    assert "features" in str(caught.value)
    report = attend(model, "cbam", where="features.1[0-9]")
    assert [site.name for site in report.sites][:2] == ["features.10", "features.11"]


def test_bad_options_leave_the_network_as_it_was():
    model = small()
    keys = list(model.state_dict())
    for options in [{"gate": "cbam", "ratio": 3}, {"gate": "sseq"}, {"start": "zero"}]:
        with pytest.raises(ValueError, match=r"expected|takes"):
            attend(model, **options)
    assert list(model.state_dict()) == keys


def test_gates_are_found_under_whatever_name_their_network_has():
    model = gated()
    wrapped = nn.Sequential(model, nn.ReLU())
    assert attached(wrapped)[0].site == "0.stages.0.0.bn2"
    assert attached(model.stages)[0].site == "0.0.bn2"
    assert len(detach(wrapped)) == 3
    assert attached(model) == ()


def test_gates_without_hooks_can_still_be_taken_out():
    model = gated()
    for module in model.modules():
        module._forward_hooks.clear()
    with pytest.raises(RuntimeError, match="no longer applied"):
        attached(model)
    assert len(detach(model)) == 3
    assert not any(".attention." in key for key in model.state_dict())


class RunsItsChildren(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, x):
        for child in self.children():
            x = child(x)
        return x + 1


def test_a_site_that_would_run_its_gate_twice_is_refused():
    model = nn.Sequential(RunsItsChildren(), nn.ReLU())
    keys = list(model.state_dict())
    with pytest.raises(ValueError, match=r"run once with it, got 2 times in 1 runs"):
        attend(model, "se", where="0")
    assert list(model.state_dict()) == keys


def test_gates_that_can_not_run_at_their_site_are_refused():
    model = torchvision.models.video.r3d_18()
    x = torch.randn(1, 3, 8, 16, 16)
    with pytest.raises(ValueError, match="expected 8 frames on axis 2 of x, got 4"):
        attend(model, "cbam", order="channel-temporal", frames=8, start="paper", example=x)
    assert attached(model) == ()
    attend(model, "cbam", order="channel-temporal", frames="site", start="paper", example=x)
    assert model.eval()(x).isfinite().all()


def test_an_option_can_be_each_sites_own():
    model = small()
    attend(model, "cbam", kernel_size=lambda site: 3 if site.channels < 16 else 5)
    gates = attached(model)
    assert [gate.options["kernel_size"] for gate in gates] == [3, 5, 5]
    for gate in gates:
        convolution = model.get_submodule(f"{gate.site}.attention.gates.spatial.mix.conv")
        assert convolution.kernel_size == (gate.options["kernel_size"],) * 2
    again = small()
    reattach(again, gates)  # descriptions hold values, which a file can have
    assert attached(again) == gates


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: attend("resnet18"), r"a torch.nn.Module, got str"),
        (lambda: attend(small(), example=(3,)), r"dict with tensors, got tuple"),
        (lambda: attend(small(), where=None), r"'blocks', .*, got None"),
        (lambda: attend(small(), where=[1]), r"names of modules, .*, got \[1\]"),
        (lambda: attend(small(), where=[]), r"names of modules, .*, got \[\]"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_half_precision_networks_get_half_precision_gates():
    model = small().bfloat16().eval()
    before = model(X.bfloat16())
    attend(model, "cbam")
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert torch.equal(model(X.bfloat16()), before)


def test_reattaching_is_all_or_nothing():
    descriptions = attached(gated())
    model = small()
    model.stages[1][1].bn2.attention = nn.Identity()
    with pytest.raises(ValueError, match=r"\['stages.1.1.bn2'\] without an attribute"):
        reattach(model, descriptions)
    assert isinstance(model.stages[1][1].bn2.attention, nn.Identity)
    assert attached(model) == ()


def test_reattaching_to_another_network_is_refused():
    descriptions = attached(gated())
    with pytest.raises(ValueError, match=r"to have the modules \['stages.0.0.bn2'"):
        reattach(torchvision.models.resnet18(), descriptions)


def test_the_report_can_be_read():
    text = str(attend(small(), "se", example=X))
    assert text.startswith("se (start=identity) at 3 sites (blocks), ")
    assert "stages.1.0.bn2     16 channels  4×4" in text
