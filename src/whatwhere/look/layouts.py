"""How pictures of gates are laid out: a page of one sample, rows of several, blocks of clips.

Each layout returns the figure, and the axes beside which the colour bar goes: none if there are no
maps of gates.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure
from torch import Tensor

from whatwhere.look import panels
from whatwhere.look.channels import bars_in, channels_in, inches
from whatwhere.look.panels import Cam, Colours, Drawn, Looks, placed, resized
from whatwhere.look.spread import evenly

COLUMNS = 6  # of pictures on a page, at most
WIDTH = 10.6  # of a page, in inches
STRIP = 0.3  # of the weights of a when gate, with two lines of text beside them
TALLEST = 4.6  # of the pictures on it

Laid = tuple[Figure, list[Any]]


@dataclass(frozen=True)
class Painted:
    """One map to draw: its title, its values at the positions of the picture, its colours.

    The note is the range of colours that are of this map alone.
    """

    title: str
    values: Tensor
    colours: Colours
    note: str = ""


@dataclass(frozen=True)
class Sheet:
    """All that there is to draw."""

    gates: Sequence[Drawn]
    cams: Sequence[Cam]
    looks: Looks
    colours: Colours

    @property
    def whats(self) -> list[Drawn]:
        """The gates that are bars."""
        return [drawn for drawn in self.gates if drawn.gate.kind == "what"]

    def of_kinds(self, *kinds: str) -> list[Drawn]:
        """The gates of these kinds."""
        return [drawn for drawn in self.gates if drawn.gate.kind in kinds]

    def painted(self, row: int, *kinds: str) -> list[Painted]:
        """The maps of a sample: those of gates of these kinds, then Grad-CAM's."""
        size = self.looks.display.shape[2:]
        box = self.looks.box
        return [
            Painted(panels.title(drawn), placed(drawn.values[row], size, box), self.colours)
            for drawn in self.of_kinds(*kinds)
        ] + [
            Painted(
                cam.title,
                placed(cam.values[row], size, box),
                panels.cam_colours(cam, row),
                note=f"0 to {cam.values[row].max().item():.2g}",
            )
            for cam in self.cams
        ]

    def beside(self, axes: list[Any]) -> list[Any]:
        """The axes that need the bar of the gates' colours."""
        return axes if len(self.whats) < len(self.gates) else []


def draw(sheet: Sheet) -> Laid:
    """The layout that suits the samples."""
    looks = sheet.looks
    if looks.volume:
        return page(sheet)
    if looks.display.ndim == 5:
        return clips(sheet)
    if len(looks.display) > 1:
        return rows(sheet)
    return sequence_page(sheet) if looks.display.ndim == 3 else page(sheet)


def rows(sheet: Sheet) -> Laid:
    """A row per image or sequence: the input, the maps by depth, the sorted what weights."""
    display, titles = sheet.looks.display, sheet.looks.titles
    sequence = display.ndim == 3
    count = len(sheet.painted(0, "where", "when", "joint")) + 1
    width, height = (2.2, 1.3) if sequence else (1.35, 1.45)
    widths = [1.0] * count + ([2.8] if sheet.whats else [])
    figure = Figure(
        figsize=(max(width * sum(widths) + 0.8, 4), height * len(display) + 0.6),
        layout="constrained",
    )
    grid = figure.add_gridspec(len(display), len(widths), width_ratios=widths)
    drawn = []
    for row, sample in enumerate(display):
        axes: Any = figure.add_subplot(grid[row, 0])
        (panels.curve if sequence else panels.image)(axes, sample)
        axes.set_ylabel(titles[row], fontsize=8, parse_math=False)
        if row == 0:
            axes.set_title("input", fontsize=8)
        drawn.append(axes)
        for column, each in enumerate(sheet.painted(row, "where", "when", "joint"), start=1):
            axes = figure.add_subplot(grid[row, column])
            on_input = panels.curve_on_map if sequence else panels.overlay
            on_input(axes, sample, each.values, each.colours)
            axes.set_xlabel(each.note, fontsize=6.5)
            if row == 0:
                axes.set_title(each.title, fontsize=7, parse_math=False)
            drawn.append(axes)
        if sheet.whats:
            bars_in(figure.add_subfigure(grid[row, count]), sheet.whats, row)
    return figure, sheet.beside(drawn)


def page(sheet: Sheet) -> Laid:
    """One image, or the middle slices of one volume: pictures in lines, the what gates below."""
    looks = sheet.looks
    sample = looks.display[0]
    painted = sheet.painted(0, "where", "when", "joint")
    planes: list[tuple[str, Callable[[Tensor], Tensor]]] = [("", lambda x: x)]
    if looks.volume:
        planes = [(f"middle of {'DHW'[axis]}", _middle(axis - 3)) for axis in range(3)]
    count = len(painted) + 1
    wraps = 1 if looks.volume else -(-count // COLUMNS)
    columns = -(-count // wraps)
    cell = (WIDTH - 1.0) / max(columns, 3)
    aspects = [cut(sample).shape[-2] / cut(sample).shape[-1] for _, cut in planes]
    tallest = TALLEST if len(painted) > 0 else TALLEST / 2
    heights = [min(aspect * cell, tallest) + 0.4 for aspect in aspects] * wraps
    figure, top = _sheet_of_paper(sheet, sum(heights))
    top.suptitle(looks.titles[0], fontsize=10, parse_math=False)
    grid = top.add_gridspec(len(heights), columns, height_ratios=heights)
    drawn = []
    for line, (name, cut) in enumerate(planes):
        for place in range(count):
            axes: Any = top.add_subplot(grid[line + place // columns, place % columns])
            title = "input"
            if place == 0:
                panels.image(axes, cut(sample))
                axes.set_ylabel(name, fontsize=8)
            else:
                each = painted[place - 1]
                title = each.title
                panels.overlay(axes, cut(sample), cut(each.values), each.colours)
                axes.set_xlabel(each.note, fontsize=7)
            if line == 0:
                axes.set_title(title, fontsize=7.5, parse_math=False)
            drawn.append(axes)
    return figure, sheet.beside(drawn)


def sequence_page(sheet: Sheet) -> Laid:
    """One sequence: the curve, with the gates as bands under it, and the what gates below."""
    sample = sheet.looks.display[0]
    painted = sheet.painted(0, "where", "when", "joint")
    heights = [1.6] + [0.42] * len(painted)
    figure, top = _sheet_of_paper(sheet, sum(heights) + 0.3)
    grid = top.add_gridspec(len(heights), 1, height_ratios=heights)
    axes: Any = top.add_subplot(grid[0])
    panels.curve(axes, sample)
    axes.set_title(sheet.looks.titles[0], fontsize=10, parse_math=False)
    panels.side(axes, "input")
    drawn = [axes]
    for line, each in enumerate(painted, start=1):
        axes = top.add_subplot(grid[line])
        panels.band(axes, each.values, each.colours)
        panels.side(axes, f"{each.title}\n{each.note}".rstrip())
        drawn.append(axes)
    return figure, sheet.beside(drawn)


def clips(sheet: Sheet) -> Laid:
    """A block per clip: frames with the when gates under them, where maps, the what gates."""
    display, titles = sheet.looks.display, sheet.looks.titles
    chosen = evenly(display.shape[2], panels.FRAMES)
    whens = sheet.of_kinds("when")
    single = len(display) == 1
    line = (WIDTH - 1.8) / len(chosen) * display.shape[-2] / display.shape[-1] + 0.06
    share = STRIP / line
    heights = [line * (1 + share * len(whens)) + 0.25]
    heights += [line] * len(sheet.painted(0, "where", "joint"))
    if sheet.whats and not single:
        heights.append(0.9)
    figure, top = _sheet_of_paper(sheet, sum(heights) * len(display), whats=single)
    grid = top.add_gridspec(len(heights) * len(display), 1, height_ratios=heights * len(display))
    drawn = []
    for row, clip in enumerate(display):
        first = row * len(heights)
        strips = []
        for when in whens:
            weights = resized(when.values[row].flatten(1), (clip.shape[1],))[0, chosen]
            strips.append((panels.title(when), weights))
        axes: Any = top.add_subplot(grid[first])
        panels.frames(axes, clip[:, chosen], whens=strips, share=share, colours=sheet.colours)
        axes.set_title(titles[row], fontsize=9, loc="left", parse_math=False)
        drawn.append(axes)
        for place, each in enumerate(sheet.painted(row, "where", "joint"), start=first + 1):
            axes = top.add_subplot(grid[place])
            values = each.values[chosen]
            panels.frames(axes, clip[:, chosen], values=values, colours=each.colours)
            panels.side(axes, f"{each.title}\n{each.note}".rstrip())
            drawn.append(axes)
        if sheet.whats and not single:
            bars_in(top.add_subfigure(grid[first + len(heights) - 1]), sheet.whats, row)
    return figure, sheet.beside(drawn)


def _sheet_of_paper(sheet: Sheet, height: float, *, whats: bool = True) -> tuple[Figure, Any]:
    """A figure, and the part of it above the what gates, which are drawn."""
    below = inches(sheet.whats) if whats and sheet.whats else 0.0
    figure = Figure(figsize=(WIDTH, height + 0.3 + below), layout="constrained")
    if below == 0.0:
        return figure, figure
    parts: Any = figure.subfigures(2, 1, height_ratios=[height + 0.3, below])
    top, bottom = parts
    channels_in(bottom, sheet.whats)
    return figure, top


def _middle(axis: int) -> Callable[[Tensor], Tensor]:
    return lambda x: x.select(axis, x.shape[axis] // 2)
