"""The proof of a conversion: its equations are the published ones, and it fails when it should."""

from dataclasses import replace

import pytest
import torch
from timm.layers.cbam import CbamModule

from tests.cases import randomise
from tests.checkpoints.foreign import External, Mmyolo, Official, Pytorchcv, Tutorial
from whatwhere import convert
from whatwhere.checkpoints.conversion import rewrite
from whatwhere.checkpoints.conversion.equations import EQUATIONS

MODULES = {
    "paper": Tutorial(network="fc1", bias=True, spatial_bias=True),
    "official": Official(),
    "timm": CbamModule(32, mlp_bias=True),
    "pytorchcv": Pytorchcv(),
    "mmyolo": Mmyolo(kernel=3),
    "external": External(kernel=5),
}


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("dialect", EQUATIONS)
def test_its_equations_are_those_of_the_modules(dialect, training):
    module = randomise(MODULES[dialect]).double()
    x = torch.randn(3, 32, 6, 7, dtype=torch.float64)
    state = {key: tensor.clone() for key, tensor in module.state_dict().items()}
    got = EQUATIONS[dialect](state, x, training)
    torch.testing.assert_close(got, module.train(training)(x), rtol=1e-12, atol=1e-12)


WRONG = {
    "channels not swapped": lambda w: replace(w, conv=w.conv.flip(1)),
    "a bias lost": lambda w: replace(w, expand_bias=w.expand_bias * 0),
    "a number": lambda w: replace(w, reduce=w.reduce + 1e-6),
    "layers": lambda w: replace(w, reduce=w.expand.T, expand=w.reduce.T),
    "the norm": lambda w: replace(w, norm={**w.norm, "running_var": w.norm["running_mean"] + 9}),
}


@pytest.mark.parametrize("target", ["whatwhere", "timm", "pytorchcv"])
@pytest.mark.parametrize("mistake", WRONG)
def test_a_wrong_conversion_is_refused(mistake, target, monkeypatch):
    state = randomise(Official()).state_dict()
    assert convert(state, target=target).error < 1e-14
    right = rewrite.fitted

    def wrong(*arguments, **options):
        return WRONG[mistake](right(*arguments, **options))

    monkeypatch.setattr(rewrite, "fitted", wrong)
    with pytest.raises(ValueError, match="the CBAM '' and what it was converted to differ by"):
        convert(state, target=target)


def test_a_wrong_fold_is_refused(monkeypatch):
    state = randomise(Official()).state_dict()
    right = rewrite.fitted
    monkeypatch.setattr(
        rewrite,
        "fitted",
        lambda *a, **o: replace(r := right(*a, **o), conv_bias=r.conv_bias + 1e-3),
    )
    with pytest.raises(ValueError, match=r"differ by .* expected at most 1\.19\d*e-05"):
        convert(state, target="mmyolo", eval_only=True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_keep_their_dtype(dtype):
    state = randomise(Official()).to(dtype).state_dict()
    exact = convert(state)
    assert exact.error < 1e-14
    kept = {each.dtype for key, each in exact.state_dict.items() if not key.endswith("tracked")}
    assert kept == {dtype}
    folded = convert(state, target="mmyolo", eval_only=True)
    assert {each.dtype for each in folded.state_dict.values()} == {dtype}
    assert 0 < folded.error < 5 * torch.finfo(dtype).eps
