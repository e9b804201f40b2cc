"""From a path to all that the page shows, before there is a page."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from whatwhere.inputs import Input, Preparation, preparation_of
from whatwhere.serve import examples
from whatwhere.serve.state import Member, Served, members_of, study_of
from whatwhere.study.report import page as report_page


@dataclass(frozen=True)
class Site:
    """What is served.

    Attributes:
        name: of the checkpoint or study.
        served: its networks.
        offered: inputs to begin with.
        report: the study's report, a page of HTML; None where there is none.
        notes: what there is to know, a line each.
        volumes: whether arrays of three position axes are volumes, not clips.
    """

    name: str
    served: Served
    offered: tuple[Input, ...]
    report: str | None
    notes: tuple[str, ...]
    volumes: bool


def opened(
    path: Path,
    *,
    shape: Sequence[int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    volumes: bool = False,
    with_examples: bool = True,
    trust: Sequence[str] = (),
    tell: Callable[[str], None] = print,
) -> Site:
    """Read a checkpoint or a study's folder.

    Args:
        path: of either; of a trial's checkpoint, the study's data are found as well.
        shape: (C, *S) of one input, where the file does not say.
        mean: of each channel, likewise.
        std: of each channel, likewise.
        volumes: whether arrays of three position axes are volumes, not clips.
        with_examples: whether to read the study's data for inputs to begin with.
        trust: packages whose functions a file may call to build its network.
        tell: what is told of what takes long.

    Raises:
        ValueError: there is nothing that could be served; a line that says why.
    """
    members = members_of(path)
    preparation = preparation_of(members[0].path, shape=shape, mean=mean, std=std)
    run = study_of(path)
    notes = [_about(members, preparation)]
    if preparation.assumed:
        notes.append(f"Normalisation: {preparation.assumed}.")
    offered: tuple[Input, ...] = ()
    samples: Tensor | None = None
    if with_examples and run is not None:
        tell("reading the study's data, for test samples to try")
        try:
            found = examples.test_data(run)
            offered = examples.offered(found, volumes=volumes)
            samples = examples.samples(found)
        except ValueError as error:  # the page is of use without
            notes.append(f"No test samples: {error}.")
    served = Served(members, preparation=preparation, samples=samples, trust=trust)
    report = None
    if path.is_dir():
        try:
            report = report_page.render(report_page.read_results(path), path)
        except ValueError as error:
            notes.append(f"No report: {error}.")
    return Site(path.resolve().name, served, offered, report, tuple(notes), volumes)


def _about(members: Sequence[Member], preparation: Preparation) -> str:
    facts = members[0].facts
    parts = [str(facts["backbone"])] if "backbone" in facts else []
    if preparation.classes is not None:
        parts.append(f"{len(preparation.classes)} classes")
    parts.append("inputs of " + " × ".join(map(str, preparation.shape)))
    if len(members) > 1:
        parts.append(f"{len(members)} trained networks")
    elif "test" in facts:
        parts.append(f"test accuracy {facts['test']['accuracy']:.1%}")
    return ", ".join(parts)
