"""A page of one sample: maps where the network looked, extreme channels, Grad-CAM, films."""

from io import BytesIO

import av
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from whatwhere import attend
from whatwhere.look import figure, grad_cam, maps
from whatwhere.look.film import film, gif, mp4
from whatwhere.study.networks import SmallResNet


def classifier(ndim=2, *, channels=3, **options):
    model = SmallResNet(4, in_channels=channels, ndim=ndim, channels=(8, 16), blocks=(1, 1))
    attend(model, "cbam", **options)
    for name, parameter in model.named_parameters():
        if ".attention." in name and parameter.ndim > 1:
            nn.init.uniform_(parameter, -0.2, 0.6)
    return model.eval()


def panel(drawn, start):
    return next(axes for axes in drawn.axes if axes.get_title().startswith(start))


def test_maps_lie_on_the_part_that_the_network_saw_of_the_whole_picture():
    model, x = classifier(), torch.randn(1, 3, 16, 16)
    display = torch.rand(1, 3, 60, 90)
    drawn = figure(model, x, display=display, box=(20, 5, 70, 55))
    gate = maps(model, x)["stages.1.0.bn2.attention.gates.spatial"].values
    shown = panel(drawn, "where 2 of 2").images[-1].get_array()
    expected = F.interpolate(gate, size=(50, 50), mode="bilinear", align_corners=False)[0, 0]
    assert shown.shape == (60, 90)
    assert np.allclose(shown[5:55, 20:70], expected, atol=1e-6)
    assert np.ma.getmaskarray(shown).sum() == 60 * 90 - 50 * 50
    assert panel(drawn, "input").images[0].get_array().shape == (60, 90, 3)
    assert {axes.get_aspect() for axes in drawn.axes if axes.get_title()[:5] == "where"} == {1.0}


def test_grad_cam_of_this_and_of_the_plain_network_are_of_one_class():
    model, plain, x = classifier(), SmallResNet(4, channels=(8, 16), blocks=(1, 1)).eval(), None
    x = torch.randn(1, 3, 16, 16)
    drawn = figure(model, x, plain=plain)
    answer = model(x).argmax(1).item()
    for title, network in (("Grad-CAM", model), ("Grad-CAM, plain net", plain)):
        axes = next(axes for axes in drawn.axes if axes.get_title() == title)
        expected = grad_cam(network, x, target=answer)
        large = F.interpolate(expected, size=(16, 16), mode="bilinear", align_corners=False)
        assert np.allclose(axes.images[-1].get_array(), large[0, 0], atol=1e-6)
        assert axes.images[-1].norm.vmax == pytest.approx(expected.max().item())
        assert axes.get_xlabel() == f"0 to {expected.max().item():.2g}"


def test_channels_are_the_most_and_the_least_used_with_their_maps():
    model, x = classifier(), torch.randn(1, 3, 16, 16)
    gate = maps(model, x)["stages.0.0.bn2.attention.gates.channel"]
    weights = gate.values.flatten()
    order = weights.argsort(descending=True).tolist()
    assert weights.max() - weights.min() > 0.01
    drawn = figure(model, x, grad_cam=False, only=[gate.name])
    named = [axes for axes in drawn.axes if axes.get_title().startswith("#")]
    assert [int(axes.get_title()[1:].split()[0]) for axes in named] == order
    for axes, channel in zip(named, order, strict=True):
        assert axes.get_title().split("\n")[1] == f"{weights[channel]:.3f}"
        assert np.allclose(axes.images[0].get_array(), gate.features[0, channel])
    bars = next(axes for axes in drawn.axes if axes.patches and not axes.images)
    tops = [1 + bar.get_height() for bar in bars.patches]
    assert np.allclose(tops, weights.sort(descending=True).values, atol=1e-6)
    assert "8 channels" in bars.get_title()


def test_channels_that_are_used_alike_have_no_extremes():
    model, x = SmallResNet(4, channels=(8,), blocks=(1,)), torch.randn(1, 3, 16, 16)
    attend(model, "cbam")  # starts as the identity: all weights are 1
    drawn = figure(model, x, grad_cam=False)
    assert not any(axes.get_title().startswith("#") for axes in drawn.axes)


def test_two_hues_part_more_from_less_only_where_the_start_is_the_identity():
    x = torch.randn(1, 3, 16, 16)
    identity = figure(classifier(), x, grad_cam=False)
    paper = figure(classifier(start="paper"), x, grad_cam=False)
    maps_of = [panel(drawn, "where 1").images[-1] for drawn in (identity, paper)]
    assert [each.get_cmap().name for each in maps_of] == ["PuOr_r", "cividis"]
    assert maps_of[0].norm.vmin + maps_of[0].norm.vmax == pytest.approx(2)


def test_volumes_are_seen_in_their_three_middle_slices():
    model, x = classifier(3, channels=1, kernel_size=3), torch.randn(1, 1, 6, 10, 8)
    drawn = figure(model, x, volume=True, grad_cam=False)
    values = maps(model, x)["stages.0.0.bn2.attention.gates.spatial"].values
    large = F.interpolate(values, size=(6, 10, 8), mode="trilinear", align_corners=False)[0, 0]
    planes = [axes for axes in drawn.axes if len(axes.images) == 2]
    firsts = planes[::2]  # two gates a line
    for axes, expected in zip(firsts, (large[3], large[:, 5], large[:, :, 4]), strict=True):
        assert np.allclose(axes.images[1].get_array(), expected, atol=1e-6)
    assert [axes.get_ylabel() for axes in drawn.axes if axes.get_ylabel()] == [
        "middle of D",
        "middle of H",
        "middle of W",
    ]


def test_a_sequence_has_its_gates_under_it():
    model, x = classifier(1, channels=2), torch.randn(1, 2, 32)
    drawn = figure(model, x)
    values = maps(model, x)["stages.1.0.bn2.attention.gates.spatial"].values
    large = F.interpolate(values, size=32, mode="linear", align_corners=False)[0]
    band = next(axes for axes in drawn.axes if axes.get_ylabel().startswith("where 2 of 2"))
    assert np.allclose(band.images[0].get_array(), large, atol=1e-6)
    curve = next(axes for axes in drawn.axes if axes.get_ylabel() == "input")
    assert np.allclose(curve.lines[1].get_ydata(), x[0, 1])
    assert curve.get_xlim() == band.get_xlim()


def test_arguments_that_would_be_ignored_are_refused():
    model, x = classifier(), torch.randn(1, 3, 16, 16)
    with pytest.raises(ValueError, match="plain and target are for Grad-CAM"):
        figure(model, x, grad_cam=False, target=1)
    with pytest.raises(ValueError, match="expected volumes"):
        figure(model, x, volume=True)
    with pytest.raises(ValueError, match=r"names of gates, of stages.0.*, got \['no'\]"):
        figure(model, x, only=["no"])


def clip_model():
    return classifier(3, channels=1, kernel_size=(1, 3, 3), order="channel-spatial-temporal")


def frames_of_mp4(content):
    with av.open(BytesIO(content)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


@pytest.mark.parametrize("clip", [True, False])
def test_a_film_has_a_picture_for_each_frame(clip):
    display = torch.rand(1, 5, 20, 30)
    if clip:
        pictures = film(clip_model(), torch.randn(1, 1, 5, 16, 16), display, box=(5, 0, 25, 20))
    else:
        pictures = film(classifier(), torch.randn(5, 3, 16, 16), display, box=(5, 0, 25, 20))
    assert len(pictures) == 5
    assert len({picture.shape for picture in pictures}) == 1
    assert all(side % 2 == 0 for side in pictures[0].shape[:2])
    assert not np.array_equal(pictures[0], pictures[4])
    with Image.open(BytesIO(gif(pictures))) as animation:
        assert animation.n_frames == 5
        assert animation.info["duration"] == pytest.approx(1000 / 6, abs=10)  # GIFs count in 10 ms
        assert animation.size == pictures[0].shape[1::-1]
    decoded = frames_of_mp4(mp4(pictures))
    assert len(decoded) == 5
    assert decoded[0].shape == pictures[0].shape
    assert np.abs(decoded[2].astype(int) - pictures[2]).mean() < 10


def test_a_film_says_what_it_cannot_show():
    x, display = torch.randn(1, 1, 5, 16, 16), torch.rand(1, 4, 20, 30)
    with pytest.raises(ValueError, match=r"as many, got \(1, 1, 5, 16, 16\) and \(1, 4, 20, 30\)"):
        film(clip_model(), x, display)
    model = SmallResNet(4, in_channels=1, ndim=3, channels=(8,), blocks=(1,))
    attend(model, "se")
    with pytest.raises(ValueError, match="a gate that keeps positions or frames, got none"):
        film(model, x, torch.rand(1, 5, 20, 30))
