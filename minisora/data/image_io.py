"""Still images, which a set may hold beside videos: an image is a clip of one frame."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")


def is_image(path: Path) -> bool:
    """Whether the name is that of a still image."""
    return path.suffix.lower() in IMAGE_SUFFIXES


def open_image(path: Path) -> Tensor:
    """`H W 3` uint8, turned as its EXIF says."""
    with Image.open(path) as image:
        image.load()
        upright = ImageOps.exif_transpose(image)
        if upright.mode.startswith("I"):  # grey of 16 bits; `convert` would cut it off at 255
            grey = np.clip(np.asarray(upright) // 256, 0, 255).astype(np.uint8)
            return torch.from_numpy(grey)[..., None].repeat(1, 1, 3)
        return torch.from_numpy(np.array(upright.convert("RGB")))
