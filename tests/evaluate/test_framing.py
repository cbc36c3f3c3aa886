"""benchmarks/composition.py: whole objects of whole frames, and objects that a crop or the edge cuts off."""

import importlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor


@pytest.fixture
def whole_share(monkeypatch: pytest.MonkeyPatch) -> Callable[[Tensor], float]:
    """The share of a video's frames that show the whole object."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    share: Callable[[Tensor], float] = importlib.import_module("composition").whole_share
    return share


@pytest.mark.parametrize("shape", ["circle", "square", "triangle"])
@pytest.mark.parametrize("size", [(48, 80), (80, 48)])
def test_rendered_objects_are_whole(
    shape: str,
    size: tuple[int, int],
    draw: Callable[..., Tensor],
    blurred: Callable[[Tensor, float], Tensor],
    whole_share: Callable[[Tensor], float],
) -> None:
    for caption in (f"a red {shape} moving left", f"a large green {shape} moving down"):
        video = draw(caption, height=size[0], width=size[1])
        assert whole_share(video) == 1.0
        assert whole_share(blurred(video[None], 1.0)[0]) == 1.0


def test_an_object_that_leaves_a_crop_is_whole_in_the_frames_before(
    draw: Callable[..., Tensor], whole_share: Callable[[Tensor], float]
) -> None:
    video = draw("a blue circle moving right", height=48, width=80)
    crop = video[..., :40]
    assert 0.2 < whole_share(crop) < 0.9
    assert whole_share(crop.flip(1)) == pytest.approx(whole_share(crop), abs=0.06)


def test_half_an_object_is_not_whole(
    draw: Callable[..., Tensor], whole_share: Callable[[Tensor], float]
) -> None:
    video = draw("a large yellow square standing still", height=64, width=64)
    column = int((video[0, 0] > 0.5).any(dim=0).nonzero().float().mean())
    assert whole_share(video) == 1.0
    assert whole_share(video[..., column:]) == 0.0


def test_nothing_is_not_whole(whole_share: Callable[[Tensor], float]) -> None:
    assert whole_share(torch.full((3, 5, 32, 32), -0.9)) == 0.0
