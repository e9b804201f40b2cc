"""Reading files by their content: each becomes a batch for the network and a picture to look at."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torchvision.transforms.v2 import functional as v2

from whatwhere.inputs.arrays import read_arrays
from whatwhere.inputs.preparation import InputError, Preparation
from whatwhere.inputs.video import read_frames
from whatwhere.look.spread import evenly
from whatwhere.study.data import DataSettings, load
from whatwhere.study.data.base import SkippedFile
from whatwhere.study.data.pixels import to_pixels

Embedded = Literal["digits", "clips"]
Kind = Literal["image", "video", "volume", "sequence"]

EMBEDDED = get_args(Embedded)
LARGEST = 2**27  # pixels of an image
DISPLAYED = 768  # the longer side of a picture to look at, at most
MOVING = 24  # frames of a video that a network of images is run on, if not told


@dataclass(frozen=True)
class Input:
    """One file, or one sample of it.

    Attributes:
        name: of the file, with the number of the sample where there are several.
        kind: "image", "video", "volume" or "sequence".
        x: (1, C, *S), normalised: what the network takes. Of a video for a network of images,
            (T, C, H, W): a batch of its frames.
        display: what to look at, as it was: (1 or 3, H, W) in [0, 1], (1 or 3, T, H, W) of a
            video or volume, in its own aspect, its longer side 768 at most; (C, L) of a sequence.
        box: left, top, right and bottom of the part of the picture that x is, in its pixels; None
            where it is all of it.
    """

    name: str
    kind: Kind
    x: Tensor
    display: Tensor
    box: tuple[float, float, float, float] | None


def read_one(
    path: str | os.PathLike[str],
    preparation: Preparation,
    *,
    frames: int | None = None,
    volumes: bool = False,
) -> Input:
    """Read one file, whatever its name says: what it is, decoding it shows.

    ``Input.x`` is the tensor for the network and ``Input.display`` the picture. Of an ``.npz`` with
    several samples this is the first.

    Args:
        path: an image, a video, or an ``.npz`` or ``.npy`` of arrays.
        preparation: what the network takes.
        frames: of a video, for a network of images; 24 if not given.
        volumes: whether arrays (D, H, W) are volumes; else they are the frames of a video.

    Raises:
        InputError: the file is none of these, or not for this network; one line that says why.
        OSError: it is not there, or not to be read.
    """
    return _samples(Path(path), preparation, frames=frames, volumes=volumes, most=1)[0]


def read(
    paths: Iterable[str | os.PathLike[str]],
    preparation: Preparation,
    *,
    frames: int | None = None,
    volumes: bool = False,
    most: int = 4,
) -> tuple[list[Input], list[SkippedFile]]:
    """Read files, and those in folders; what cannot be read is told, and the others go on.

    Args:
        paths: files and folders; "digits" and "clips" are the embedded sets, "./digits" a
            folder of that name.
        preparation: what the network takes.
        frames: as of ``read_one``.
        volumes: likewise.
        most: so many samples of an ``.npz`` or of an embedded set, evenly chosen.

    Raises:
        InputError: none can be read, or the network takes other samples than an embedded set's.
    """
    found: list[Input] = []
    skipped: list[SkippedFile] = []
    for given in paths:
        if given in EMBEDDED:
            found += embedded(cast(Embedded, given), preparation, most)
            continue
        for path in expand(Path(given)):
            try:
                found += _samples(path, preparation, frames=frames, volumes=volumes, most=most)
            except (InputError, OSError) as error:
                skipped.append(SkippedFile(str(path), str(error)))
    if not found:
        listed = "; ".join(f"{each.path}: {each.reason}" for each in skipped)
        raise InputError(f"expected at least one input, got none. {listed}".strip())
    return found, skipped


def embedded(name: Embedded, preparation: Preparation, most: int) -> list[Input]:
    """Test samples of an embedded set of ``compare``, evenly chosen.

    Raises:
        InputError: the network takes others.
    """
    data = load(DataSettings(source=name))
    if data.shape != preparation.shape:
        raise InputError(
            f"{name} are of shape {data.shape}, the network takes {_shape(preparation)}"
        )
    found = []
    for row in evenly(len(data.test), most):
        unit = data.unnormalise(data.test[row][0])
        x = preparation.normalised(unit)[None]
        kind: Kind = "image" if data.ndim == 2 else "video"
        found.append(Input(f"{name}[{row}]", kind, x, unit, None))
    return found


def expand(path: Path) -> list[Path]:
    """The file, or of a folder those in it and below, sorted, hidden ones apart."""
    if not path.is_dir():
        return [path]
    below = sorted(each for each in path.rglob("*") if each.is_file())
    return [each for each in below if not _hidden(each.relative_to(path))]


def _hidden(path: Path) -> bool:
    return any(part.startswith((".", "__MACOSX")) for part in path.parts)


def _samples(
    path: Path, preparation: Preparation, *, frames: int | None, volumes: bool, most: int
) -> list[Input]:
    with path.open("rb") as file:
        start = file.read(8)
    if start[:2] == b"PK" or start[:6] == b"\x93NUMPY":
        return _of_arrays(path, preparation, volumes, most)
    try:
        image = Image.open(path)
    except UnidentifiedImageError:
        return [_of_video(path, preparation, frames)]
    except Exception as error:  # PIL's readers raise whatever their parser runs into
        raise InputError(f"not readable as an image: {error}") from error
    with image:
        if getattr(image, "n_frames", 1) > 1 and preparation.ndim == 3:
            return [_of_video(path, preparation, frames)]
        return [_of_image(path, image, preparation)]


def _of_image(path: Path, image: Image.Image, preparation: Preparation) -> Input:
    if preparation.ndim != 2:
        takes = "sequences" if preparation.ndim == 1 else "clips or volumes"
        raise InputError(f"an image, and the network takes {takes}, {_shape(preparation)}")
    if image.width * image.height > LARGEST:
        raise InputError(
            f"an image of {image.width}×{image.height}, and at most {LARGEST} pixels are read"
        )
    try:
        pixels = to_pixels(image)
    except Exception as error:
        raise InputError(f"not readable as an image: {error}") from error
    x = preparation.image(pixels)[None]
    display = _displayed(pixels[None])[0]
    return Input(path.name, "image", x, display, _box(display, preparation))


def _of_video(path: Path, preparation: Preparation, frames: int | None) -> Input:
    if preparation.ndim == 1:
        raise InputError(f"no array, and the network takes sequences, {_shape(preparation)}")
    count = preparation.shape[1] if preparation.ndim == 3 else MOVING if frames is None else frames
    clip = torch.from_numpy(read_frames(path, count, DISPLAYED)).permute(0, 3, 1, 2)
    seen = torch.stack([preparation.image(frame) for frame in clip])
    display = clip.transpose(0, 1) / 255
    x = seen.transpose(0, 1)[None] if preparation.ndim == 3 else seen
    return Input(path.name, "video", x, display, _box(display, preparation))


def _of_arrays(path: Path, preparation: Preparation, volumes: bool, most: int) -> list[Input]:
    found = []
    rows, samples = read_arrays(path, preparation.ndim, most)
    for row, sample in zip(rows, samples, strict=True):
        name = path.name if len(rows) == 1 else f"{path.name}[{row}]"
        if preparation.ndim == 1:
            if len(sample) != preparation.shape[0]:
                raise InputError(
                    f"sequences of {len(sample)} channels, and the network takes "
                    f"{_shape(preparation)}"
                )
            x = preparation.normalised(sample)[None]
            found.append(Input(name, "sequence", x, sample, None))
        elif preparation.ndim == 3:
            unit = preparation.channels(sample) / 255
            kind: Kind = "volume" if volumes else "video"
            found.append(Input(name, kind, preparation.normalised(unit)[None], sample / 255, None))
        else:
            x = preparation.image(sample)[None]
            display = _displayed(sample[None])[0]
            found.append(Input(name, "image", x, display, _box(display, preparation)))
    return found


def _displayed(pixels: Tensor) -> Tensor:
    """uint8 pixels (N, 1 or 3, H, W) in [0, 1], large ones made smaller in their own aspect."""
    height, width = pixels.shape[-2:]
    scale = DISPLAYED / max(height, width)
    if scale < 1:
        size = [max(1, round(height * scale)), max(1, round(width * scale))]
        pixels = v2.resize(pixels, size, antialias=True)
    return pixels / 255


def _box(display: Tensor, preparation: Preparation) -> tuple[float, float, float, float] | None:
    """The centre square of the shorter side, and of that what is cropped."""
    height, width = display.shape[-2:]
    if preparation.shape[-1] != preparation.shape[-2]:  # all of it, resized
        return None
    side = round(min(height, width) * preparation.cut)
    if side == height == width:
        return None
    left, top = (width - side) // 2, (height - side) // 2
    return (left, top, left + side, top + side)


def _shape(preparation: Preparation) -> str:
    return "×".join(map(str, preparation.shape))
