"""What belongs to what in a clip of the shapes world: background, wall, object colour, coverage by it.

Everything here leans on one fact: a pixel at a soft edge is a mixture of background and object, so in colour
space it lies on the line between them, however blurred the video is. Colours are told apart by direction from
the background, and coverage is the position on that line.

Letters: T frames, H height, W width. Colours are RGB in [0, 1].
"""

from dataclasses import dataclass

import numpy as np

from minisora.data.shapes_world.grammar import COLORS, Light
from minisora.data.shapes_world.layout import DAY, NIGHT, RADIUS, RADIUS_JITTER, WALL

PALETTE = np.array(list(COLORS.values()))  # 6 3
COLOR_NAMES = tuple(COLORS)

# Nearer to the background than this a pixel says nothing of the object: above the noise of a VAE at 28 dB
# (0.04), and far below the palest pair, white by day (0.45).
_CONTRAST = 0.15
# A light is named if the background is at most this far from it.
_LIGHT_TOLERANCE = 0.25
_GREY_TOLERANCE = 0.12  # of the wall's brightness and of its neutrality
_HAZE = 0.06  # share of the wall's grey in a column from which it is kept apart from the object
_NARROWEST_WALL = 0.12  # of the short side; the narrowest that the world draws is 0.2
# Less than this share of the smallest object's area, in its best frame, is no object.
_LEAST_AREA = 0.3
_MOST_AREA = 0.5  # of the frame; the largest object of the world has 0.16 of a square one


@dataclass(frozen=True)
class Scenery:
    """What does not move."""

    background: np.ndarray  # T 3, of every frame
    light: Light | None
    wall: tuple[float, float] | None  # left and right edge in pixels, pixel centres at integers
    open: np.ndarray  # W, False in the columns of the wall and of its soft edges


@dataclass(frozen=True)
class Segmentation:
    """The object's pixels."""

    color: str
    rgb: np.ndarray  # 3, as measured
    coverage: np.ndarray  # T H W, share of the object in each pixel; noise goes below 0 and above 1
    contrast: np.ndarray  # T H W, how far a pixel is from the background, in units of the object's distance


def find_scenery(frames: np.ndarray) -> Scenery:
    """Background, light and wall of frames (T H W 3 in [0, 1])."""
    height, width = frames.shape[1:3]
    rim = max(1, round(0.03 * width))
    # The left and right rim: never behind the wall, and no object covers half of both.
    sides = np.concatenate([frames[:, :, :rim], frames[:, :, -rim:]], axis=2).reshape(len(frames), -1, 3)
    background = np.median(sides, axis=1)  # T 3
    usual = np.median(background, axis=0)

    columns = np.median(frames[:, :: max(1, height // 32)].reshape(-1, width, 3), axis=0)  # W 3
    neutral = np.ptp(columns, axis=1) < 1.5 * _GREY_TOLERANCE
    middling = np.abs(columns.mean(axis=1) - sum(WALL) / 2) < _GREY_TOLERANCE
    apart = np.linalg.norm(columns - usual, axis=1) > _GREY_TOLERANCE
    first, last = _longest_run(neutral & middling & apart)
    side = min(height, width)
    if last - first < _NARROWEST_WALL * side:
        return Scenery(background, _light(usual), None, np.ones(width, dtype=bool))
    grey = np.median(columns[first:last], axis=0) - usual
    share = np.clip((columns - usual) @ grey / (grey @ grey), 0, 1)  # of each column behind the wall
    soft = max(2, round(0.03 * side))
    left, right = max(0, first - soft), min(width, last + soft)
    while left > 0 and share[left - 1] > _HAZE:
        left -= 1
    while right < width and share[right] > _HAZE:
        right += 1
    middle = (first + last) // 2
    open_columns = np.ones(width, dtype=bool)
    open_columns[left:right] = False
    edges = (middle - 0.5 - share[left:middle].sum(), middle - 0.5 + share[middle:right].sum())
    return Scenery(background, _light(usual), edges, open_columns)


def find_object(frames: np.ndarray, scenery: Scenery) -> Segmentation | None:
    """The object of frames (T H W 3 in [0, 1]), or None where nothing stands out from the background."""
    offset = frames - scenery.background[:, None, None]  # T H W 3
    distance = np.sqrt(np.einsum("thwc,thwc->thw", offset, offset)) * scenery.open  # T H W
    seen = distance > _CONTRAST
    smallest = np.pi * (RADIUS["small"] * (1 - RADIUS_JITTER) * min(frames.shape[1:3])) ** 2
    per_frame = seen.sum(axis=(1, 2))
    if per_frame.max() < _LEAST_AREA * smallest or np.median(per_frame) > _MOST_AREA * seen[0].size:
        return None

    pixels, weight = offset[seen], distance[seen]  # N 3, N
    behind = np.broadcast_to(scenery.background[:, None, None], frames.shape)[seen]  # N 3
    toward = PALETTE[:, None] - behind  # 6 N 3
    length = np.einsum("knc,knc->kn", toward, toward)
    share = np.clip(np.einsum("knc,nc->kn", toward, pixels) / length, 0, 1.1)  # 6 N
    residual = np.linalg.norm(pixels - share[..., None] * toward, axis=2)  # 6 N
    nearest = residual.argmin(axis=0)
    explained = np.maximum(weight - residual.min(axis=0), 0)
    votes = np.bincount(nearest, weights=explained, minlength=len(PALETTE))
    best = int(votes.argmax())

    mine = nearest == best
    core = share[best, mine] >= 0.8 * np.quantile(share[best, mine], 0.9)
    rgb = np.median(frames[seen][mine][core], axis=0)
    axis = rgb - scenery.background  # T 3
    scale = np.maximum(np.einsum("tc,tc->t", axis, axis), 1e-4)
    coverage = np.einsum("thwc,tc->thw", offset, axis) / scale[:, None, None]
    np.clip(coverage, -0.25, 1.25, out=coverage)
    coverage *= scenery.open
    contrast = distance / np.sqrt(scale)[:, None, None]
    return Segmentation(COLOR_NAMES[best], rgb, coverage, contrast)


def _light(background: np.ndarray) -> Light | None:
    night = np.linalg.norm(background - np.clip(background.mean(), *NIGHT))
    day = np.linalg.norm(background - DAY)
    if min(night, day) > _LIGHT_TOLERANCE:
        return None
    return "day" if day < night else "night"


def _longest_run(flags: np.ndarray) -> tuple[int, int]:
    """First and one-past-last index of the longest run of True; (0, 0) if there is none."""
    steps = np.diff(np.concatenate([[0], flags.astype(np.int8), [0]]))
    (starts,), (ends,) = np.nonzero(steps == 1), np.nonzero(steps == -1)
    if not len(starts):
        return 0, 0
    longest = int((ends - starts).argmax())
    return int(starts[longest]), int(ends[longest])
