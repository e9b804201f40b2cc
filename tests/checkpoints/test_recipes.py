"""One call rebuilds a network: recipes are checked when saved, and files call no code they like."""

import json
import subprocess
import sys

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

import whatwhere
from tests.cases import randomise
from whatwhere import attached, attend, load, save
from whatwhere.checkpoints import describe
from whatwhere.study.networks import SmallResNet

X = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
TORCHVISION = {"network": "torchvision.models.resnet18", "arguments": {"num_classes": 4}}
SMALL = {
    "network": "whatwhere.study.networks.SmallResNet",
    "arguments": {"classes": 5, "channels": [8, 16], "blocks": [1, 2]},
}


def small():
    return SmallResNet(5, channels=(8, 16), blocks=(1, 2))


def gated(model, **options):
    attend(model, "cbam", example=X, **options)
    return randomise(model).eval()


@pytest.mark.parametrize(
    ("model", "recipe"),
    [
        (lambda: torchvision.models.resnet18(num_classes=4), TORCHVISION),
        (lambda: timm.create_model("test_resnet", num_classes=4, in_chans=3), {}),
        (lambda: timm.create_model("seresnet18", num_classes=0), {}),
        (small, SMALL),
    ],
    ids=["torchvision", "timm", "timm without a head", "a class"],
)
def test_one_call_gives_the_network_back(tmp_path, model, recipe):
    model = gated(model())
    path = tmp_path / "model.safetensors"
    save(model, path, **recipe)
    other = load(path)
    assert type(other) is type(model)
    assert attached(other) == attached(model)
    with torch.no_grad():
        assert torch.equal(other.eval()(X), model(X))


def test_it_loads_elsewhere(tmp_path):
    model = gated(timm.create_model("test_resnet", num_classes=4))
    save(model, tmp_path / "model.safetensors")
    with torch.no_grad():
        torch.save((X, model(X)), tmp_path / "run.pt")
    code = (
        "import sys, torch, whatwhere\n"
        "x, y = torch.load(sys.argv[2])\n"
        "with torch.no_grad():\n"
        "    torch.testing.assert_close(whatwhere.load(sys.argv[1]).eval()(x), y)"
    )
    files = [tmp_path / "model.safetensors", tmp_path / "run.pt"]
    subprocess.run([sys.executable, "-c", code, *files], check=True, timeout=120)


class Counted(nn.Module):
    """A network of a user's, in a module that can be imported."""

    def __init__(self, width):
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(3, width, 3), nn.ReLU())

    def forward(self, x):
        return self.net(x)


def make(width=8):
    return Counted(width)


def not_a_network():
    return 3


def test_a_users_own_network_needs_trust(tmp_path):
    path = tmp_path / "model.safetensors"
    model = gated(make(), where="net.0")
    save(model, path, network=f"{__name__}.make", arguments={"width": 8})
    with pytest.raises(ValueError, match=rf"refused to call {__name__}.make.*trust=\['"):
        load(path)
    other = load(path, trust=[__name__])
    assert torch.equal(other.eval()(X), model(X))
    assert attached(load(path, into=make())) == attached(model)


def changed(change):
    model = small()
    change(model)
    return model


def hook(module, inputs, output):
    return output * 2


@pytest.mark.parametrize(
    ("model", "recipe", "message"),
    [
        (small, {**SMALL, "arguments": {"classes": 5}}, r"stages.0.0.conv1|stages.1.1"),
        (small, {**SMALL, "arguments": {**SMALL["arguments"], "classes": 6}}, r"\(5, 16\), and"),
        (lambda: changed(lambda m: setattr(m.stem[1], "eps", 1.0)), SMALL, r"stem.1.eps is 1.0,"),
        (lambda: changed(lambda m: m.register_forward_hook(hook)), SMALL, "network has hooks of"),
        (lambda: changed(lambda m: setattr(m, "head", nn.Identity())), SMALL, "head is a torch"),
        (small, {"network": "os.getcwd"}, r"os.getcwd to build a torch.nn.Module, got str"),
        (small, {"network": f"{__name__}.not_a_network"}, "torch.nn.Module, got int"),
        (small, {"network": f"{__name__}.nothing"}, "function or class nothing, found none"),
        (small, {"network": "no_such_package.make"}, "can't be imported here: No module"),
        (small, {"network": "__main__.make"}, "a name that can be imported elsewhere"),
        (small, {"network": "make"}, "a name that can be imported elsewhere"),
        (small, {"arguments": {"classes": 5}}, "arguments are of network="),
        (small, {**SMALL, "arguments": {"classes": {5}}}, "JSON-able values, got"),
        (small, {**SMALL, "arguments": {"classes": "5"}}, "to build a network, got ValueError"),
        (small, {"facts": {"when": object()}}, "JSON-able values, got"),
    ],
)
def test_what_would_not_load_is_not_saved(tmp_path, model, recipe, message):
    path = tmp_path / "model.safetensors"
    path.write_text("what was there before")
    with pytest.raises(ValueError, match=message):
        save(gated(model()), path, **recipe)
    assert path.read_text() == "what was there before"
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_gates_synchronised_norms_and_training_do_not_change_a_recipe(tmp_path):
    model = nn.SyncBatchNorm.convert_sync_batchnorm(gated(small()))
    save(model.train(), tmp_path / "model.safetensors", **SMALL)
    other = load(tmp_path / "model.safetensors").eval()
    assert torch.equal(other(X), model.eval()(X))


def test_a_changed_network_of_timm_is_saved_without_a_recipe(tmp_path):
    model = timm.create_model("test_resnet", num_classes=4, drop_rate=0.1)
    save(model, tmp_path / "model.safetensors")
    assert describe(tmp_path / "model.safetensors")["recipe"] is None
    with pytest.raises(ValueError, match=r"does not say how its network is built.*into=network"):
        load(tmp_path / "model.safetensors")


def forged(path, network, arguments):
    description = {
        "format": "1",
        "gates": [],
        "recipe": {"network": network, "arguments": arguments},
        "facts": {},
    }
    save_file({"a": torch.zeros(1)}, path, metadata={"whatwhere": json.dumps(description)})
    return path


@pytest.mark.parametrize(
    ("network", "arguments", "message"),
    [
        ("os.system", {"command": "touch PATH"}, "refused to call os.system"),
        ("builtins.exec", {"source": "open('PATH', 'w')"}, "refused to call builtins.exec"),
        ("torch.load", {"f": "PATH"}, "refused to call torch.load"),
        ("torchvision.os.system", {"command": "touch PATH"}, "refused to call torchvision.os"),
        ("torchvision.models._utils.inspect.getfile", {}, "can't be imported"),
        ("torchvision.models.get_model", {"name": "resnet18"}, "no builder of networks"),
        ("torchvision.models.resnet18", {"weights": "DEFAULT"}, "could fetch something"),
        ("timm.models.load_checkpoint", {"checkpoint_path": "PATH"}, "refused to call timm"),
        ("timm.create_model", {"model_name": "hf-hub:a/b"}, "could fetch something"),
        ("timm.create_model", {"model_name": "resnet18", "pretrained": True}, "could fetch"),
        ("timm.create_model", {"model_name": "resnet18", "checkpoint_path": "a"}, "could fetch"),
        ("timm.create_model", {"model_name": "resnet18", "x": [{"y": "a/b"}]}, "could fetch"),
        ("whatwhere.study.networks.check_positive", {}, "no builder of networks"),
        ("timm.create_modelling", {}, "refused to call timm.create_modelling"),
    ],
)
def test_a_file_can_not_call_what_it_likes(tmp_path, network, arguments, message):
    target = tmp_path / "made by the file"
    arguments = json.loads(json.dumps(arguments).replace("PATH", str(target)))
    with pytest.raises(ValueError, match=message):
        load(forged(tmp_path / "model.safetensors", network, arguments))
    assert not target.exists()


def test_no_weights_are_fetched_by_default(tmp_path, monkeypatch):
    # Detection networks of torchvision fetch their backbone's weights unless told otherwise.
    def fetch(*_args, **_kwargs):
        raise AssertionError("weights were fetched")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fetch)
    name = "torchvision.models.detection.ssdlite320_mobilenet_v3_large"
    model = torchvision.models.detection.ssdlite320_mobilenet_v3_large(weights_backbone=None)
    save(model, tmp_path / "model.safetensors", network=name)
    load(tmp_path / "model.safetensors")


def test_saving_leaves_random_numbers_as_they_were(tmp_path):
    model = gated(small())
    state = torch.get_rng_state()
    save(model, tmp_path / "model.safetensors", **SMALL)
    assert torch.equal(torch.get_rng_state(), state)


def test_dtypes_come_back(tmp_path):
    model = gated(small())
    save(model.bfloat16(), tmp_path / "half.safetensors", **SMALL)
    half = load(tmp_path / "half.safetensors")
    assert torch.equal(half.eval()(X.bfloat16()), model(X.bfloat16()))
    mixed = gated(small())
    mixed.head.half()
    save(mixed, tmp_path / "mixed.safetensors", **SMALL)
    dtypes = {n: t.dtype for n, t in load(tmp_path / "mixed.safetensors").state_dict().items()}
    assert dtypes == {name: tensor.dtype for name, tensor in mixed.state_dict().items()}
    into = load(tmp_path / "half.safetensors", into=small())
    assert {p.dtype for p in into.parameters()} == {torch.float32}
    torch.testing.assert_close(into.head.weight, model.head.weight.float())


def test_arguments_that_would_be_ignored_are_refused(tmp_path):
    save(small(), tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="into= gives one; pass one"):
        load(tmp_path / "model.safetensors", into=small(), trust=["tests"])
    forged(tmp_path / "other.safetensors", "torchvision.models.resnet18", {})
    with pytest.raises(ValueError, match="trust to be a list of packages, got 'tests'"):
        load(tmp_path / "other.safetensors", trust="tests")


def test_the_public_names_are_these():
    assert (whatwhere.load, whatwhere.save) == (load, save)
