"""A mask for every frame, from masks that a person painted over some of them."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from minisora.pipelines.recipe import unpack_mask


def mask_path(masks: Sequence[tuple[int, str]], frames: int, height: int, width: int) -> Tensor:
    """Masks T H W, true where the video is to change.

    Before the first painted frame and after the last one the mask stands still. Between two of them it has the shape of
    the nearer one, and its middle goes in a straight line from the middle of the one to that of the other: so it
    follows what moves evenly. Beside an empty mask nothing moves.

    Args:
        masks: (frame, `pack_mask`), the frames rising.
        frames, height, width: of the video.

    Raises:
        UserError: one is no mask of that size.
    """
    painted = [(frame, torch.tensor(unpack_mask(text, height, width))) for frame, text in masks]  # H W
    found = []
    for t in range(frames):
        before = max((pair for pair in painted if pair[0] <= t), default=painted[0], key=lambda pair: pair[0])
        after = min((pair for pair in painted if pair[0] >= t), default=painted[-1], key=lambda pair: pair[0])
        way = after[0] - before[0]
        share = (t - before[0]) / way if way > 0 else 0.0
        near = before[1] if share < 0.5 else after[1]
        if before[1].any() and after[1].any():
            start, end = _middle(before[1]), _middle(after[1])
            near = _moved(near, start + share * (end - start) - _middle(near))
        found.append(near)
    return torch.stack(found)


def _middle(mask: Tensor) -> Tensor:
    """(row, column) of the middle of a mask H W that is not empty."""
    return mask.nonzero().double().mean(0)


def _moved(mask: Tensor, by: Tensor) -> Tensor:
    """A mask H W moved by whole pixels; what leaves the picture is gone."""
    # A half goes on, as on the page (minisora/studio/page/mask.js), which shows the same masks.
    rows, columns = (math.floor(float(each) + 0.5) for each in by)
    height, width = mask.shape
    moved = torch.zeros_like(mask)
    places = mask.nonzero() + torch.tensor([rows, columns])
    inside = ((places >= 0) & (places < torch.tensor([height, width]))).all(1)
    moved[tuple(places[inside].T)] = True
    return moved
