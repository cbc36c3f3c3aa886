"""How close one video is to another, pixel by pixel: PSNR and SSIM of clips in [-1, 1]."""

import torch
from torch import Tensor

from minisora.errors import UserError

_RANGE = 2.0  # of values in [-1, 1]


def psnr(first: Tensor, second: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each clip (B) in dB; infinite where clips are equal.

    Args:
        first, second: `B C T H W` in [-1, 1].

    Raises:
        UserError: the two have different sizes.
    """
    check_sizes(first, second)
    error = (first.double() - second.double()).square().flatten(1).mean(dim=1)
    return (10 * torch.log10(_RANGE**2 / error)).float()


def ssim(first: Tensor, second: Tensor) -> Tensor:
    """Structural similarity (Wang et al. 2004) of each clip (B), mean over frames; 1 where clips are equal.

    Args:
        first, second: `B C T H W` in [-1, 1], sides of 11 pixels or more.

    Raises:
        UserError: the two have different sizes, or torchmetrics is not installed.
    """
    check_sizes(first, second)
    try:
        from torchmetrics.functional.image import structural_similarity_index_measure
    except ImportError as error:
        raise UserError(
            "SSIM needs torchmetrics: pip install 'minisora[dev]', or torchmetrics alone"
        ) from error
    batch, _, frames = first.shape[:3]
    if min(first.shape[3:]) < 11:
        raise UserError(
            f"SSIM needs sides of 11 pixels or more; these clips are {first.shape[3]}x{first.shape[4]}"
        )
    ours, theirs = (clip.transpose(1, 2).flatten(0, 1).float() for clip in (first, second))  # (B T) C H W
    each = structural_similarity_index_measure(ours, theirs, data_range=_RANGE, reduction="none")  # (B T)
    assert isinstance(each, Tensor)
    return each.view(batch, frames).mean(dim=1)


def check_sizes(first: Tensor, second: Tensor) -> None:
    """Refuse clips that cannot be compared.

    Raises:
        UserError: they are not both B C T H W of one size.
    """
    if first.shape != second.shape or first.ndim != 5:
        raise UserError(
            "clips to compare must both be B C T H W of one size; "
            f"got {tuple(first.shape)} and {tuple(second.shape)}"
        )
