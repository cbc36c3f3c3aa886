"""How the object of a clip moves, and whether it is still the same after the wall hid it.

Letters: T frames. Points are (y, x) in pixels.
"""

from dataclasses import dataclass

import numpy as np

from minisora.data.shapes_world.grammar import Motion
from minisora.evaluate.judge.follow import Object, Observation
from minisora.evaluate.judge.shapes import likeness

# Standing still means a path shorter than this share of the frame or, in short clips, than a share per frame:
# the slowest motion of the world is 0.022 of the frame in each frame, at 8 frames a second.
_STILL, _STILL_PER_FRAME, _STILL_AT_LEAST = 0.08, 0.011, 0.03
_SAME_COLOR = 0.25  # Euclidean, RGB in [0, 1]; the two nearest colours of the world are 0.5 apart
_SAME_SCALE = 0.3
_SAME_CORNERS = 0.5  # another shape moves a likeness by 1; blurred, half-hidden views of one differ by 0.4
_PAIRS = (("circle", "square"), ("circle", "triangle"), ("square", "triangle"))
_RIGHT_PLACE = 0.1  # of the short side
# A centre is off by this much of the radius times the root of the fit's error: 0.02 pixels in a clean render,
# a pixel where half of a blurred object is seen.
_PLACING = 0.8
_SHINES_THROUGH = 0.25  # of the object's area, in front of the wall


@dataclass(frozen=True)
class Track:
    """The path of an object, as measured."""

    motion: Motion | None  # None: seen in fewer than two frames
    path_error: float | None  # pixels, root mean square distance from the best straight line (still: point)
    speed_error: float | None  # the same along the line, from constant speed, over the length of the path


@dataclass(frozen=True)
class Passage:
    """What became of the object behind the wall."""

    permanence: bool  # hidden, then seen again on the other side, the same and in the right place
    error: float | None  # pixels from where its own speed would have brought it; None if that cannot be told


def measure_track(centers: np.ndarray, height: int, width: int) -> Track:
    """The path through centres (T 2, NaN where unknown)."""
    times = np.nonzero(~np.isnan(centers[:, 0]))[0]
    if len(times) < 2:
        return Track(None, None, None)
    points = centers[times]  # S 2
    steps = len(centers) - 1
    velocity = _median_slope(times, points)  # 2, pixels per frame
    share = velocity * steps / (height, width)
    still = np.clip(_STILL_PER_FRAME * steps, _STILL_AT_LEAST, _STILL)
    if np.abs(share).max() < still:
        return Track("still", _rms(np.linalg.norm(points - np.median(points, axis=0), axis=1)), None)
    motion: Motion
    if abs(velocity[0]) > abs(velocity[1]):
        motion = "down" if velocity[0] > 0 else "up"
    else:
        motion = "right" if velocity[1] > 0 else "left"
    middle = points - points.mean(axis=0)
    along = np.linalg.svd(middle, full_matrices=False)[2][0]  # 2, unit: the line of least squares
    across = middle @ np.array([-along[1], along[0]])
    position = middle @ along  # S
    since = times - times.mean()
    late = position - since * (since @ position) / (since @ since)
    length = max(float(np.ptp(position)), 1.0)
    return Track(motion, _rms(across), _rms(late) / length)


def measure_passage(observation: Observation) -> Passage | None:
    """Whether the object outlives the wall; None where there is no wall or no object."""
    tracked, wall = observation.object, observation.scenery.wall
    if tracked is None or wall is None:
        return None
    position = tracked.centers[tracked.shown]  # S 2
    on_left = position[:, 1] < sum(wall) / 2
    placed = ~np.isnan(position[:, 0])
    sides = [placed & on_left, placed & ~on_left]
    if not (sides[0].any() and sides[1].any()):
        return Passage(False, None)
    earlier, later = sorted(sides, key=lambda side: float(tracked.shown[side].mean()))
    first, last = tracked.shown[earlier].max(), tracked.shown[later].min()
    hidden = first < last and not tracked.seen[first + 1 : last].all()
    trust = tracked.fit.seen(tracked.patches) ** 2  # half-hidden objects are placed less exactly
    error, sure, deviation = _misplaced(tracked.shown, position, trust, earlier, later)
    placing = _PLACING * tracked.fit.radius * tracked.fit.error**0.5
    limit = max(_RIGHT_PLACE * min(observation.frames.shape[1:3]), 2 * placing * deviation)
    same = _same(observation, tracked, earlier, later)
    permanence = bool(hidden and sure < limit and same and not _in_front(observation, tracked, first, last))
    return Passage(permanence, error)


def _misplaced(
    times: np.ndarray, position: np.ndarray, weight: np.ndarray, earlier: np.ndarray, later: np.ndarray
) -> tuple[float | None, float, float]:
    """How far from where its speed says the object comes out: pixels, what of it is sure, and its deviation.

    One line with a common slope is laid through both sides; the jump between them is the error. Few frames
    tell little of the speed, so the standard deviation that centres known to one pixel give it comes along.
    With one frame on each side there is no speed, and only a change across the path is sure.
    """
    spread, rise, middles, noise = 0.0, np.zeros(2), [], 0.0
    for side in (earlier, later):
        total = weight[side].sum()
        middles.append((weight[side] @ times[side] / total, weight[side] @ position[side] / total))
        since = weight[side] * (times[side] - middles[-1][0])
        spread += float(since @ times[side])
        rise += since @ position[side]
        noise += 1 / total
    gap = middles[1][0] - middles[0][0]
    jump = middles[1][1] - middles[0][1]
    if spread < 1e-6:
        return None, abs(float(jump[0])), float(np.sqrt(noise))
    error = float(np.linalg.norm(jump - gap * rise / spread))
    return error, error, float(np.sqrt(noise + gap**2 / spread))


def _same(observation: Observation, tracked: Object, earlier: np.ndarray, later: np.ndarray) -> bool:
    """Whether colour, shape and size are the same on both sides of the wall."""
    colors, scales, corners = [], [], []
    fit, patches = tracked.fit, tracked.patches
    for side in (earlier, later):
        frames = tracked.shown[side]
        solid = tracked.masks[frames] > 0.6
        if not solid.any():
            return False
        colors.append(np.median(observation.frames[frames][solid], axis=0))
        model = (fit.model * patches.weight)[side]
        scales.append(float((model * patches.coverage[side]).sum() / max((model * model).sum(), 1e-6)))
        corners.append([likeness(tracked.fits[a], tracked.fits[b], patches, side) for a, b in _PAIRS])
    same_color = np.linalg.norm(colors[0] - colors[1]) < _SAME_COLOR
    same_shape = np.abs(np.subtract(corners[0], corners[1])).max() < _SAME_CORNERS
    return bool(same_color and same_shape and abs(scales[0] - scales[1]) < _SAME_SCALE)


def _in_front(observation: Observation, tracked: Object, first: int, last: int) -> bool:
    """Whether the wall shows the object while it should hide it."""
    assert observation.scenery.wall is not None
    left, right = observation.scenery.wall
    band = observation.frames[first + 1 : last, :, int(np.ceil(left)) + 2 : int(right) - 1]  # T H W 3
    if not band.size:
        return False
    grey = np.median(band.reshape(-1, 3), axis=0)
    axis = tracked.segmentation.rgb - grey
    share = (band - grey) @ axis / (axis @ axis)
    return bool((share > 0.5).sum(axis=(1, 2)).max() > _SHINES_THROUGH * np.pi * tracked.fit.radius**2)


def _median_slope(times: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Median of the slopes (2) between all pairs of points (S 2): a few wrong ones do not turn it."""
    first, second = np.triu_indices(len(times), 1)
    slopes = (points[second] - points[first]) / (times[second] - times[first])[:, None]
    return np.median(slopes, axis=0)


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(values**2)))
