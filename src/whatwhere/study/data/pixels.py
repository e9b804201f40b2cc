"""From an image to uint8 pixels of the wanted side, the same for folders and torchvision's sets."""

import numpy as np
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms.v2 import functional as v2

GREY_MODES = ("1", "L", "I;16", "I;16B")


def to_pixels(image: Image.Image) -> Tensor:
    """Upright uint8 pixels: (1, H, W) of a grey image, (3, H, W) in RGB of any other.

    Raises:
        ValueError: the image has values of no known range (mode I or F).

    >>> to_pixels(Image.new("CMYK", (3, 2))).shape
    torch.Size([3, 2, 3])
    """
    image = ImageOps.exif_transpose(image)
    if image.mode in ("I", "F"):
        raise ValueError(f"mode {image.mode} has no known range of values")
    if image.mode.startswith("I;16"):
        # PIL's own conversion clips at 255.
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode in GREY_MODES:
        image = image.convert("L")
    else:
        if "transparency" in image.info:
            image = image.convert("RGBA")
        image = image.convert("RGB")
    pixels: Tensor = v2.pil_to_tensor(image)
    return pixels


def fit(pixels: Tensor, side: int) -> Tensor:
    """The shorter side resized to ``side``, antialiased, and the centre cropped to a square.

    >>> fit(to_pixels(Image.new("L", (50, 20))), 8).shape
    torch.Size([1, 8, 8])
    """
    height, width = pixels.shape[-2:]
    if height != width:
        # Cropped first, so that a strip of any length costs no more than a square.
        pixels = v2.center_crop(pixels, [min(height, width)] * 2)
    resized: Tensor = v2.resize(pixels, [side, side], antialias=True)
    return resized


def in_rgb(pixels: Tensor) -> Tensor:
    """Grey pixels in three equal channels; those of three as they are.

    >>> in_rgb(to_pixels(Image.new("L", (4, 5)))).shape
    torch.Size([3, 5, 4])
    """
    return pixels.expand(3, *pixels.shape[1:])
