"""How like real clips a model's are, where no judge knows the world: what moves, how, and how far two sets lie apart.

Pixels that move are further than a tenth of the range from their clip's median frame (`moving`). In footage they are a
few in a hundred, so that a model which paints only the background scores well on all pixels, and badly on them.

Every distance between two sets of clips is read beside its floor, which is the distance of real clips from real clips.

Letters: B clips, T frames, H W pixels, N clips of a set, F features.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import wasserstein_distance
from torch import Tensor
from torch.nn import functional as F

from minisora.data import clips
from minisora.data.clips import MOVED
from minisora.errors import UserError

_RANGE = 2.0  # of values in [-1, 1]
_BLOCK = 8  # pixels per side, of which one motion is told
_REACH = 4  # pixels a frame, on each axis, that a block is looked for
_SECTORS = 8


def psnr(first: Tensor, second: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each clip (B) in dB; infinite where clips are equal.

    Args:
        first, second: B C T H W in [-1, 1].

    Raises:
        UserError: the two have different sizes.
    """
    _check_sizes(first, second)
    error = (first.double() - second.double()).square().flatten(1).mean(dim=1)
    return (10 * torch.log10(_RANGE**2 / error)).float()


def _check_sizes(first: Tensor, second: Tensor) -> None:
    if first.shape != second.shape or first.ndim != 5:
        raise UserError(
            "clips to compare must both be B C T H W of one size; "
            f"got {tuple(first.shape)} and {tuple(second.shape)}"
        )


def moving(video: Tensor) -> Tensor:
    """Where a clip differs from its median frame: B 1 T H W, bool.

    Args:
        video: B 3 T H W in [-1, 1].
    """
    return clips.moving(clips.to_uint8(video)).unsqueeze(1)


def psnr_moving(copy: Tensor, video: Tensor) -> Tensor:
    """PSNR in dB on the pixels that move in `video`, one a clip (B); NaN where none do.

    Args:
        copy, video: B 3 T H W in [-1, 1].

    Raises:
        UserError: the two have different sizes.
    """
    _check_sizes(copy, video)
    where = moving(video).expand_as(video).double()
    error = ((copy.double() - video.double()).square() * where).flatten(1).sum(1) / where.flatten(1).sum(1)
    return (10 * torch.log10(_RANGE**2 / error)).float()


def activity(video: Tensor) -> Tensor:
    """Share of pixels that change by more than a tenth of the range from frame to frame, one a clip (B).

    Args:
        video: B 3 T H W in [-1, 1]. A clip of one frame has none.
    """
    if video.shape[2] < 2:
        return torch.zeros(len(video))
    change = (video[:, :, 1:] - video[:, :, :-1]).abs().amax(dim=1)
    return (change > MOVED * _RANGE).flatten(1).float().mean(1)


def flicker(video: Tensor) -> Tensor:
    """How much pixels tremble: root mean square of x[t-1] - 2 x[t] + x[t+1], over the range, where nothing moves (B).

    Args:
        video: B 3 T H W in [-1, 1]. Clips under three frames have none, and so have clips that move everywhere.
    """
    if video.shape[2] < 3:
        return torch.zeros(len(video))
    still = ~moving(video)
    still = (still[:, :, 2:] & still[:, :, 1:-1] & still[:, :, :-2]).expand(-1, 3, -1, -1, -1).float()
    bend = (video[:, :, 2:] - 2 * video[:, :, 1:-1] + video[:, :, :-2]) / _RANGE
    count = still.flatten(1).sum(1)
    return ((bend.square() * still).flatten(1).sum(1) / count.clamp_min(1)).sqrt()


@dataclass(frozen=True)
class Motion:
    """How a set of clips moves, by the share of its pixels that change and by blocks of 8 x 8 pixels that are followed.

    Args:
        amounts: `activity` of every clip.
        speeds: pixels a frame, of every block that moves.
        directions: shares of eight sectors, right first, then against the clock; they sum to 1, or all are 0.
    """

    amounts: NDArray[np.float64]
    speeds: NDArray[np.float64]
    directions: NDArray[np.float64]


def motion(videos: Sequence[Tensor]) -> Motion:
    """Block matching: where each block that changes came from, within 4 pixels on each axis.

    A block whose best match is no better than that at rest by half, or is met at several places, tells nothing.

    Args:
        videos: of clips, each 3 T H W in [-1, 1].
    """
    speeds: list[float] = []
    sectors = np.zeros(_SECTORS)
    for video in videos:
        for dy, dx in _block_motion(video):
            speeds.append(math.hypot(dy, dx))
            # Rows grow downwards; an angle grows against the clock.
            sectors[round(math.atan2(-dy, dx) / (2 * math.pi) * _SECTORS) % _SECTORS] += 1
    total = sectors.sum()
    amounts = np.asarray([float(activity(video[None])) for video in videos])
    return Motion(amounts, np.asarray(speeds), sectors / total if total else sectors)


def joined(parts: Sequence[Motion]) -> Motion:
    """The motion of several sets of clips as one; at least one set."""
    # Each block that is followed has one speed and one direction.
    sectors = np.sum([part.directions * len(part.speeds) for part in parts], axis=0)
    total = sectors.sum()
    return Motion(
        np.concatenate([part.amounts for part in parts]),
        np.concatenate([part.speeds for part in parts]),
        sectors / total if total else sectors,
    )


def _block_motion(video: Tensor) -> list[tuple[int, int]]:
    """(down, right) in pixels a frame of the blocks of one clip (3 T H W) that move and can be followed."""
    frames = video.transpose(0, 1).float()  # T 3 H W
    height, width = frames.shape[2] // _BLOCK * _BLOCK, frames.shape[3] // _BLOCK * _BLOCK
    if len(frames) < 2 or not height or not width:
        return []
    now = frames[1:, :, :height, :width]
    before = F.pad(frames[:-1, :, :height, :width], (_REACH,) * 4, mode="replicate")
    shifts = sorted(
        ((dy, dx) for dy in range(-_REACH, _REACH + 1) for dx in range(-_REACH, _REACH + 1)),
        key=lambda shift: (shift[0] ** 2 + shift[1] ** 2, shift),
    )
    errors = []
    for dy, dx in shifts:
        # A block that has moved by (dy, dx) is found that far back.
        source = before[:, :, _REACH - dy : _REACH - dy + height, _REACH - dx : _REACH - dx + width]
        errors.append(F.avg_pool2d((now - source).square().mean(1, keepdim=True), _BLOCK).flatten(1))
    error = torch.stack(errors)  # shifts (T-1) blocks
    rest = error[0]
    best, chosen = error.min(dim=0)
    alone = (error <= best * 1.05 + 1e-6).sum(0) == 1
    told = (rest > (MOVED * _RANGE) ** 2 / _BLOCK) & (best < rest / 2) & alone & (chosen > 0)
    return [shifts[int(index)] for index in chosen[told]]


@dataclass(frozen=True)
class MotionDistance:
    """How differently two sets of clips move; 0 is alike.

    Args:
        amount: Wasserstein distance of the shares of pixels that change, as a share.
        speed: the same of the speeds of blocks, in pixels a frame; NaN where a set has no block that can be followed.
        direction: the same of their directions on the circle, in turns: at most a half.
    """

    amount: float
    speed: float
    direction: float


def motion_distance(first: Motion, second: Motion) -> MotionDistance:
    """Of two sets of clips.

    Raises:
        UserError: a set is empty.
    """
    sizes = len(first.amounts), len(second.amounts)
    if not all(sizes):
        raise UserError(f"motion of {sizes[0]} and of {sizes[1]} clips: at least one of each is needed")
    both = len(first.speeds) > 0 and len(second.speeds) > 0
    return MotionDistance(
        float(wasserstein_distance(first.amounts, second.amounts)),
        float(wasserstein_distance(first.speeds, second.speeds)) if both else math.nan,
        circular_distance(first.directions, second.directions) if both else math.nan,
    )


def circular_distance(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Wasserstein-1 distance of two histograms on a circle, in turns (Rabin, Delon and Gousseau 2011, eq. 12)."""
    gap = np.cumsum(first - second)
    return float(np.abs(gap - np.median(gap)).mean())


def latent_features(latents: Tensor) -> Tensor:
    """What a clip shows, as N F numbers: of each channel its mean, its spread and its means in quarters.

    Args:
        latents: N Z T' H' W', normalised.
    """
    mean, spread = latents.mean((2, 3, 4)), latents.std((2, 3, 4), correction=0)
    quarters = F.adaptive_avg_pool2d(latents.mean(2), 2).flatten(1)
    return torch.cat([mean, spread, quarters], dim=1).float()


def change_features(latents: Tensor) -> Tensor:
    """How a clip changes, as N F numbers: the root mean square change of each channel in quarters; no F for images.

    Args:
        latents: N Z T' H' W', normalised.
    """
    change = (latents[:, :, 1:] - latents[:, :, :-1]).float().square()
    if not change.shape[2]:
        return torch.zeros(len(latents), 0)
    return F.adaptive_avg_pool2d(change.mean(2), 2).sqrt().flatten(1)


@dataclass(frozen=True)
class FeatureSpace:
    """The directions in which real clips differ, of unit variance: what features are told apart in.

    Args:
        mean: F.
        axes: F x K, K principal components over their deviations.
    """

    mean: Tensor
    axes: Tensor

    @classmethod
    def of(cls, features: Tensor, most: int = 32) -> "FeatureSpace":
        """Of real clips' features, N F: as many components as N tell, a third of them, at most `most`."""
        mean = features.mean(0)
        _, deviations, directions = torch.linalg.svd((features - mean).double(), full_matrices=False)
        scale = deviations / math.sqrt(max(1, len(features) - 1))
        keep = int((scale > 1e-3 * scale[0].clamp_min(1e-12)).sum())
        keep = max(1, min(keep, most, len(features) // 3))
        return cls(mean, (directions[:keep].T / scale[:keep].clamp_min(1e-12)).float())

    def __call__(self, features: Tensor) -> Tensor:
        """Coordinates N K of features N F."""
        return (features - self.mean) @ self.axes


@dataclass(frozen=True)
class LatentSpace:
    """What clips show and how they change, as coordinates that count alike.

    In one space the few numbers of change would be lost among those of what is shown, and still pictures be as near to
    clips as other clips are.
    """

    shown: FeatureSpace
    change: FeatureSpace | None

    @classmethod
    def of(cls, latents: Tensor, most: int = 32) -> "LatentSpace":
        """Of real clips' latents N Z T' H' W': at most so many coordinates, half of them of change; one of each."""
        change = change_features(latents)
        of_change = FeatureSpace.of(change, max(1, most // 2)) if change.shape[1] else None
        return cls(FeatureSpace.of(latent_features(latents), max(1, most - most // 2)), of_change)

    def __call__(self, latents: Tensor) -> Tensor:
        """Coordinates N K of latents N Z T' H' W'."""
        shown = self.shown(latent_features(latents))
        return (
            shown if self.change is None else torch.cat([shown, self.change(change_features(latents))], dim=1)
        )


def frechet_distance(first: Tensor, second: Tensor) -> float:
    """Distance of the Gaussians of two sets of features, N K and M K (Heusel et al. 2017, eq. 6; squared, as FID is).

    It is biased upwards for few clips, so it means something only beside one of as many clips of the same kind.

    Raises:
        UserError: fewer than two clips in a set.
    """
    if min(len(first), len(second)) < 2:
        raise UserError(f"a Frechet distance of {len(first)} and {len(second)} clips: two of each are needed")
    a, b = first.double(), second.double()
    gap = (a.mean(0) - b.mean(0)).square().sum()
    one, two = (torch.cov(x.T).reshape(x.shape[1], x.shape[1]) for x in (a, b))
    values, vectors = torch.linalg.eigh(one)
    root = vectors * values.clamp_min(0).sqrt() @ vectors.T
    cross = torch.linalg.eigvalsh(root @ two @ root).clamp_min(0).sqrt().sum()
    return float((gap + one.trace() + two.trace() - 2 * cross).clamp_min(0))
