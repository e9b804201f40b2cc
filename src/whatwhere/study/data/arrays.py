"""Arrays in one .npz file, laid out as MedMNIST's are: images, volumes or sequences by split."""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from whatwhere.study.data.assemble import Found, digest
from whatwhere.study.data.base import DataError, DataSettings
from whatwhere.study.data.pixels import fit
from whatwhere.study.data.splitting import Ints, Part, SplitName
from whatwhere.study.data.views import views

Field = Literal["images", "sequences"]
SPLITS: tuple[SplitName, ...] = ("train", "val", "test")
CHUNK = 1024  # images resized at once: the resampling works in float32


def find(settings: DataSettings) -> Found:
    """Read the arrays of the splits that are there: ``{split}_images`` and ``{split}_labels``."""
    path = Path(settings.source)
    arrays = _read(path)
    field = _field(path, arrays)
    present = [split for split in SPLITS if f"{split}_{field}" in arrays]
    samples = {split: _samples(arrays, split, field) for split in present}
    labels = {split: _labels(arrays, split, field) for split in present}
    shapes = {split: tuple(stored.shape[1:]) for split, stored in samples.items()}
    if len(set(shapes.values())) > 1:
        raise DataError(f"{path}: expected samples of one shape, got {shapes}")
    values = np.unique(labels["train"])
    for split, given in labels.items():
        if strangers := sorted(set(given.tolist()) - set(values.tolist())):
            raise DataError(
                f"{path}: expected the labels of {split} to be among those of train, "
                f"got {strangers[:5]} as well"
            )
    if settings.size is not None:
        samples = {split: _resize(stored, settings.size) for split, stored in samples.items()}
    numbers = {split: np.searchsorted(values, given) for split, given in labels.items()}
    return Found(
        name=path.stem,
        classes=tuple(str(value) for value in values),
        parts={
            split: Part(samples[split], np.arange(len(numbers[split])), numbers[split])
            for split in present
        },
        views=views(
            "sequences" if field == "sequences" else "pixels", tuple(samples["train"].shape[1:])
        ),
        digest=digest(*samples.values()),
    )


def _read(path: Path) -> Mapping[str, NDArray[np.generic]]:
    try:
        with np.load(path, allow_pickle=False) as opened:
            wanted = {f"{split}_{kind}" for split in SPLITS for kind in ("images", "sequences")}
            wanted |= {f"{split}_labels" for split in SPLITS}
            # Other entries stay unread: they may be large, or not arrays at all.
            arrays = {name: opened[name] for name in opened.files if name in wanted}
            names = ", ".join(opened.files)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as problem:
        raise DataError(f"{path} cannot be read as an .npz file of arrays: {problem}") from problem
    if not arrays:
        raise DataError(
            f"{path}: expected train_images or train_sequences, and train_labels; got [{names}]"
        )
    return arrays


def _field(path: Path, arrays: Mapping[str, object]) -> Field:
    fields: list[Field] = [field for field in ("images", "sequences") if f"train_{field}" in arrays]
    if len(fields) != 1:
        raise DataError(
            f"{path}: expected either train_images or train_sequences, got "
            f"[{', '.join(sorted(arrays))}]"
        )
    return fields[0]


def _samples(arrays: Mapping[str, NDArray[np.generic]], split: SplitName, field: Field) -> Tensor:
    name = f"{split}_{field}"
    array = arrays[name]
    return _images(name, array) if field == "images" else _sequences(name, array)


def _images(name: str, array: NDArray[np.generic]) -> Tensor:
    if array.dtype != np.uint8:
        raise DataError(f"{name}: expected dtype uint8, got {array.dtype}")
    in_colour = array.shape[-1] in (1, 3)
    if array.ndim == 3 or (array.ndim == 4 and not in_colour):
        return torch.from_numpy(array)[:, None]
    if array.ndim in (4, 5) and in_colour:
        return torch.from_numpy(np.ascontiguousarray(np.moveaxis(array, -1, 1)))
    raise DataError(
        f"{name}: expected shape (N, H, W), (N, H, W, 3), (N, D, H, W) or (N, D, H, W, 3), "
        f"got {array.shape}"
    )


def _sequences(name: str, array: NDArray[np.generic]) -> Tensor:
    if array.dtype.kind not in "fiu" or array.ndim != 3:
        raise DataError(
            f"{name}: expected numbers of shape (N, C, L), got {array.dtype} of {array.shape}"
        )
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is counted
        sequences = torch.from_numpy(array.astype(np.float32))
    if bad := int((~sequences.isfinite()).sum()):
        raise DataError(f"{name}: expected finite values, got {bad} that are NaN or infinite")
    return sequences


def _labels(arrays: Mapping[str, NDArray[np.generic]], split: SplitName, field: Field) -> Ints:
    name = f"{split}_labels"
    if name not in arrays:
        raise DataError(f"expected {name} beside {split}_{field}, found none")
    labels = arrays[name]
    if labels.ndim == 2 and labels.shape[1] > 1:
        raise DataError(
            f"{name}: expected one label per sample, got {labels.shape[1]} of them; "
            "multi-label data is not supported"
        )
    if labels.ndim not in (1, 2) or labels.dtype.kind not in "iu":
        raise DataError(
            f"{name}: expected integers of shape (N,) or (N, 1), "
            f"got {labels.dtype} of {labels.shape}"
        )
    count = len(arrays[f"{split}_{field}"])
    if len(labels) != count or count == 0:
        raise DataError(
            f"{name}: expected as many labels as samples and at least one, "
            f"got {len(labels)} for {count}"
        )
    return labels.reshape(-1).astype(np.int64)


def _resize(samples: Tensor, size: int) -> Tensor:
    if samples.ndim != 4:
        raise DataError(
            "expected size only with images (N, C, H, W): volumes and sequences are used as "
            f"stored, got size={size} for samples of shape {tuple(samples.shape[1:])}"
        )
    return torch.cat([fit(chunk, size) for chunk in torch.split(samples, CHUNK)])
