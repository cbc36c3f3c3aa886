"""Pictures, which a set may hold beside videos: a still is a clip of one frame, an animation one of many."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")

BACKGROUND = (255, 255, 255)  # white, as on a page: what shows through wherever a picture or a video does

_ANIMATED = ("PNG", "WEBP", "GIF")  # pages of a TIFF and views of an MPO are no moments
_SHORTEST = 0.01  # seconds; browsers show for `_INSTEAD` what asks for no more than that
_INSTEAD = 0.1


def is_image(path: Path) -> bool:
    """Whether the name is that of a picture."""
    return path.suffix.lower() in IMAGE_SUFFIXES


def count_pictures(path: str | os.PathLike[str]) -> int:
    """How many pictures an animated PNG or WebP promises to show one after another; 1 of a still."""
    with Image.open(path) as image:
        return _last(image) - _first(image) + 1


def open_image(path: str | os.PathLike[str]) -> Tensor:
    """The first picture of a file: `H W 3` uint8, turned as its EXIF says, on `BACKGROUND`."""
    return next(open_pictures(path))[0]


def open_pictures(path: str | os.PathLike[str]) -> Iterator[tuple[Tensor, float]]:
    """Every picture of a file as `open_image` gives it, and how many seconds it is shown; 0 of a still.

    Raises:
        OSError: the file ends before the pictures that it promises.
    """
    with Image.open(path) as image:
        first, last = _first(image), _last(image)
        for index in range(first, last + 1):
            try:
                image.seek(index)
                image.load()
            except EOFError as error:
                raise OSError(f"it ends after {index - first} of {last - first + 1} pictures") from error
            seconds = float(image.info.get("duration") or 0) / 1000
            yield _rgb(image), 0.0 if first == last else seconds if seconds > _SHORTEST else _INSTEAD


def flatten(image: Image.Image) -> Tensor:
    """Any colour picture -> `H W 3` uint8; what is transparent shows `BACKGROUND`, not the colour hidden there."""
    if image.has_transparency_data:
        above = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", above.size, (*BACKGROUND, 255)), above)
    return torch.from_numpy(np.array(image.convert("RGB")))


def _first(image: Image.Image) -> int:
    """An animated PNG may begin with a picture for programs that cannot show the others."""
    return 1 if image.info.get("default_image") and _last(image) else 0


def _last(image: Image.Image) -> int:
    return getattr(image, "n_frames", 1) - 1 if image.format in _ANIMATED else 0


def _rgb(image: Image.Image) -> Tensor:
    """`H W 3` uint8 of what is loaded."""
    upright = ImageOps.exif_transpose(image)
    if not upright.mode.startswith("I"):
        return flatten(upright)
    # Grey of 16 bits; `convert` would cut it off at 255.
    levels = np.asarray(upright)
    grey = np.clip(levels // 256, 0, 255).astype(np.uint8)[..., None].repeat(3, axis=2)
    if "transparency" in image.info:
        grey[levels == image.info["transparency"]] = BACKGROUND
    return torch.from_numpy(grey)
