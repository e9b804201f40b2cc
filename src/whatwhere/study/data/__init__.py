"""Data for a study: two embedded sets with known truth, the user's own, and torchvision's.

>>> data = load(DataSettings(source="clips", max_train=20))
>>> data.shape, len(data.train), data.truth.when.shape
((1, 12, 24, 24), 20, torch.Size([10, 12]))
"""

import re
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
from whatwhere.study.data.stream.names import is_stream, name_of

__all__ = [
    "Augmented",
    "DataError",
    "DataSettings",
    "SkippedFile",
    "Split",
    "StudyData",
    "Truth",
    "folder_name",
    "load",
]


def load(settings: DataSettings) -> StudyData:
    """Read or make the data that the settings ask for.

    Raises:
        DataError: the source is not there, or what is there cannot be trained on.
    """
    return assemble(_find(settings), settings)


def folder_name(source: str) -> str:
    """What the folder of a study on a source is called by default.

    >>> [folder_name(each) for each in ("cats/train-*.tar", "hf:owner/set:large", "a/x.npz")]
    ['cats', 'set-large', 'x']
    """
    name = name_of(source) if is_stream(source) else Path(source).resolve().stem
    cleaned = re.sub(r"[^\w.+-]+", "-", name).strip("-.")
    return "data" if cleaned == "" else cleaned


def _find(settings: DataSettings) -> Found:
    embedded = {"digits": digits.find, "clips": clips.find}
    if settings.source in embedded:
        return embedded[settings.source](settings)
    if settings.source.startswith(torchvision_sets.PREFIX):
        return torchvision_sets.find(settings)
    if is_stream(settings.source):
        return _find_stream(settings)
    path = Path(settings.source)
    if path.is_dir():
        return folder.find(settings)
    if path.is_file() and path.suffix == ".npz":
        return arrays.find(settings)
    there = "is a file of another kind" if path.exists() else "does not exist"
    raise DataError(
        'expected source to be "digits", "clips", a folder of images, an .npz file, '
        "shards (.tar, .parquet or .arrow, by path or URL), hf:NAME or torchvision:NAME; "
        f"{settings.source!r} {there}"
    )


def _find_stream(settings: DataSettings) -> Found:
    try:
        from whatwhere.study.data.stream.find import find
    except ImportError as problem:
        raise DataError(
            f"shards need what comes with pip install 'whatwhere[stream]': {problem}"
        ) from problem
    return find(settings)
