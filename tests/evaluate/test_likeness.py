"""Measures of clips that need no judge: each finds what it is named for, and nothing where there is none."""

import math

import numpy as np
import pytest
import torch

from minisora.evaluate.likeness import (
    FeatureSpace,
    LatentSpace,
    activity,
    circular_distance,
    flicker,
    frechet_distance,
    joined,
    latent_features,
    motion,
    motion_distance,
    moving,
    psnr_moving,
)


def ball(dy: int, dx: int, frames: int = 7, size: int = 48) -> torch.Tensor:
    """A textured square of 8 x 8 pixels on gray that moves by (dy, dx) a frame: 3 T H W in [-1, 1]."""
    texture = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    video = torch.zeros(3, frames, size, size)
    for t in range(frames):
        y, x = 20 + dy * (t - frames // 2), 20 + dx * (t - frames // 2)
        video[:, t, y : y + 8, x : x + 8] = texture
    return video


def test_what_moves_is_the_object_and_not_the_ground() -> None:
    video = ball(0, 3)[None]
    where = moving(video)
    assert 0 < where.float().mean() < 0.05
    assert not where[:, :, :, :19].any()


def test_a_copy_without_its_object_looks_good_everywhere_but_on_what_moves() -> None:
    video = ball(0, 3)[None]
    empty = video.median(2, keepdim=True).values.expand_as(video)
    everywhere = 10 * math.log10(4 / (empty - video).square().mean().item())
    assert everywhere > 20 > 12 > psnr_moving(empty, video).item()
    assert psnr_moving(video + 0.02, video).item() == pytest.approx(40, abs=0.01)


def test_nothing_is_said_of_a_clip_that_stands_still() -> None:
    still = torch.zeros(1, 3, 5, 16, 16)
    assert psnr_moving(still, still).isnan().all()
    assert activity(still).item() == 0 == flicker(still).item()


def test_activity_counts_pixels_that_change() -> None:
    video = torch.zeros(1, 3, 3, 8, 8)
    video[:, :, 1:, :4] = 1
    assert activity(video).item() == pytest.approx(0.25)


def test_flicker_is_of_what_stands_still() -> None:
    video = ball(0, 3)[None]
    trembling = video + 0.05 * (-1.0) ** torch.arange(7).view(1, 1, 7, 1, 1)
    assert flicker(video).item() == 0
    assert flicker(trembling).item() == pytest.approx(0.1, rel=0.05)


@pytest.mark.parametrize(
    ("shift", "sector"), [((0, 3), 0), ((-3, 0), 2), ((0, -3), 4), ((3, 0), 6), ((-2, 2), 1)]
)
def test_motion_tells_speed_and_direction(shift: tuple[int, int], sector: int) -> None:
    seen = motion([ball(*shift)])
    assert len(seen.speeds) > 0
    assert np.median(seen.speeds) == pytest.approx(math.hypot(*shift), abs=0.5)
    assert int(seen.directions.argmax()) == sector


def test_motion_of_a_still_clip_is_none() -> None:
    seen = motion([torch.zeros(3, 4, 32, 32)])
    assert len(seen.speeds) == 0 == seen.directions.sum()


def test_sets_that_move_alike_are_near_and_others_far() -> None:
    right, left = [ball(0, 2), ball(0, 3)], [ball(0, -2), ball(0, -3)]
    one, other = motion(right), motion(left)
    same, turned = motion_distance(one, one), motion_distance(one, other)
    assert (same.amount, same.speed, same.direction) == (0, 0, 0)
    assert turned.direction > 0.3
    assert motion_distance(one, motion([ball(0, 0)])).amount > 0


def test_sets_joined_are_one_set() -> None:
    parts = [ball(0, 2), ball(0, -3), ball(0, 0)]
    whole, pieces = motion(parts), joined([motion(parts[:1]), motion(parts[1:])])
    assert np.allclose(whole.amounts, pieces.amounts)
    assert np.allclose(whole.speeds, pieces.speeds)
    assert np.allclose(whole.directions, pieces.directions)


def test_a_circle_has_no_end() -> None:
    one, last, far = (np.eye(8)[i] for i in (0, 7, 4))
    assert circular_distance(one, last) == pytest.approx(1 / 8)
    assert circular_distance(one, far) == pytest.approx(1 / 2)


def test_frechet_distance_of_known_gaussians() -> None:
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(20_000, 3, generator=generator)
    b = 2 * torch.randn(20_000, 3, generator=generator) + torch.tensor([1.0, 0.0, 0.0])
    # |mu|^2 + sum (s - 2)^2 with s = 1
    assert frechet_distance(a, b) == pytest.approx(1 + 3, abs=0.15)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-6)


def test_a_feature_space_is_of_unit_variance_and_ignores_what_never_differs() -> None:
    latents = torch.randn(60, 4, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    latents[:, 3] = 0
    features = latent_features(latents)
    space = FeatureSpace.of(features)
    seen = space(features)
    assert seen.shape[1] <= 20
    assert torch.allclose(seen.std(0), torch.ones(seen.shape[1]), atol=1e-3)


def test_still_pictures_lie_further_from_clips_than_other_clips_do() -> None:
    generator = torch.Generator().manual_seed(2)

    def clips() -> torch.Tensor:
        """Ten things in turn, which differ much, that change little."""
        shown = 5 * torch.randn(10, 4, 1, 4, 4, generator=torch.Generator().manual_seed(3)).repeat(
            6, 1, 1, 1, 1
        )
        return shown + 0.1 * (1 + torch.rand(60, 4, 1, 1, 1, generator=generator)) * torch.randn(
            60, 4, 5, 4, 4, generator=generator
        )

    training, held_out = clips(), clips()
    still = training.mean(2, keepdim=True).expand_as(training)
    space = LatentSpace.of(training, 12)
    real = space(held_out)
    assert real.shape == (60, 12)
    assert frechet_distance(space(still), real) > 5 * frechet_distance(space(training), real)
    assert LatentSpace.of(training[:, :, :1], 12)(held_out[:, :, :1]).shape == (60, 6)
