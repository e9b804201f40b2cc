"""Samples in an ``.npz`` or ``.npy`` file, laid out as ``compare`` reads them, or one by itself."""

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from whatwhere.inputs.preparation import InputError
from whatwhere.look.spread import evenly

# Of a study's file the samples that it was tested on come first.
SPLITS = ("test", "val", "train")


def read_arrays(path: Path, ndim: int, most: int) -> tuple[list[int], list[Tensor]]:
    """At most so many samples, evenly chosen: their numbers, and uint8 (C, *S) or float32 (C, L).

    The array is that of a split, as in ``test_images`` or ``train_sequences``, or the first.

    Args:
        path: of the file.
        ndim: the position axes of a sample: 1, 2 or 3.
        most: samples.

    Raises:
        InputError: the file has no such array.
    """
    name, array = _array(path)
    shape, dtype = array.shape, array.dtype
    batch = _sequences(array) if ndim == 1 else _images(array, ndim)
    if batch is None or len(batch) == 0:
        wanted = {
            1: "(L,), (C, L) or (N, C, L)",
            2: "(H, W), (H, W, 3), (N, H, W) or (N, H, W, 3)",
            3: "(D, H, W), (D, H, W, 3), (N, D, H, W) or (N, D, H, W, 3)",
        }[ndim]
        raise InputError(f"expected an array {wanted}, got {name} of shape {shape}")
    count = min(most, len(batch))
    rows = evenly(len(batch), count)
    chosen = np.ascontiguousarray(batch[rows])
    return rows, list(torch.from_numpy(_values(name, chosen, dtype, ndim)))


def _array(path: Path) -> tuple[str, NDArray[Any]]:
    try:
        with path.open("rb") as file:
            opened = np.load(file, allow_pickle=False)
            if isinstance(opened, np.ndarray):
                return "the array", opened
            name = _chosen(opened.files)
            return name, opened[name]
    except InputError:
        raise
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"not readable as arrays: {error}") from error


def _chosen(names: Sequence[str]) -> str:
    usual = [f"{split}_{kind}" for split in SPLITS for kind in ("images", "sequences")]
    for name in (*usual, *names):
        if name in names:
            return name
    raise InputError("an .npz file without arrays")


def _sequences(array: NDArray[Any]) -> NDArray[Any] | None:
    if array.ndim not in (1, 2, 3):
        return None
    return array.reshape((1,) * (3 - array.ndim) + array.shape)


def _images(array: NDArray[Any], ndim: int) -> NDArray[Any] | None:
    """As (N, C, *S)."""
    colour = array.ndim > ndim and array.shape[-1] in (1, 3)
    if not colour:
        array = array[..., None]
    if array.ndim == ndim + 1:
        array = array[None]
    return np.moveaxis(array, -1, 1) if array.ndim == ndim + 2 else None


def _values(name: str, batch: NDArray[Any], dtype: Any, ndim: int) -> NDArray[Any]:
    if dtype.kind not in "fiu":
        raise InputError(f"expected numbers, got {name} of {dtype}")
    if ndim == 1:
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is seen
            batch = batch.astype(np.float32)
        if not np.isfinite(batch).all():
            raise InputError(f"expected finite values, got NaN or infinite ones in {name}")
        return batch
    if dtype == np.uint8:
        return batch
    if dtype.kind == "f" and batch.min() >= 0 and batch.max() <= 1:  # false of NaN
        pixels: NDArray[np.uint8] = np.rint(batch * 255).astype(np.uint8)
        return pixels
    raise InputError(f"expected uint8, or values in [0, 1], got {name} of {dtype}")
