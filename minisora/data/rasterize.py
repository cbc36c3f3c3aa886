"""Draw scenes of the shapes world as anti-aliased pixels, many clips at once.

Letters: B clips, T frames, H height, W width. Every operation here works on each element alone and is exactly
rounded (no fused multiply-add), so a clip has the same bits in any batch.
"""

import numpy as np
import torch
from torch import Tensor

from minisora.data.captions import SHAPES
from minisora.data.scene import SQUARE_HALF_SIDE, TRIANGLE_INRADIUS, Scene

# Elements of one float32 plane that are drawn at a time: small enough to stay in the cache, which makes it
# fast, and a bound on the memory beside the result.
_CHUNK_ELEMENTS = 1 << 19


def rasterize(scene: Scene, height: int, width: int) -> Tensor:
    """The videos of a scene, `B 3 T H W` float32 in [-1, 1]."""
    num_clips, frames = scene.centers.shape[:2]
    videos = torch.empty(num_clips, 3, frames, height, width)
    chunk = max(1, _CHUNK_ELEMENTS // (frames * height * width))
    for kind in range(len(SHAPES)):
        (of_kind,) = np.nonzero(scene.shape == kind)
        for start in range(0, len(of_kind), chunk):
            rows = of_kind[start : start + chunk]
            _draw(scene, SHAPES[kind], rows, videos)
    return videos


def _draw(scene: Scene, shape: str, rows: np.ndarray, videos: Tensor) -> None:
    """Draw the clips `rows`, all of one shape, into their place in `videos`."""
    height, width = videos.shape[-2:]
    centers = _float(scene.centers[rows])  # B T 2
    radius = _float(scene.radius[rows])[:, None, None, None]  # B 1 1 1
    dy = (torch.arange(height) - centers[..., :1])[..., :, None]  # B T H 1
    dx = (torch.arange(width) - centers[..., 1:])[..., None, :]  # B T 1 W
    cover = _COVER[shape](dy, dx, radius)  # B T H W

    background = 2 * _float(scene.background[rows]) - 1  # B 3
    contrast = 2 * _float(scene.color[rows]) - 1 - background
    edges = _float(scene.wall[rows])  # B 2
    # Exact share of each pixel column behind the wall; zero width where there is no wall.
    column = torch.arange(width) + 0.5  # right edge of each pixel column
    wall = (column - edges[:, :1]).clamp_(0, 1) - (column - edges[:, 1:]).clamp_(0, 1)  # B W
    any_wall = bool((edges[:, 1] > edges[:, 0]).any())
    grey = 2 * _float(scene.wall_grey[rows])[:, None] - 1  # B 1
    open_share = (1 - wall)[:, None, None, :]  # B 1 1 W
    wall_light = (wall * grey)[:, None, None, :]
    for channel in range(3):
        plane = cover * contrast[:, channel, None, None, None]  # B T H W
        plane += background[:, channel, None, None, None]
        if any_wall:  # x * 1 + 0 is exact, so clips without a wall are not changed by a neighbour with one
            plane *= open_share
            plane += wall_light
        videos[torch.from_numpy(rows), channel] = plane


def _circle(dy: Tensor, dx: Tensor, radius: Tensor) -> Tensor:
    """Coverage from the signed distance: half a pixel inside is 1, half a pixel outside is 0."""
    return (radius + 0.5 - (dy * dy + dx * dx).sqrt_()).clamp_(0, 1)


def _square(dy: Tensor, dx: Tensor, radius: Tensor) -> Tensor:
    """Exact coverage of an axis-aligned square: the product of its shares of row and column."""
    reach = radius * float(SQUARE_HALF_SIDE) + 0.5
    return (reach - dy.abs()).clamp_(0, 1) * (reach - dx.abs()).clamp_(0, 1)


def _triangle(dy: Tensor, dx: Tensor, radius: Tensor) -> Tensor:
    """Upright equilateral: the tightest of the distances to the base and to the two slanted sides."""
    inradius = radius * float(TRIANGLE_INRADIUS)
    # The outward normal of a slanted side is (-1/2, sqrt(3)/2) in (y down, |x|).
    slanted = dx.abs() * (3**0.5 / 2) - dy * 0.5
    inside = (inradius + 0.5 - dy).clamp_(0, 1)  # B T H 1
    return torch.minimum((inradius + 0.5 - slanted).clamp_(0, 1), inside)


def _float(array: np.ndarray) -> Tensor:
    return torch.from_numpy(array.astype(np.float32))


_COVER = {"circle": _circle, "square": _square, "triangle": _triangle}
