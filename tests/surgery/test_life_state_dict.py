"""The gates' description in every state_dict: it travels, and another gate refuses to load."""

import copy
import io
import pickle

import lightning
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from tests.cases import randomise
from whatwhere import CBAM, attached, attend
from whatwhere.study.networks import SmallResNet
from whatwhere.surgery import described, reattach

X = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def plain():
    return SmallResNet(5, in_channels=3, channels=(8, 16), blocks=(1, 2))


def gated(gate="cbam", **options):
    model = plain()
    attend(model, gate, **options)
    return randomise(model).eval()


def through_a_file(value):
    buffer = io.BytesIO()
    torch.save(value, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


@pytest.mark.parametrize(
    "of",
    [
        lambda model: model.state_dict(),
        lambda model: copy.deepcopy(model.state_dict()),
        lambda model: copy.deepcopy(model).state_dict(),
        lambda model: pickle.loads(pickle.dumps(model)).state_dict(),
        lambda model: through_a_file(model.state_dict()),
        lambda model: through_a_file({"epoch": 3, "model": model.state_dict()})["model"],
    ],
    ids=["as it is", "copied", "of a copy", "of a pickle", "of a file", "in a checkpoint"],
)
def test_a_state_dict_alone_rebuilds_the_gates(of):
    model, other = gated(order="spatial-channel", kernel_size=(3, 5)), plain()
    state_dict = of(model)
    assert all(isinstance(value, torch.Tensor) for value in state_dict.values())
    assert described(state_dict) == attached(model)
    reattach(other, described(state_dict))
    other.load_state_dict(state_dict)
    assert torch.equal(other.eval()(X), model(X))


def test_sites_are_named_as_the_keys_are():
    state_dict = nn.DataParallel(gated()).state_dict()
    assert described(state_dict)[0].site == "module.stages.0.0.bn2"
    nn.modules.utils.consume_prefix_in_state_dict_if_present(state_dict, "module.")
    assert described(state_dict) == attached(gated())


class Wrapped(lightning.LightningModule):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def training_step(self, batch, _index):
        return self.network(batch).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1e-3)


@pytest.mark.filterwarnings("ignore")  # Lightning's advice
def test_a_checkpoint_of_lightning_has_it(tmp_path):
    model = gated()
    trainer = lightning.Trainer(
        max_steps=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Wrapped(model), DataLoader(X, batch_size=2))
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]
    nn.modules.utils.consume_prefix_in_state_dict_if_present(saved, "network.")
    other = plain()
    reattach(other, described(saved))
    other.load_state_dict(saved)
    assert torch.equal(other.eval()(X), model.eval()(X))


@pytest.mark.parametrize(
    ("here", "message"),
    [
        ({"start": "paper"}, "start is 'identity' in the file and 'paper' here"),
        ({"order": "spatial-channel"}, "order is 'not given' in the file and 'spatial-channel'"),
    ],
)
@pytest.mark.parametrize("strict", [True, False])
def test_a_gate_of_the_same_shapes_and_another_function_refuses(here, message, strict):
    state_dict, other = gated().state_dict(), gated(**here)
    assert {k: v.shape for k, v in other.state_dict().items()} == {
        k: v.shape for k, v in state_dict.items()
    }
    with pytest.raises(RuntimeError, match=message):
        other.load_state_dict(state_dict, strict=strict)
    other.load_state_dict(dict(state_dict))  # the way out that the message names


def test_a_gate_said_in_other_words_loads():
    other = gated(kernel_size=(7, 7), order="channel-spatial")
    other.load_state_dict(gated(kernel_size=7).state_dict())
    channel = gated("channel", statistics=("mean",), bias=True)
    channel.load_state_dict(gated("se").state_dict())


def test_a_network_without_the_gates_refuses():
    with pytest.raises(RuntimeError, match=r"Unexpected key\(s\).*bn2.attention.gates"):
        plain().load_state_dict(gated().state_dict())


def test_a_description_of_a_later_version_is_refused():
    state_dict = gated().state_dict()
    state_dict._metadata["stages.0.0.bn2.attention"]["whatwhere"]["dose"] = 2
    with pytest.raises(ValueError, match=r"stages.0.0.bn2 is described with dose, which this"):
        described(state_dict)
    with pytest.raises(RuntimeError, match=r"described with dose, which this version"):
        gated().load_state_dict(state_dict)


def test_gates_that_attend_did_not_put_in_say_nothing():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), CBAM(8))
    assert described(model.state_dict()) == ()
    assert described({"weight": torch.zeros(1)}) == ()
