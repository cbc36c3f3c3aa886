"""Fit the three shapes of the world to soft coverage: subpixel centres, radius and blur, and which one it is.

Each shape is a product of soft half-planes (a circle: one soft disc). All frames share one radius and one
softness and have a centre each; Gauss-Newton finds them at once by eliminating the centres (the normal
equations are an arrow). Pixels behind the wall weigh nothing, so a half-hidden object is fitted by the half
that is seen. Unlike statistics of a thresholded mask this does not mistake a blurred square for a circle.

Letters: T frames, P Q patch pixels.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from minisora.data.shapes_world.grammar import SHAPES
from minisora.data.shapes_world.layout import REACH, SQUARE_HALF_SIDE, TRIANGLE_INRADIUS

_STEPS = 7
_SETTLED = 0.005  # pixels: a step below it is the last
_DAMPING = 0.03  # of the diagonal: keeps what the visible part does not tell where it is
_SOFTNESS = 2.0  # pixels from 0 to 1 at the edge, to start with; a clean render has about 1.5
_SOFTEST, _SHARPEST = 9.0, 1.0
# Blur and compression take corners away and never make any, so a little less than half a corner is one. Of
# VAE reconstructions at 30 dB circles reach 0.36 of a square, and 0.16 of a triangle.
_CORNERED = 0.4


@dataclass(frozen=True)
class Patches:
    """The surroundings of the object in every frame that is fitted."""

    y: np.ndarray  # T P 1, pixels
    x: np.ndarray  # T 1 Q
    coverage: np.ndarray  # T P Q
    weight: np.ndarray  # T P Q, 0 where the wall is, and outside the frame


@dataclass(frozen=True)
class Fit:
    """A shape laid over the patches."""

    shape: str
    centers: np.ndarray  # T 2, (y, x) pixels
    radius: float  # pixels, as `minisora.data.shapes_world.layout` defines it
    softness: float  # pixels over which coverage rises from 0 to 1
    error: float  # mean square, over the mean square of the coverage: 0 is perfect, 1 explains nothing
    model: np.ndarray  # T P Q, coverage as fitted

    def seen(self, patches: Patches) -> np.ndarray:
        """The share of the shape (T) that the wall leaves visible."""
        return (self.model * patches.weight).sum(axis=(1, 2)) / _area(self.shape, self.radius)


def cut_patches(coverage: np.ndarray, open_columns: np.ndarray, around: np.ndarray, half: int) -> Patches:
    """Squares of 2 half + 1 pixels of coverage (T H W) around points (T 2, (y, x))."""
    height, width = coverage.shape[1:]
    reach = np.arange(-half, half + 1)
    y = np.round(around[:, :1]).astype(int) + reach  # T P
    x = np.round(around[:, 1:]).astype(int) + reach  # T Q
    rows, columns = np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)
    frame = np.arange(len(coverage))[:, None, None]
    inside_x = (x >= 0) & (x < width) & open_columns[columns]
    weight = ((y >= 0) & (y < height))[:, :, None] & inside_x[:, None, :]
    values = coverage[frame, rows[:, :, None], columns[:, None, :]]
    return Patches(
        y[:, :, None].astype(np.float32),
        x[:, None, :].astype(np.float32),
        values.astype(np.float32),
        weight.astype(np.float32),
    )


def fit_shape(shape: str, patches: Patches, centers: np.ndarray, radius: float) -> Fit:
    """Fit one shape, from centres (T 2) and a radius to start with."""
    center, softness = centers.astype(np.float64), _SOFTNESS
    first_radius = radius
    for _ in range(_STEPS):
        model, slopes = _model(shape, patches, center, radius, softness)
        residual = (patches.coverage - model) * patches.weight
        rows = (slopes * patches.weight).reshape(4, len(center), -1).transpose(1, 0, 2)  # T 4 PQ
        gram = (rows @ rows.transpose(0, 2, 1)).astype(np.float64)  # T 4 4
        slope = (rows @ residual.reshape(len(center), -1, 1))[..., 0].astype(np.float64)  # T 4
        gram += _DAMPING * np.eye(4) * np.maximum(gram.diagonal(axis1=1, axis2=2), 1e-3)[:, None, :]
        own, cross, shared = gram[:, :2, :2], gram[:, :2, 2:], gram[:, 2:, 2:].sum(axis=0)
        own_cross = np.linalg.solve(own, cross)  # T 2 2
        own_slope = np.linalg.solve(own, slope[:, :2, None])  # T 2 1
        reduced = shared - np.einsum("tia,tib->ab", cross, own_cross)
        toward = slope[:, 2:].sum(axis=0) - np.einsum("tia,tib->a", cross, own_slope)
        step = np.linalg.solve(reduced + 1e-6 * np.eye(2), toward)
        move = own_slope[..., 0] - own_cross @ step  # T 2
        limit = 0.3 * first_radius
        center += np.clip(move, -limit, limit)
        radius = float(
            np.clip(radius + np.clip(step[0], -limit, limit), 0.4 * first_radius, 2 * first_radius)
        )
        softness = float(np.clip(softness + np.clip(step[1], -1, 1), _SHARPEST, min(_SOFTEST, 1.5 * radius)))
        if max(np.abs(move).max(), np.abs(step).max()) < _SETTLED:
            break
    model, _ = _model(shape, patches, center, radius, softness)
    error = _sum(patches.weight * (patches.coverage - model) ** 2)
    power = max(_sum(patches.weight * patches.coverage**2), 1e-6)
    return Fit(shape, center, radius, softness, error / power, model)


def decide(fits: dict[str, Fit], patches: Patches, frames: np.ndarray) -> str:
    """Which shape the `frames` (indices or flags) of the patches show.

    Between two shapes the likeness says: where the video lies on the way from the one fit to the other.
    """
    rounded = "square" if likeness(fits["circle"], fits["square"], patches, frames) > _CORNERED else "circle"
    pointed = likeness(fits[rounded], fits["triangle"], patches, frames) > _CORNERED
    return "triangle" if pointed else rounded


def likeness(first: Fit, second: Fit, patches: Patches, frames: np.ndarray) -> float:
    """0 where coverage looks like the first fit, 1 like the second: a matched filter for the difference."""
    difference = ((second.model - first.model) * patches.weight)[frames]
    power = _sum(difference * difference)
    return _sum(difference * (patches.coverage - first.model)[frames]) / max(power, 1e-6)


def radius_of_area(shape: str, area: float) -> float:
    """The radius R of a shape that covers `area` pixels."""
    return float(np.sqrt(area / _area(shape, 1.0)))


def _area(shape: str, radius: float) -> float:
    if shape == "triangle":
        return float(3 * np.sqrt(3) * (TRIANGLE_INRADIUS * radius) ** 2)
    return float(np.pi * radius**2)  # a square has a circle's area


def reach_of(shape: str) -> np.ndarray:
    """Up, down and sideways from the centre, in R."""
    return REACH[SHAPES.index(shape)]


def _sum(values: np.ndarray) -> float:
    return float(values.sum(dtype=np.float64))


def _model(
    shape: str, patches: Patches, center: np.ndarray, radius: float, softness: float
) -> tuple[np.ndarray, np.ndarray]:
    """Coverage T P Q and its slopes 4 T P Q by centre y, centre x, radius and softness."""
    dy = patches.y - center[:, 0, None, None].astype(np.float32)  # T P 1
    dx = patches.x - center[:, 1, None, None].astype(np.float32)  # T 1 Q
    edges = []
    for outside, normal_y, normal_x, reach in _half_planes(shape, dy, dx):
        depth = (np.float32(reach * radius) - outside) / np.float32(softness)  # in softnesses, 0 on the edge
        rise = np.clip(depth + np.float32(0.5), 0, 1)
        cover = rise * rise * (3 - 2 * rise)
        steep = rise * (1 - rise) * np.float32(6 / softness)
        edges.append((cover, steep, depth, normal_y, normal_x, reach))
    model = edges[0][0]
    for cover, *_ in edges[1:]:
        model = model * cover
    slopes = np.zeros((4, *model.shape), np.float32)
    for index, (_, steep, depth, normal_y, normal_x, reach) in enumerate(edges):
        for other, (cover, *_) in enumerate(edges):
            if other != index:
                steep = steep * cover
        slopes[0] += steep * normal_y
        slopes[1] += steep * normal_x
        slopes[2] += steep * np.float32(reach)
        slopes[3] -= steep * depth
    return model, slopes


_Plane = tuple[np.ndarray, np.ndarray | float, np.ndarray | float, float]


def _half_planes(shape: str, dy: np.ndarray, dx: np.ndarray) -> Iterator[_Plane]:
    """Distance from the centre along each outward normal, the normal (y, x), and the edge's distance in R."""
    if shape == "circle":
        distance = np.sqrt(dy * dy + dx * dx)
        safe = np.maximum(distance, np.float32(1e-3))
        yield distance, dy / safe, dx / safe, 1.0
    elif shape == "square":
        yield np.abs(dy), np.sign(dy), 0.0, float(SQUARE_HALF_SIDE)
        yield np.abs(dx), 0.0, np.sign(dx), float(SQUARE_HALF_SIDE)
    else:
        yield dy, 1.0, 0.0, float(TRIANGLE_INRADIUS)
        slant = np.float32(np.sqrt(3) / 2)
        for sign in (-1.0, 1.0):
            across = np.float32(sign) * slant
            yield across * dx - np.float32(0.5) * dy, -0.5, float(across), float(TRIANGLE_INRADIUS)
