"""Pictures: that what is drawn is the gates, on one scale, and that the model stays as found."""

import numpy as np
import pytest
import torch
from torch import nn

from whatwhere import CBAM
from whatwhere.look import figure as figure
from whatwhere.look import record


def network(ndim, *, blocks=2, channels=1, **options):
    torch.manual_seed(0)
    conv = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[ndim]
    layers = [conv(channels, 8, 3, padding=1)]
    for _ in range(blocks):
        layers += [CBAM(8, ndim=ndim, start="identity", **options), nn.ReLU()]
    model = nn.Sequential(*layers)
    for name, parameter in model.named_parameters():
        if ".mix." in name:
            nn.init.normal_(parameter, std=0.5)
        if name.endswith("mix.reduce.weight"):
            parameter.data.abs_()  # else its ReLU could be off and the gate one constant
    return model


def drawn(model, samples, **options):
    """Of the gates alone: these networks are no classifiers."""
    return figure(model, samples, grad_cam=False, **options)


def gates_of(model, samples):
    with record(model) as recorded, torch.no_grad():
        model.eval()(samples)
    return {site: calls[0] for site, calls in recorded.items()}


def titled(figure, start):
    return [axes for axes in figure.axes if axes.get_title().startswith(start)]


def bar_panels(figure):
    return [axes for axes in figure.axes if axes.patches and axes.get_label() != "<colorbar>"]


def test_maps_are_the_gates_on_one_colour_scale():
    model, samples = network(2), torch.randn(3, 1, 12, 10)
    figure = drawn(model, samples, titles=["a", "b", "c"])
    gates = gates_of(model, samples)
    first, second = (titled(figure, f"where {i} of 2")[0].images[-1] for i in (1, 2))
    panels = [axes for axes in figure.axes if len(axes.images) == 2]
    for panel, (row, block) in zip(panels, [(r, b) for r in range(3) for b in (1, 3)], strict=True):
        expected = gates[f"{block}.gates.spatial"][row, 0]
        assert np.allclose(panel.images[-1].get_array(), expected, atol=1e-6)
    assert first.norm is second.norm
    maps = torch.stack([gates["1.gates.spatial"], gates["3.gates.spatial"]])
    far = (maps - 1).abs().max().item()
    assert (first.norm.vmin, first.norm.vmax) == pytest.approx((1 - far, 1 + far))
    assert [axes.get_ylabel() for axes in figure.axes if axes.get_ylabel()] == ["a", "b", "c"]
    bar = next(axes for axes in figure.axes if axes.get_label() == "<colorbar>")
    marks = {
        label.get_text(): y
        for y, label in zip(bar.get_yticks(), bar.get_yticklabels(), strict=True)
    }
    low, high = maps.min().item(), maps.max().item()
    assert marks == pytest.approx({"start 1": 1, f"min {low:.3g}": low, f"max {high:.3g}": high})


def test_bars_are_the_sorted_weights_of_each_sample():
    model, samples = network(2), torch.randn(2, 1, 12, 10)
    panels = bar_panels(drawn(model, samples))
    weights = gates_of(model, samples)
    assert len(panels) == 4
    for panel, (row, site) in zip(panels, [(0, "1"), (0, "3"), (1, "1"), (1, "3")], strict=True):
        expected = weights[f"{site}.gates.channel"][row].flatten().sort(descending=True).values
        assert expected[0] - expected[-1] > 0.1
        tops = [1 + bar.get_height() for bar in panel.patches]
        assert np.allclose(tops, expected, atol=1e-6)


def test_joint_gates_are_shown_as_the_mean_over_channels():
    model, samples = network(2, order="channel+spatial", blocks=1), torch.randn(1, 1, 9, 9)
    figure = drawn(model, samples)
    [panel] = titled(figure, "joint")
    expected = gates_of(model, samples)["1.gates"].mean(1)[0]
    assert np.allclose(panel.images[-1].get_array(), expected, atol=1e-6)


def test_of_many_gates_eight_are_shown_and_the_title_says_so():
    figure = drawn(network(2, blocks=16), torch.randn(1, 1, 9, 9))
    shown = [axes.get_title().split("\n")[0] for axes in titled(figure, "where")]
    assert shown == [f"where {i} of 16" for i in (1, 3, 5, 7, 10, 12, 14, 16)]
    assert figure.get_suptitle() == "8 of 16 where gates, 8 of 16 what gates, evenly by depth"


def test_clips_show_frames_moments_and_places():
    model = network(3, blocks=1, kernel_size=3, order="temporal-channel-spatial")
    samples = torch.randn(1, 1, 5, 6, 6)
    figure = drawn(model, samples)
    gates = gates_of(model, samples)
    first, second = (axes for axes in figure.axes if axes.images and axes.get_xlim()[1] > 30)
    assert [text.get_text().split("\n")[0] for text in first.texts] == ["when"]
    weights = gates["1.gates.temporal"].flatten()
    for moment, strip in enumerate(first.images[1:]):
        assert strip.get_array().item() == pytest.approx(weights[moment].item())
        left, right, *_ = strip.get_extent()
        assert (left, right) == (moment * 7 - 0.5, moment * 7 + 5.5)  # under its frame
    assert len(first.images) == 1 + 5
    assert second.get_ylabel().split("\n")[0] == "where"
    frame = second.images[-1].get_array()[:, 2 * 7 : 2 * 7 + 6]
    assert np.allclose(frame, gates["1.gates.spatial"][0, 0, 2], atol=1e-6)
    assert {axes.get_aspect() for axes in (first, second)} == {1.0}


def test_sequences_are_lines_on_their_maps(tmp_path):
    model, samples = network(1, kernel_size=3, channels=2), torch.randn(2, 2, 20)
    figure = drawn(model, samples)
    panel = titled(figure, "where 1 of 2")[0]
    expected = gates_of(model, samples)["1.gates.spatial"][0]
    assert np.allclose(panel.images[-1].get_array(), expected, atol=1e-6)
    assert len(panel.lines) == 2
    figure.savefig(tmp_path / "sequences.png")


@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("ndim", [2, 3])
def test_figures_can_be_written_with_hostile_titles(tmp_path, ndim, channels):
    samples = torch.randn(1, channels, *(7,) * ndim)
    figure = drawn(
        network(ndim, channels=channels, kernel_size=3), samples, titles=[r"$\frac <b>_^"]
    )
    figure.savefig(tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 5000


def test_flat_gates_and_flat_samples_are_no_division_by_zero(tmp_path):
    model = CBAM(3, start="identity")
    figure = drawn(model, torch.zeros(1, 3, 8, 8))
    image = titled(figure, "where")[0].images[-1]
    assert (image.norm.vmin, image.norm.vmax) == pytest.approx((0.95, 1.05))
    figure.savefig(tmp_path / "flat.png")


def test_the_model_stays_as_found():
    model = network(2)
    model[1].eval()
    flags = [module.training for module in model.modules()]
    drawn(model, torch.randn(1, 1, 9, 9))
    assert [module.training for module in model.modules()] == flags
    assert not any(module._forward_hooks for module in model.modules())


def test_errors_say_what_came():
    samples = torch.randn(2, 1, 9, 9)
    with pytest.raises(ValueError, match="with gates that run, got Conv2d with 0 gates"):
        drawn(nn.Conv2d(1, 1, 1), samples)
    with pytest.raises(ValueError, match=r"\(2, 1, 9, 9\), got \(1, 1, 9, 9\)"):
        drawn(network(2), samples, display=torch.rand(1, 1, 9, 9))
    with pytest.raises(ValueError, match="expected 2 titles, got 1"):
        drawn(network(2), samples, titles=["one"])


def test_of_no_gates_grad_cam_is_left_and_needs_none():
    plain = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    )
    drawn_alone = figure(plain, torch.randn(1, 1, 9, 9), only=())
    assert [axes.get_title().partition("\n")[0] for axes in drawn_alone.axes] == [
        "input",
        "Grad-CAM",
    ]
    with pytest.raises(ValueError, match="expected gates or Grad-CAM to draw, got neither"):
        figure(plain, torch.randn(1, 1, 9, 9), only=(), grad_cam=False)
