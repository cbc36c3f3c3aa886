"""Is it one object, and is its outline the shape's? What "colour, shape and motion are right" does not ask.

A notched square is still nearest to a square, and a second object beside the right one changes no attribute. Here
the object's mask is laid over the ideal shape of its own bounding box, and what else stands out is counted.

*Masks.* A pixel belongs to the object's colour where its coverage (`minisora.evaluate.judge.colors`) is above
`_HALF`, and stands out where its contrast is. Both are shares of the way from the background to the object's colour,
so day and night are alike, and a blurred edge stays where it was. Columns of the wall, soft edges included, belong to
neither. *Pieces* are pixels that touch each other, also by their corners.

*The object* is the largest piece of its colour in a frame, and its overlap is measured in the frames in which it is
free: it touches neither an edge of the frame nor the wall.

Letters: T frames, H height, W width.
"""

import numpy as np
from scipy import ndimage

from minisora.evaluate.judge.follow import Object, Observation

_HALF = 0.5
# Areas of the object that make a piece a second object: below it is a crumb, a tenth of the size across a third.
_SECOND = 0.1
# Subdivisions of a pixel, each way, in which outlines are compared: a small square of 12.4 pixels is then no oblong of
# 12 x 13, and what is measured hardly depends on the size of the frame.
_FINER = 4
# Of the shape: where more is hidden by the wall, what is seen says too little of the outline.
_VISIBLE = 0.5
# In a frame, not between frames; by corners too.
_TOUCHING = np.zeros((3, 3, 3), dtype=bool)
_TOUCHING[1] = True


def find_second(observation: Observation) -> np.ndarray:
    """Which frames (T flags) show a second object; none where the clip has no first.

    A second object is a piece of what stands out, of whatever colour and shape, other than the largest one and of at
    least `_SECOND` of the object's usual area, the median over the frames that show it. Pieces that touch the wall
    are one, the object halfway behind it.
    """
    tracked, free = observation.object, observation.scenery.open
    if tracked is None:
        return np.zeros(len(observation.frames), dtype=bool)
    pieces, areas = _pieces((tracked.segmentation.contrast > _HALF) & free)  # T H W, T N
    if (~free).any():
        beside = ndimage.binary_dilation(~free) & free  # W
        for frame, labels in enumerate(pieces):
            touching = np.unique(labels[:, beside])
            touching = touching[touching > 0]
            if len(touching):
                areas[frame, touching[0]] = areas[frame, touching].sum()
                areas[frame, touching[1:]] = 0
    areas = np.sort(areas, axis=1)
    return areas[:, -2] >= _SECOND * float(np.median(tracked.areas[tracked.shown]))


def measure_overlap(observation: Observation) -> float | None:
    """Median over the free frames of the overlap of the object's mask and the ideal shape around it, in (0, 1].

    Overlap is intersection over union. The ideal shape is that of the mask's bounding box: a circle or square whose
    diameter or side is the longer side of the box, in its middle, so that an oval or an oblong overlaps by its aspect;
    a triangle that fills the box, its apex in the middle above. Such a triangle is strict: a corner that blur rounds
    off shrinks the box on that side, and the rest bulges out of it. Which shape it is, is what the judge sees.

    If a wall leaves no frame free, as behind it a wide object is never wholly seen, the shape fitted to the clip stands
    for the ideal, over what is visible, in the frames that show at least `_VISIBLE` of it. None without an object,
    and where it touches an edge in every frame: that cannot be told.
    """
    tracked, free = observation.object, observation.scenery.open
    if tracked is None:
        return None
    coverage = tracked.segmentation.coverage
    pieces, areas = _pieces(coverage > _HALF)
    overlaps = []
    for frame in np.nonzero(areas.max(axis=1))[0]:
        ours = pieces[frame] == areas[frame].argmax()
        rows, columns = (np.nonzero(ours.any(axis=axis))[0] for axis in (1, 0))
        top, bottom, left, right = rows[0] - 1, rows[-1] + 1, columns[0] - 1, columns[-1] + 1
        if (
            top < 0
            or left < 0
            or bottom == len(ours)
            or right == len(free)
            or not (free[left] and free[right])
        ):
            continue
        # The soft edge comes along, other pieces do not.
        alone = np.where(ours | (pieces[frame] == 0), coverage[frame], 0)[top : bottom + 1, left : right + 1]
        overlaps.append(_overlap(tracked.shape, alone))
    if not overlaps and observation.scenery.wall is not None:
        overlaps = _behind_wall(tracked)
    return float(np.median(overlaps)) if overlaps else None


def _pieces(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The pieces of masks (T H W) numbered from 1 in each frame, and their areas (T N, N >= 2) in pixels, 0 for 0."""
    pieces = np.empty(mask.shape, dtype=np.int32)
    labels, _ = ndimage.label(mask, _TOUCHING)
    for frame, numbers in enumerate(labels):
        pieces[frame] = np.searchsorted(np.unique(np.append(numbers, 0)), numbers)
    most = max(int(pieces.max()) + 1, 2)
    areas = np.stack([np.bincount(frame.ravel(), minlength=most) for frame in pieces])
    areas[:, 0] = 0
    return pieces, areas


def _overlap(shape: str, coverage: np.ndarray) -> float:
    """Of the mask of coverage (P Q, the object and a pixel around it) and the ideal shape around it.

    0 where so little is there, a pixel or two hardly more than half covered, that between pixels none of it is.
    """
    mask = ndimage.zoom(coverage, _FINER, order=1, mode="nearest", grid_mode=True) > _HALF
    if not mask.any():
        return 0.0
    # Room for an ideal shape beyond the patch.
    mask = np.pad(mask, max(mask.shape) // 2)
    rows, columns = np.nonzero(mask)
    y = (np.arange(mask.shape[0]) - (rows.min() + rows.max()) / 2)[:, None]
    x = (np.arange(mask.shape[1]) - (columns.min() + columns.max()) / 2)[None]
    # Half of the longer side of the bounding box.
    half = max(np.ptp(rows), np.ptp(columns)) / 2 + 0.5
    if shape == "circle":
        ideal = y**2 + x**2 <= half**2
    elif shape == "square":
        ideal = (np.abs(y) <= half) & (np.abs(x) <= half)
    else:
        height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
        ideal = (np.abs(y) <= height / 2) & (np.abs(x) <= width / 2 * (0.5 + y / height))
    return _over_union(mask, ideal)


def _behind_wall(tracked: Object) -> list[float]:
    """Overlaps of the mask and the fitted shape, over what the wall leaves visible."""
    patches, fit = tracked.patches, tracked.fit
    visible = patches.weight > 0
    frames = np.nonzero(fit.seen(patches) >= _VISIBLE)[0]
    return [
        _over_union((patches.coverage[i] > _HALF) & visible[i], (fit.model[i] > _HALF) & visible[i])
        for i in frames
    ]


def _over_union(mask: np.ndarray, ideal: np.ndarray) -> float:
    return float((mask & ideal).sum() / (mask | ideal).sum())
