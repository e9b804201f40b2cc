"""The program that measures reach finds what is wrong with a row."""

import json

import torch
from torch import nn

import whatwhere
from benchmarks.reach.catalog.entry import Entry, image
from benchmarks.reach.catalog.of_own import Functional
from benchmarks.reach.network import difference, evaluate, randomise
from benchmarks.reach.page import page
from benchmarks.reach.row import NOT_WITHOUT, attended, compiles, measure, trains

IMAGE = image(16)


def row(build, **options):
    saved = []
    measure(Entry("network", build, IMAGE, **options), saved.append)
    return saved[-1]


def test_a_sound_row():
    record = row(Functional)
    assert record.pop("seconds") > 0
    assert record == {
        "status": "attended",
        "step": None,
        "where": "blocks",
        "needs_example": False,
        "sites": 2,
        "skipped": 0,
        "parameters": 19_306,
        "added": record["added"],
        "difference": 0.0,
        "difference_channels_last": 0.0,
        "trains": "yes",
        "compiles": "yes",
        "exports": "yes",
    }


def test_a_changed_output_shows(monkeypatch):
    attend = whatwhere.attend
    monkeypatch.setattr(whatwhere, "attend", lambda *a, **k: attend(*a, **k, start="paper"))
    record, _ = attended(Functional(), IMAGE())
    assert record["difference"] > 0.01
    assert record["difference_channels_last"] > 0.01


def test_a_gate_without_a_gradient_shows():
    model = Functional()
    whatwhere.attend(model, "cbam")
    gates = [name for name, _ in model.named_parameters() if ".attention." in name]
    each = Entry("network", Functional, IMAGE)
    model.head.weight.data.zero_()
    assert trains(model, each, gates).startswith("2 gates have zero gradients, second first")
    model.third.attention.requires_grad_(False)
    assert trains(model, each, gates).startswith("no gradient for third.attention.")
    model.third.attention.requires_grad_(True)
    model.head.weight.data.fill_(float("nan"))
    assert "is not finite" in trains(model, each, gates)


class Codes(Functional):
    def forward(self, x):
        return self.head(self.third(x.repeat(1, 11, 1, 1)[:, :32]).detach().mean((2, 3)))


def test_a_network_that_does_not_differentiate_there_is_told_apart():
    model = Codes()
    whatwhere.attend(model, "cbam", where="third")
    gates = [name for name, _ in model.named_parameters() if ".attention." in name]
    each = Entry("network", Codes, IMAGE)
    assert trains(model, each, gates) == f"{NOT_WITHOUT}: no gradient reaches third"


class Looks(Functional):
    def forward(self, x):
        return super().forward(x) if x.mean().item() < 9 else x


def test_what_the_plain_network_cannot_do_either_is_told_apart():
    model = Looks()
    whatwhere.attend(model, "cbam")
    assert compiles(model, IMAGE()).startswith(NOT_WITHOUT)
    assert len(whatwhere.attached(model)) == 2


def test_a_compiled_network_that_computes_something_else_shows(monkeypatch):
    def wrong(network, **_):
        off = float(len(whatwhere.attached(network)))
        return lambda *arguments: network(*arguments) + off

    monkeypatch.setattr(torch, "compile", wrong)
    model = Functional()
    whatwhere.attend(model, "cbam")
    assert compiles(model, IMAGE()) == "the output differs by 2.0e+00"


class Infinite(Functional):
    def forward(self, x):
        return super().forward(x) / 0


class Nothing(Functional):
    def forward(self, x):
        return super().forward(x)[:0], x.argmax()


class Noisy(Functional):
    runs = 0

    def forward(self, x):
        self.runs += 1
        return super().forward(x) + self.runs


def test_rows_that_cannot_be_measured_say_why():
    assert row(lambda: nn.Sequential(nn.Flatten(), nn.Linear(768, 2)))["reason"] == "no site"
    assert "expected input" in row(lambda: nn.Conv2d(4, 4, 3))["reason"]
    assert row(Infinite)["reason"] == "RuntimeError: the network's own output is not finite"
    assert "no floating-point numbers" in row(Nothing)["reason"]
    assert "varies by" in row(Noisy)["reason"]


def test_randomised_networks_hide_nothing():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    nn.init.zeros_(model[1].weight)
    randomise(model)
    assert bool((model[1].weight != 0).all())
    assert model[1].running_var.std() > 0
    assert model[1].bias.std() > 0


class Greedy(Functional):
    def forward(self, images):
        images[0] = super().forward(images[0])
        return images


def test_lists_that_networks_write_into_can_be_given_again():
    arguments = ([*IMAGE()],)
    model = Greedy()
    assert difference(evaluate(model, arguments), evaluate(model, arguments)) == 0
    assert arguments[0][0].ndim == 4


def test_differences():
    a, b = torch.zeros(2), torch.tensor([0.0, -3.0])
    assert difference([a, a], [a, b]) == 3
    assert difference([a], [a, a]) == float("inf")
    assert difference([a], [torch.zeros(3)]) == float("inf")
    assert difference([torch.zeros(0)], [torch.zeros(0)]) == 0


def test_the_page_tells_rows_apart():
    good = {
        "name": "good",
        "status": "attended",
        "where": "blocks",
        "needs_example": True,
        "sites": 2,
        "skipped": 0,
        "parameters": 1000,
        "added": 25,
        "difference": 0.0,
        "difference_channels_last": 2e-7,
        "trains": "yes",
        "exports": "a reason",
        "compiles": f"{NOT_WITHOUT}: its own",
    }
    bad = {"name": "bad", "status": "refused", "reason": "no place"}
    facts = [
        {"name": "a", "convolutional": True, "attended": True, "where": "blocks", "sites": 1},
        {"name": "b", "convolutional": True, "attended": False, "reason": "none at all"},
        {"name": "c", "convolutional": False, "attended": False, "reason": "none"},
        {"name": "d", "convolutional": None, "attended": False, "reason": "the process died"},
    ]
    results = {
        "torch": "2",
        "libraries": {
            "own": {"version": "", "rows": [good, bad]},
            "monai": {"version": None, "rows": []},
        },
        "timm": {"names": facts},
    }
    text = page(json.loads(json.dumps(results)))
    row = "| good | blocks \\* | 2 | 1,000 + 25 (2.5 %) | 0 / 2e-07 | yes | — | no |"
    assert row in text.splitlines()
    assert "| bad | no |" in text
    assert "- good, unchanged: up to rounding only, by 2.0e-07" in text
    for note in (
        "- good, exports: a reason",
        "- bad: no place",
        "- b: none at all",
        "Not installed.",
    ):
        assert note in text
    assert "1 of 2 (50.0 %): 1 by blocks" in text
    assert "the process died" in text
