"""The geometry of the shapes world: from prompts and uniform numbers to where everything is, exactly.

Letters: B clips, T frames. Positions are continuous pixels, (y, x), with pixel centres at integers: the frame
reaches from -0.5 to H - 0.5.

`radius` R sizes all three shapes so that they look equally big: a circle of radius R, a square of the same
area, and an equilateral triangle of side 2.5 R (86 % of that area; more would leave a large one no room to
move). The centre of a shape is its centre of area.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from minisora.data.shapes_world.grammar import COLORS, SHAPES, ShapesPrompt

RADIUS = {"small": 0.11, "medium": 0.155, "large": 0.21}  # share of the short side of the frame
RADIUS_JITTER = 0.08  # at most this far off, so that the three sizes never meet
SQUARE_HALF_SIDE = np.sqrt(np.pi) / 2  # in R: the area of the circle
TRIANGLE_SIDE = 2.5  # in R
TRIANGLE_INRADIUS = TRIANGLE_SIDE / (2 * np.sqrt(3))  # in R: from the centre down to the base
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
MARGIN = 0.015  # of a side: an object never touches the edge

NIGHT = (0.0, 0.2)  # grey
DAY = np.array([0.55, 0.75, 0.95])
DAY_JITTER = 0.03
WALL = (0.47, 0.53)  # grey

NUM_DRAWS = 11  # uniform numbers that `layout` uses for a clip


@dataclass(frozen=True)
class Scene:
    """Where everything is in B clips of T frames; the exact truth that `rasterize` draws."""

    shape: np.ndarray  # B, index into SHAPES
    color: np.ndarray  # B 3, RGB in [0, 1]
    radius: np.ndarray  # B, pixels
    centers: np.ndarray  # B T 2, (y, x) pixels
    background: np.ndarray  # B 3, RGB in [0, 1]
    wall: np.ndarray  # B 2, left and right edge in pixels; equal where there is no wall
    wall_grey: np.ndarray  # B, in [0, 1]

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
    fastest = np.minimum(SPEED[1] * side, np.maximum(room / 2, SPEED[0] * side))  # room / 2: crossed in 2 s
    speed = SPEED[0] * side + (fastest - SPEED[0] * side) * u_speed[:, None]
    travel = np.minimum(speed * seconds, room)  # B 2, pixels
    # Behind a wall the object crosses nearly the whole frame, or it would not come out at both sides.
    travel = np.where(has_wall[:, None], room * (0.92 + 0.08 * u_speed[:, None]), travel)
    travel = np.where(direction != 0, travel, 0.0)
    first = low + (room - travel) * np.stack([u_y, u_x], axis=1)  # the end of the path that is up or left
    start = np.where(direction < 0, first + travel, first)
    phase = np.arange(frames) / max(frames - 1, 1)  # T
    centers = start[:, None] + (direction * travel)[:, None] * phase[None, :, None]  # B T 2

    is_day = np.array([p.light == "day" for p in prompts])[:, None]
    night = NIGHT[0] + (NIGHT[1] - NIGHT[0]) * u_light[:, None]
    background = np.where(is_day, DAY + DAY_JITTER * (2 * u_rgb - 1), night)

    # The wall stands where the object is at a frame near the middle, a little wider than the object: in that
    # frame nothing of it is seen, whatever the number of frames. Small objects leave more room for the place.
    small = np.array([p.size == "small" for p in prompts])
    middle = 0.5 + np.where(small, 0.125, 0.0625) * (2 * u_frame - 1)
    hidden = np.round(middle * (frames - 1)) / max(frames - 1, 1) if frames > 1 else middle
    place = start[:, 1] + direction[:, 1] * travel[:, 1] * hidden
    half = reach[:, 2] + side.min() * (0.016 + 0.03 * u_wide)
    wall = place[:, None] + half[:, None] * np.array([-1.0, 1.0])
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
