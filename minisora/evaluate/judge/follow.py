"""Follow the object of a clip of the shapes world: where it is in every frame, which shape, how large.

Letters: T frames, H height, W width. Points are (y, x) in pixels, pixel centres at integers.
"""

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from minisora.data.shapes_world.grammar import SHAPES
from minisora.data.shapes_world.layout import RADIUS, RADIUS_JITTER
from minisora.errors import UserError
from minisora.evaluate.judge.colors import Scenery, Segmentation, find_object, find_scenery
from minisora.evaluate.judge.shapes import (
    Fit,
    Patches,
    cut_patches,
    decide,
    fit_shape,
    radius_of_area,
    reach_of,
)

# A frame shows the object if at least this share of its usual area is there.
_SEEN = 0.2
# Frames that show at least this much of the shape tell where its centre is.
_PLACED = 0.25
_LEAP = 0.3  # of the short side: farther from where it was, a blob is the object only if it is clearer
_NO_OBJECT = 0.8  # what matches a shape with an error above this is noise
_INSIDE = 0.3  # coverage below it is taken for noise where areas are summed


@dataclass(frozen=True)
class Object:
    """The one object of a clip."""

    segmentation: Segmentation
    shown: np.ndarray  # S, the frames that show it
    patches: Patches  # of these frames
    fits: dict[str, Fit]  # of each shape to them
    shape: str
    centers: np.ndarray  # T 2, NaN where too little is seen to say
    areas: np.ndarray  # T, visible pixels, soft edges counted by their share
    seen: np.ndarray  # T, whether the object is there to be seen at all
    near: np.ndarray  # T H W, whether a pixel is close to the object, soft edges and ringing included
    masks: np.ndarray  # T H W, share of the object in each pixel, in [0, 1], 0 far from it
    second: np.ndarray  # T, area of what is neither object, wall nor background, in areas of the object

    @property
    def fit(self) -> Fit:
        """Of the shape that it is."""
        return self.fits[self.shape]


@dataclass(frozen=True)
class Observation:
    """What a clip shows, before it is put in words."""

    frames: np.ndarray  # T H W 3 in [0, 1]
    scenery: Scenery
    object: Object | None


def observe(video: Tensor) -> Observation:
    """Find everything in one clip.

    Args:
        video: `3 T H W` in [-1, 1].

    Raises:
        UserError: the tensor is no such clip.
    """
    if video.ndim != 4 or video.shape[0] != 3 or not video.is_floating_point():
        raise UserError(f"a clip to judge must be float, 3 T H W; got {video.dtype}, {tuple(video.shape)}")
    if not bool(video.isfinite().all()):
        raise UserError("a clip to judge holds values that are not finite: sample it again")
    frames = np.ascontiguousarray(video.detach().float().cpu().permute(1, 2, 3, 0).numpy())
    frames = np.clip((frames + 1) / 2, 0, 1)
    scenery = find_scenery(frames)
    segmentation = find_object(frames, scenery)
    tracked = None if segmentation is None else _follow(segmentation, scenery)
    return Observation(frames, scenery, tracked)


def _follow(segmentation: Segmentation, scenery: Scenery) -> Object | None:
    coverage = segmentation.coverage
    height, width = coverage.shape[1:]
    side = min(height, width)
    reach = 1.25 * RADIUS["large"] * (1 + RADIUS_JITTER) * side  # of a large triangle
    solid = np.clip((coverage - _INSIDE) / (1 - 2 * _INSIDE), 0, 1)  # T H W
    middles = _center_of_mass(solid, _densest(solid, round(reach)), reach)  # T 2
    near = _within(middles, height, width, reach)  # T H W
    areas = (solid * near).sum(axis=(1, 2))  # T
    full = float(np.quantile(areas, 0.9))
    smallest = np.pi * (RADIUS["small"] * (1 - RADIUS_JITTER) * side) ** 2
    if full < 0.3 * smallest:
        return None
    seen = areas > _SEEN * full

    shown = np.nonzero(seen)[0]
    patches, starts, radii = _starts(solid, coverage, scenery, middles, shown, full)
    fits = {name: fit_shape(name, patches, starts[name], radii[name]) for name in SHAPES}
    shape = decide(fits, patches, np.arange(len(shown)))
    fit = fits[shape]
    if fit.error > _NO_OBJECT:
        return None
    centers = np.full((len(coverage), 2), np.nan)
    placed = fit.seen(patches) > _PLACED
    centers[shown[placed]] = fit.centers[placed]

    ours = _within(np.where(np.isnan(centers), middles, centers), height, width, 1.6 * fit.radius + 2)
    other = (segmentation.contrast > 0.4) & ~ours & scenery.open
    second = _thick(other).sum(axis=(1, 2)) / (np.pi * fit.radius**2)
    masks = np.clip(coverage, 0, 1) * ours * seen[:, None, None]
    return Object(segmentation, shown, patches, fits, shape, centers, areas, seen, ours, masks, second)


def _starts(
    solid: np.ndarray,
    coverage: np.ndarray,
    scenery: Scenery,
    middles: np.ndarray,
    shown: np.ndarray,
    full: float,
) -> tuple[Patches, dict[str, np.ndarray], dict[str, float]]:
    """Patches of the frames `shown`, and for each shape the centres and the radius to start from.

    Where the object is whole its centre of mass and its area tell. Where it touches the wall its outer edge
    and its height tell, as the rest is hidden.
    """
    around = middles[shown]
    if scenery.wall is None:
        half = int(np.ceil(1.6 * np.sqrt(full / np.pi))) + 3
        patches = cut_patches(coverage[shown], scenery.open, around, half)
        return patches, dict.fromkeys(SHAPES, around), {name: radius_of_area(name, full) for name in SHAPES}
    inside = solid[shown] > 0.5  # T H W
    closed = np.nonzero(~scenery.open)[0]
    beside = [c for c in (closed[0] - 1, closed[-1] + 1) if 0 <= c < inside.shape[2]]
    touching = inside[:, :, beside].any(axis=(1, 2))  # T
    rows, columns = inside.any(axis=2), inside.any(axis=1)  # T H, T W
    top, bottom = rows.argmax(axis=1), rows.shape[1] - 1 - rows[:, ::-1].argmax(axis=1)
    left, right = columns.argmax(axis=1), columns.shape[1] - 1 - columns[:, ::-1].argmax(axis=1)
    tall = bottom - top + 1  # S
    extent = float(tall.max())
    on_left = around[:, 1] < sum(scenery.wall) / 2
    base = np.zeros(len(shown))  # the lowest row, from the frame of the same side that shows most
    for here in (on_left, ~on_left):
        if here.any():
            base[here] = bottom[here][tall[here].argmax()]
    starts, radii = {}, {}
    for name in SHAPES:
        up, down, aside = reach_of(name)
        radius = extent / (up + down)
        center_y = base + 0.5 - down * radius
        center_x = np.where(on_left, left - 0.5 + aside * radius, right + 0.5 - aside * radius)
        guess = np.stack([center_y, center_x], axis=1)
        starts[name] = np.where(touching[:, None], guess, around)
        radii[name] = radius
    half = int(np.ceil(1.2 * extent)) + 3
    return cut_patches(coverage[shown], scenery.open, around, half), starts, radii


def _densest(solid: np.ndarray, span: int) -> np.ndarray:
    """The point (T 2) of each frame with the most object around it, in a square of `span` pixels a side.

    Of two blobs it is the one nearer to where the object was, followed from the clearest frame to both ends.
    """
    height, width = solid.shape[1:]
    padded = np.pad(solid, ((0, 0), (span, span), (span, span)))
    total = np.pad(padded.cumsum(axis=1).cumsum(axis=2), ((0, 0), (1, 0), (1, 0)))
    box = (
        total[:, span:, span:] - total[:, :-span, span:] - total[:, span:, :-span] + total[:, :-span, :-span]
    )
    cut = span - (span - 1) // 2  # the box is centred on the pixel
    box = box[:, cut : cut + height, cut : cut + width]  # T H W
    best = box.max(axis=(1, 2))
    clearest = int(best.argmax())
    points = np.zeros((len(solid), 2))
    for order in (range(clearest, len(solid)), range(clearest, -1, -1)):
        last, since = None, 0
        for index in order:
            score = box[index]
            since += 1
            if last is not None:  # hidden by the wall it may have gone far
                score = score * _nearness(last, height, width, _LEAP * min(height, width) * since)
            point = np.unravel_index(score.argmax(), score.shape)
            points[index] = point
            if score[point] > _SEEN * best[clearest]:
                last, since = points[index], 0
    return points


def _nearness(point: np.ndarray, height: int, width: int, reach: float) -> np.ndarray:
    """H W: 1 at the point, falling to 0.37 at the distance `reach`."""
    dy = (np.arange(height) - point[0]) / reach
    dx = (np.arange(width) - point[1]) / reach
    return np.exp(-(dy**2))[:, None] * np.exp(-(dx**2))[None, :]


def _center_of_mass(solid: np.ndarray, start: np.ndarray, reach: float) -> np.ndarray:
    """Centre of mass (T 2) of what lies within `reach` of a point that moves along with it."""
    height, width = solid.shape[1:]
    y, x = np.arange(height), np.arange(width)
    center = start.astype(np.float64)
    for _ in range(3):
        mine = solid * _within(center, height, width, reach)
        mass = mine.sum(axis=(1, 2))
        moments = np.stack([mine.sum(axis=2) @ y, mine.sum(axis=1) @ x], axis=1)
        center = np.where(mass[:, None] > 1, moments / np.maximum(mass, 1e-6)[:, None], center)
    return center


def _within(center: np.ndarray, height: int, width: int, reach: float) -> np.ndarray:
    """T H W: which pixels are at most `reach` from points (T 2)."""
    dy = np.arange(height) - center[:, :1]  # T H
    dx = np.arange(width) - center[:, 1:]  # T W
    return (dy**2)[:, :, None] + (dx**2)[:, None, :] <= reach**2


def _thick(mask: np.ndarray) -> np.ndarray:
    """The parts of masks (T H W) at least 3 pixels thick both ways: ringing along an edge is thinner."""
    core = mask.copy()
    core[:, 1:-1, 1:-1] = True
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            core &= np.roll(mask, (dy, dx), axis=(1, 2))
    thick = np.zeros_like(mask)
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            thick |= np.roll(core, (dy, dx), axis=(1, 2))
    return thick
