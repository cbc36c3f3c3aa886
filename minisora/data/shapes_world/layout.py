"""Scenes of the shapes world: from prompts and uniform numbers to where everything is, exactly, and to pixels.

Letters: B clips, T frames, H height, W width. Positions are continuous pixels, (y, x), with pixel centres at integers:
the frame reaches from -0.5 to H - 0.5.

`radius` R sizes all three shapes so that they look equally big: a circle of radius R, a square of the same
area, and an equilateral triangle of side 2.5 R (86 % of that area; more would leave a large one no room to
move). The centre of a shape is its centre of area.

Drawing works on each element alone and is exactly rounded (no fused multiply-add), so a clip has the same bits in any
batch. It is numpy's rather than torch's: these are many small operations, and on a busy machine torch's threads wait
for each other in each.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from minisora.data.shapes_world.grammar import COLORS, SHAPES, ShapesPrompt

# R as a share of the short side of the frame, and how far off it may be: the three sizes never meet.
RADIUS = {"small": 0.11, "medium": 0.155, "large": 0.21}
RADIUS_JITTER = 0.08
# In R: the square has the area of the circle; the triangle's inradius is from its centre down to its base.
SQUARE_HALF_SIDE = np.sqrt(np.pi) / 2
TRIANGLE_SIDE = 2.5
TRIANGLE_INRADIUS = TRIANGLE_SIDE / (2 * np.sqrt(3))
# Reach of each shape from its centre in R: up, down, sideways; in the order of SHAPES.
REACH = np.array(
    [
        (1.0, 1.0, 1.0),
        (SQUARE_HALF_SIDE,) * 3,
        (2 * TRIANGLE_INRADIUS, TRIANGLE_INRADIUS, TRIANGLE_SIDE / 2),
    ]
)

# Speed in frame sides per second. At least 0.36 of a side over the default clip (2 s), a motion that is clear
# beside the jitter of a sample; longer clips are slower instead where the frame would end.
SPEED = (0.18, 0.32)
# Of a side: an object never touches the edge.
MARGIN = 0.015

# Backgrounds and wall, in [0, 1]: the night and the wall are a grey of this range, the day is a colour.
NIGHT = (0.0, 0.2)
DAY = np.array([0.55, 0.75, 0.95])
DAY_JITTER = 0.03
WALL = (0.47, 0.53)

# How many uniform numbers `layout` uses for a clip.
NUM_DRAWS = 11
# Elements of one float32 plane that are drawn at a time: small enough to stay in the cache, which makes it
# fast, and a bound on the memory beside the result.
_CHUNK_ELEMENTS = 1 << 18


@dataclass(frozen=True)
class Scene:
    """Where everything is in B clips of T frames; the exact truth that `rasterize` draws.

    Args:
        shape: B, index into SHAPES.
        color, background: B 3, RGB in [0, 1].
        radius: B, pixels.
        centers: B T 2, (y, x) pixels.
        wall: B 2, left and right edge in pixels; equal where there is no wall.
        wall_grey: B, in [0, 1].
    """

    shape: np.ndarray
    color: np.ndarray
    radius: np.ndarray
    centers: np.ndarray
    background: np.ndarray
    wall: np.ndarray
    wall_grey: np.ndarray

    def visibility(self) -> np.ndarray:
        """The share of the object's area that the wall leaves visible, B T in [0, 1]."""
        edges = (self.wall[:, None, :] - self.centers[..., 1:]) / self.radius[:, None, None]  # B T 2, in R
        left = _area_left_of(self.shape, edges)
        return 1 - (left[..., 1] - left[..., 0])


def layout(
    prompts: Sequence[ShapesPrompt], draws: np.ndarray, frames: int, height: int, width: int, fps: float
) -> Scene:
    """Place objects, background and walls.

    Args:
        prompts: what each of the B clips shows.
        draws: B NUM_DRAWS, uniform in [0, 1): everything that the prompts leave open.
        frames, height, width, fps: of the clips.
    """
    u_radius, u_y, u_x, u_speed, u_light = draws.T[:5]
    u_rgb = draws[:, 5:8]  # B 3
    u_frame, u_wide, u_grey = draws.T[8:NUM_DRAWS]
    side = np.array([height, width], dtype=np.float64)

    shape: np.ndarray = np.array([SHAPES.index(p.shape) for p in prompts])
    share = np.array([RADIUS[p.size] for p in prompts])
    radius = share * (1 + RADIUS_JITTER * (2 * u_radius - 1)) * side.min()  # B
    reach = REACH[shape] * radius[:, None]  # B 3: up, down, sideways

    # The box in which the centre may be, so that the whole object stays inside the frame: B 2, (y, x).
    margin = MARGIN * side
    low = np.stack([reach[:, 0], reach[:, 2]], axis=1) + margin - 0.5
    high = side - np.stack([reach[:, 1], reach[:, 2]], axis=1) - margin - 0.5
    room = high - low

    direction = np.array([_STEP[p.motion] for p in prompts])  # B 2, one axis is -1 or 1
    has_wall = np.array([p.wall for p in prompts])
    seconds = (frames - 1) / fps
    # room / 2: crossed in 2 s.
    fastest = np.minimum(SPEED[1] * side, np.maximum(room / 2, SPEED[0] * side))
    speed = SPEED[0] * side + (fastest - SPEED[0] * side) * u_speed[:, None]
    travel = np.minimum(speed * seconds, room)  # B 2, pixels
    # Behind a wall the object crosses nearly the whole frame, or it would not come out at both sides.
    travel = np.where(has_wall[:, None], room * (0.92 + 0.08 * u_speed[:, None]), travel)
    travel = np.where(direction != 0, travel, 0.0)
    # The end of the path that is up or left.
    first = low + (room - travel) * np.stack([u_y, u_x], axis=1)
    start = np.where(direction < 0, first + travel, first)
    phase = np.arange(frames) / max(frames - 1, 1)  # T
    centers = start[:, None] + (direction * travel)[:, None] * phase[None, :, None]  # B T 2

    is_day = np.array([p.light == "day" for p in prompts])[:, None]
    night = NIGHT[0] + (NIGHT[1] - NIGHT[0]) * u_light[:, None]
    background = np.where(is_day, DAY + DAY_JITTER * (2 * u_rgb - 1), night)

    # The wall stands where the object is at a frame near the middle, a little wider than the object: in that
    # frame nothing of it is seen, whatever the number of frames. Small objects leave more room for it.
    small = np.array([p.size == "small" for p in prompts])
    middle = 0.5 + np.where(small, 0.125, 0.0625) * (2 * u_frame - 1)
    hidden = np.round(middle * (frames - 1)) / max(frames - 1, 1) if frames > 1 else middle
    wall_center = start[:, 1] + direction[:, 1] * travel[:, 1] * hidden
    half = reach[:, 2] + side.min() * (0.016 + 0.03 * u_wide)
    wall = wall_center[:, None] + half[:, None] * np.array([-1.0, 1.0])
    return Scene(
        shape=shape,
        color=np.array([COLORS[p.color] for p in prompts]),
        radius=radius,
        centers=centers,
        background=background,
        wall=np.where(has_wall[:, None], wall, 0.0),
        wall_grey=WALL[0] + (WALL[1] - WALL[0]) * u_grey,
    )


def _area_left_of(shape: np.ndarray, x: np.ndarray) -> np.ndarray:
    """The share of each shape's area left of x (B T 2, in R from its centre)."""
    z = np.clip(x / REACH[shape, 2][:, None, None], -1, 1)  # in half widths
    of_circle = 0.5 + (z * np.sqrt(1 - z * z) + np.arcsin(z)) / np.pi
    of_square = 0.5 + 0.5 * z
    of_triangle = np.where(z < 0, 0.5 * (1 + z) ** 2, 1 - 0.5 * (1 - z) ** 2)
    return np.choose(shape[:, None, None], [of_circle, of_square, of_triangle])


_STEP = {"left": (0, -1), "right": (0, 1), "up": (-1, 0), "down": (1, 0), "still": (0, 0)}


def rasterize(scene: Scene, height: int, width: int) -> Tensor:
    """The videos of a scene, `B 3 T H W` float32 in [-1, 1]."""
    num_clips, frames = scene.centers.shape[:2]
    videos = np.empty((num_clips, 3, frames, height, width), np.float32)
    chunk = max(1, _CHUNK_ELEMENTS // (frames * height * width))
    for kind, shape in enumerate(SHAPES):
        (of_kind,) = np.nonzero(scene.shape == kind)
        for start in range(0, len(of_kind), chunk):
            _draw(scene, shape, of_kind[start : start + chunk], videos)
    return torch.from_numpy(videos)


def _draw(scene: Scene, shape: str, rows: np.ndarray, videos: np.ndarray) -> None:
    """Draw the clips `rows`, all of one shape, into those rows of `videos`."""
    height, width = videos.shape[-2:]
    centers = scene.centers[rows].astype(np.float32)  # B T 2
    radius = scene.radius[rows].astype(np.float32)[:, None]  # B 1
    shares = cover(shape, centers, radius, height, width)  # B T H W

    background = 2 * scene.background[rows].astype(np.float32) - 1  # B 3
    contrast = 2 * scene.color[rows].astype(np.float32) - 1 - background
    edges = scene.wall[rows].astype(np.float32)  # B 2
    # Zero where there is no wall, whose width is zero.
    wall = between(edges[:, 0], edges[:, 1], width)  # B W
    any_wall = bool((edges[:, 1] > edges[:, 0]).any())
    grey = 2 * scene.wall_grey[rows].astype(np.float32)[:, None] - 1  # B 1
    open_share = (1 - wall)[:, None, None, :]  # B 1 1 W
    wall_light = (wall * grey)[:, None, None, :]
    for channel in range(3):
        plane = shares * contrast[:, channel, None, None, None]  # B T H W
        plane += background[:, channel, None, None, None]
        # x * 1 + 0 is exact, so clips without a wall are not changed by a neighbour with one.
        if any_wall:
            plane *= open_share
            plane += wall_light
        videos[rows, channel] = plane


def cover(shape: str, centers: np.ndarray, radius: np.ndarray, height: int, width: int) -> np.ndarray:
    """The share of each pixel that a shape covers, `... H W` float32 in [0, 1].

    Args:
        shape: of SHAPES.
        centers: ... 2 float32, (y, x) pixels.
        radius: ... float32, pixels.
        height, width: of the frame.
    """
    dy = (np.arange(height, dtype=np.float32) - centers[..., :1])[..., :, None]  # ... H 1
    dx = (np.arange(width, dtype=np.float32) - centers[..., 1:])[..., None, :]  # ... 1 W
    return _COVER[shape](dy, dx, radius[..., None, None])


def between(low: np.ndarray, high: np.ndarray, size: int) -> np.ndarray:
    """The exact share of each of `size` pixels of one axis between two edges (`...` float32), `... size`."""
    end = np.arange(size, dtype=np.float32) + _HALF  # of each pixel
    return np.clip(end - low[..., None], 0, 1) - np.clip(end - high[..., None], 0, 1)


def _circle(dy: np.ndarray, dx: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """Coverage from the signed distance: half a pixel inside is 1, half a pixel outside is 0."""
    distance = dy * dy + dx * dx
    np.sqrt(distance, out=distance)
    return _to_share(np.subtract(radius + _HALF, distance, out=distance))


def _square(dy: np.ndarray, dx: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """Exact coverage of an axis-aligned square: the product of its shares of row and column."""
    reach = radius * np.float32(SQUARE_HALF_SIDE) + _HALF
    return _to_share(reach - np.abs(dy)) * _to_share(reach - np.abs(dx))


def _triangle(dy: np.ndarray, dx: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """Upright equilateral: the tightest of the distances to the base and to the two slanted sides."""
    reach = radius * np.float32(TRIANGLE_INRADIUS) + _HALF
    # The outward normal of a slanted side is (-1/2, sqrt(3)/2) in (y down, |x|).
    slanted = (reach + dy * _HALF) - np.abs(dx) * np.float32(3**0.5 / 2)  # B T H W
    np.minimum(slanted, reach - dy, out=slanted)
    return _to_share(slanted)


def _to_share(inside: np.ndarray) -> np.ndarray:
    """Clamp to [0, 1], in place, which is faster than np.clip."""
    np.maximum(inside, 0, out=inside)
    return np.minimum(inside, 1, out=inside)


_HALF = np.float32(0.5)
_COVER = {"circle": _circle, "square": _square, "triangle": _triangle}
