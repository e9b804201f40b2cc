"""Inputs to begin with: samples of a study's own test data."""

from pathlib import Path

import torch
from torch import Tensor

from whatwhere.files import read_json
from whatwhere.inputs import Input
from whatwhere.inputs.read import Kind
from whatwhere.study import data
from whatwhere.study.data import DataSettings, StudyData

OFFERED = 24
SAMPLES = 128  # for the means of gates


def test_data(run: Path) -> StudyData:
    """The data of a study, read as its settings say; nothing is downloaded.

    Raises:
        ValueError: they are no longer there, or have changed since.
    """
    study = read_json(run / "study.json")
    settings = DataSettings(**study["settings"]["data"] | {"download": False})
    found = data.load(settings)
    if found.fingerprint != study["fingerprint"]:
        raise ValueError(
            f"the data of {settings.source} have changed since the study (fingerprint "
            f"{study['fingerprint']}, now {found.fingerprint})"
        )
    return found


def offered(found: StudyData, *, volumes: bool) -> tuple[Input, ...]:
    """Test samples, evenly from the whole test set, named by their class."""
    kinds: dict[int, Kind] = {1: "sequence", 2: "image", 3: "volume" if volumes else "video"}
    made = []
    for row in _evenly(len(found.test), OFFERED):
        x, label = found.test[row]
        display = found.unnormalise(x)
        if found.ndim > 1 and len(display) not in (1, 3):
            display = display.mean(0, keepdim=True)
        made.append(Input(found.classes[label], kinds[found.ndim], x[None], display, None))
    return tuple(made)


def samples(found: StudyData) -> Tensor:
    """Test samples (M, C, *S), evenly from the whole test set."""
    return torch.stack([found.test[row][0] for row in _evenly(len(found.test), SAMPLES)])


def _evenly(count: int, most: int) -> list[int]:
    return list(range(0, count, -(-count // most)))
