"""A dream that needs no training: it goes on from any picture, which its codes push around."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from minisora.errors import UserError


class PushedPicture:
    """A `World`: the last frame that it began with, moved as a whole."""

    fps = 10.0
    names: tuple[str, ...] = ("right", "noop", "left")
    _MOVES = (3, 0, -3)

    def __init__(self, size: tuple[int, int] = (32, 32)) -> None:
        self.size = size
        self.now: Tensor | None = None

    @property
    def num_codes(self) -> int:
        return len(self.names)

    @property
    def buttons(self) -> Mapping[str, int]:
        return {name: code for code, name in enumerate(self.names)}

    def start(self, frames: Tensor | None = None, seed: int = 0) -> Tensor:
        if frames is None:
            frames = torch.randint(0, 256, (1, 3, *self.size), generator=torch.Generator().manual_seed(seed))
        frames = frames if frames.ndim == 4 else frames[:, :, -1]
        if tuple(frames.shape[2:]) != self.size:
            raise UserError(f"the world shows {self.size}, not {tuple(frames.shape[2:])}")
        self.now = frames.to(torch.uint8)
        return self.now

    def step(self, codes: Sequence[int] | np.ndarray) -> Tensor:
        assert self.now is not None
        self.now = self.now.roll(self._MOVES[codes[0]], dims=3)
        return self.now

    def keep(self) -> Any:
        return self.now

    def go_back(self, moment: Any, rows: Sequence[int] | np.ndarray | None = None) -> None:
        self.now = moment


@pytest.fixture
def dream() -> Callable[..., PushedPicture]:
    """Makes one; of another size if told."""
    return PushedPicture
