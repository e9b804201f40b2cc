"""Whether a file that was dropped may be decoded: told by its content, and small once decoded.

Only headers are read here. A picture of 50,000 by 50,000 black pixels is a small file, and so is
an array of zeros: what counts is what they become.
"""

import zipfile
from math import prod
from pathlib import Path
from typing import IO, Literal

import av
import numpy as np
from PIL import Image, UnidentifiedImageError

from whatwhere.inputs import Input, InputError, Preparation, read_one

Upload = Literal["image", "clip", "arrays"]

MEGABYTES = 64  # of the file
MEGAPIXELS = 50  # of an image
FRAME_MEGAPIXELS = 9  # of a frame of a clip: 4K
SECONDS = 120  # of a clip
FRAMES = 7200  # of a clip, or of an animation
ARRAY_MEGABYTES = 256  # of all arrays of a file

# Others of Pillow's readers start programs, or are hardly ever what was meant.
IMAGES = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
# Others of FFmpeg's read playlists, which name further files and addresses.
CLIPS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,flv,ogg,asf"


class UploadError(ValueError):
    """A file that is refused; the message is for whoever dropped it."""


def take(path: Path, preparation: Preparation, *, volumes: bool = False) -> Input:
    """Check a file and read it as the network takes it; arrays (D, H, W) as volumes or as clips.

    Raises:
        UploadError: it is refused, or is no input of this network.
    """
    check(path)
    try:
        return read_one(path, preparation, volumes=volumes)
    except (InputError, OSError) as error:
        raise UploadError(str(error)) from error


def check(path: Path) -> Upload:
    """What a file is, by its content; its name says nothing.

    Raises:
        UploadError: it is none of an image, a clip and a file of arrays, or too large.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     named = Path(folder, "photograph.txt")
    ...     Image.new("L", (8, 8)).save(named, format="PNG")
    ...     check(named)
    'image'
    """
    size = path.stat().st_size
    if size == 0:
        raise UploadError("expected an image, a clip or an .npz file, got an empty file")
    if size > MEGABYTES * 2**20:
        raise UploadError(f"expected at most {MEGABYTES} MB, got {size / 2**20:.0f} MB")
    if _is_image(path):
        return "image"
    if _is_arrays(path):
        return "arrays"
    if _is_clip(path):
        return "clip"
    raise UploadError(
        "expected an image, a clip or an .npz file, got something else: its content is none of "
        "these, whatever its name says"
    )


def _is_image(path: Path) -> bool:
    try:
        with Image.open(path, formats=IMAGES) as image:
            width, height = image.size
            frames = getattr(image, "n_frames", 1)
    except UnidentifiedImageError:
        return False
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UploadError(f"expected at most {MEGAPIXELS} megapixels, got more: {error}") from error
    except Exception as error:  # Pillow's readers raise whatever their parser runs into
        raise UploadError(f"the image cannot be read: {error}") from error
    if width * height > MEGAPIXELS * 10**6:
        raise UploadError(
            f"expected an image of at most {MEGAPIXELS} megapixels, got {width} × {height}"
        )
    if frames > FRAMES:
        raise UploadError(f"expected at most {FRAMES} frames, got {frames}")
    return True


def _is_arrays(path: Path) -> bool:
    with path.open("rb") as file:
        start = file.read(6)
    try:
        if start == b"\x93NUMPY":
            with path.open("rb") as file:
                size = _declared_bytes(file)
        elif start[:4] == b"PK\x03\x04":
            with zipfile.ZipFile(path) as archive:
                names = [name for name in archive.namelist() if name.endswith(".npy")]
                size = 0
                for name in names:
                    with archive.open(name) as member:
                        size += _declared_bytes(member)
            if not names:
                raise UploadError("expected arrays in the .npz file, got none")
        else:
            return False
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, NotImplementedError) as error:
        if isinstance(error, UploadError):
            raise
        raise UploadError(f"the arrays cannot be read: {error}") from error
    if size > ARRAY_MEGABYTES * 2**20:
        raise UploadError(
            f"expected arrays of at most {ARRAY_MEGABYTES} MB, got {size / 2**20:,.0f} MB"
        )
    return True


def _declared_bytes(file: IO[bytes]) -> int:
    """The size that the header of one array declares: that much is allocated before it is read."""
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    elif version == (2, 0):
        shape, _, dtype = np.lib.format.read_array_header_2_0(file)
    else:
        raise UploadError(f"expected arrays of plain numbers, got numpy's format {version}")
    if dtype.hasobject:
        raise UploadError("expected arrays of numbers, got Python objects, which are not read")
    return prod(shape) * dtype.itemsize


def _is_clip(path: Path) -> bool:
    options = {"format_whitelist": CLIPS, "protocol_whitelist": "file"}
    try:
        with av.open(str(path), options=options) as container:
            if not container.streams.video:
                raise UploadError("expected a clip with pictures, got sound alone")
            stream = container.streams.video[0]
            width, height = stream.codec_context.width, stream.codec_context.height
            # Not what the header says of its length: what there is to decode.
            frames, seconds = 0, 0.0
            for packet in container.demux(stream):
                frames += packet.size > 0
                if packet.pts is not None:
                    seconds = max(seconds, float(packet.pts * packet.time_base))
                if frames > FRAMES or seconds > SECONDS:
                    raise UploadError(
                        f"expected a clip of at most {SECONDS} seconds and {FRAMES} frames, got "
                        "a longer one"
                    )
    except (av.error.FFmpegError, ValueError) as error:
        if isinstance(error, UploadError):
            raise
        return False
    if width * height > FRAME_MEGAPIXELS * 10**6:
        raise UploadError(
            f"expected frames of at most {FRAME_MEGAPIXELS} megapixels, got {width} × {height}"
        )
    return True
