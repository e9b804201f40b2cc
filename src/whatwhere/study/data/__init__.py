"""Data for a study: two embedded sets with known truth, the user's own, and torchvision's.

>>> data = load(DataSettings(source="clips", max_train=20))
>>> data.shape, len(data.train), data.truth.when.shape
((1, 12, 24, 24), 20, torch.Size([10, 12]))
"""

from pathlib import Path

from whatwhere.study.data import arrays, clips, digits, folder, torchvision_sets
from whatwhere.study.data.assemble import Found, assemble
from whatwhere.study.data.base import (
    Augmented,
    DataError,
    DataSettings,
    SkippedFile,
    Split,
    StudyData,
    Truth,
)

__all__ = [
    "Augmented",
    "DataError",
    "DataSettings",
    "SkippedFile",
    "Split",
    "StudyData",
    "Truth",
    "load",
]


def load(settings: DataSettings) -> StudyData:
    """Read or make the data that the settings ask for.

    Raises:
        DataError: the source is not there, or what is there cannot be trained on.
    """
    return assemble(_find(settings), settings)


def _find(settings: DataSettings) -> Found:
    embedded = {"digits": digits.find, "clips": clips.find}
    if settings.source in embedded:
        return embedded[settings.source](settings)
    if settings.source.startswith(torchvision_sets.PREFIX):
        return torchvision_sets.find(settings)
    path = Path(settings.source)
    if path.is_dir():
        return folder.find(settings)
    if path.is_file() and path.suffix == ".npz":
        return arrays.find(settings)
    there = "is a file of another kind" if path.exists() else "does not exist"
    raise DataError(
        'expected source to be "digits", "clips", a folder of images, an .npz file or '
        f"torchvision:NAME; {settings.source!r} {there}"
    )
