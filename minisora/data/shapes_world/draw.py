"""Draw scenes of the shapes world as anti-aliased pixels, many clips at once.

Letters: B clips, T frames, H height, W width. Every operation here works on each element alone and is exactly
rounded (no fused multiply-add), so a clip has the same bits in any batch. numpy rather than torch: these are
many small operations, and on a busy machine torch's threads wait for each other in each (20 times slower was
seen on two cores at load 3), while one thread draws about 3,000 default clips a second.
"""

import numpy as np
import torch
from torch import Tensor

from minisora.data.shapes_world.grammar import SHAPES
from minisora.data.shapes_world.layout import SQUARE_HALF_SIDE, TRIANGLE_INRADIUS, Scene

# Elements of one float32 plane that are drawn at a time: small enough to stay in the cache, which makes it
# fast, and a bound on the memory beside the result.
_CHUNK_ELEMENTS = 1 << 18


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
    """Draw the clips `rows`, all of one shape, into their place in `videos`."""
    height, width = videos.shape[-2:]
    centers = scene.centers[rows].astype(np.float32)  # B T 2
    radius = scene.radius[rows].astype(np.float32)[:, None, None, None]  # B 1 1 1
    dy = (np.arange(height, dtype=np.float32) - centers[..., :1])[..., :, None]  # B T H 1
    dx = (np.arange(width, dtype=np.float32) - centers[..., 1:])[..., None, :]  # B T 1 W
    cover = _COVER[shape](dy, dx, radius)  # B T H W

    background = 2 * scene.background[rows].astype(np.float32) - 1  # B 3
    contrast = 2 * scene.color[rows].astype(np.float32) - 1 - background
    edges = scene.wall[rows].astype(np.float32)  # B 2
    # Exact share of each pixel column behind the wall; zero width where there is no wall.
    column = np.arange(width, dtype=np.float32) + np.float32(0.5)  # right edge of each pixel column
    wall = np.clip(column - edges[:, :1], 0, 1) - np.clip(column - edges[:, 1:], 0, 1)  # B W
    any_wall = bool((edges[:, 1] > edges[:, 0]).any())
    grey = 2 * scene.wall_grey[rows].astype(np.float32)[:, None] - 1  # B 1
    open_share = (1 - wall)[:, None, None, :]  # B 1 1 W
    wall_light = (wall * grey)[:, None, None, :]
    for channel in range(3):
        plane = cover * contrast[:, channel, None, None, None]  # B T H W
        plane += background[:, channel, None, None, None]
        if any_wall:  # x * 1 + 0 is exact, so clips without a wall are not changed by a neighbour with one
            plane *= open_share
            plane += wall_light
        videos[rows, channel] = plane


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
    """Clamp to [0, 1], in place; twice as fast as np.clip."""
    np.maximum(inside, 0, out=inside)
    return np.minimum(inside, 1, out=inside)


_HALF = np.float32(0.5)
_COVER = {"circle": _circle, "square": _square, "triangle": _triangle}
