"""Clips of the shapes world, and ways to make them worse."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from minisora.data.shapes_world.grammar import parse
from minisora.data.shapes_world.shapes_dataset import ShapesTruth, ShapesWorld


def _draw(caption: str, seed: int = 1, frames: int = 17, height: int = 64, width: int = 64) -> Tensor:
    """One clip 3 T H W of a caption."""
    return ShapesWorld(1, frames=frames, height=height, width=width).render([parse(caption)], seed)[0]


@pytest.fixture
def draw() -> Callable[..., Tensor]:
    """draw(caption, seed=1, frames=17, height=64, width=64): one clip 3 T H W."""
    return _draw


@pytest.fixture
def truth() -> Callable[[str], ShapesTruth]:
    """truth(caption): what is where in the clip that `draw` draws."""
    return lambda caption: ShapesWorld(1).render_truth([parse(caption)], 1)[0]


def _blurred(videos: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of B C T H W, sigma in pixels."""
    reach = int(3 * sigma) + 1
    kernel = torch.exp(-(torch.arange(-reach, reach + 1.0) ** 2) / (2 * sigma**2))
    kernel /= kernel.sum()
    images = videos.transpose(1, 2).reshape(-1, 1, *videos.shape[3:])
    images = functional.pad(images, (reach,) * 4, mode="replicate")
    images = functional.conv2d(images, kernel.view(1, 1, 1, -1))
    images = functional.conv2d(images, kernel.view(1, 1, -1, 1))
    return images.view(videos.transpose(1, 2).shape).transpose(1, 2)


@pytest.fixture
def blurred() -> Callable[[Tensor, float], Tensor]:
    """blurred(videos, sigma): Gaussian blur of B C T H W, sigma in pixels."""
    return _blurred


@pytest.fixture
def worsen() -> Callable[[float, float, float], Callable[[Tensor], Tensor]]:
    """worsen(sigma, noise, gain): blur, white noise, and colours off by a share, drawn for each clip."""

    def make(sigma: float, noise: float, gain: float) -> Callable[[Tensor], Tensor]:
        generator = torch.Generator().manual_seed(0)

        def degrade(videos: Tensor) -> Tensor:
            tint = torch.rand(len(videos), 3, 1, 1, 1, generator=generator)
            dirt = torch.randn(videos.shape, generator=generator)
            return (_blurred(videos, sigma) * (1 - gain * tint) + noise * dirt).clamp(-1, 1)

        return degrade

    return make
