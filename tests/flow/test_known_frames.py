import numpy as np
import pytest
import torch

from minisora.data.draws import rng
from minisora.flow.known_frames import FrameCondition, draw_known
from minisora.flow.path import flow_loss, interpolate


@pytest.mark.parametrize("frames", [2, 3, 5, 9])
def test_every_pattern_is_drawn_and_none_knows_all_frames_or_no_frame(frames: int) -> None:
    drawn = np.stack([draw_known(rng(0, i), frames) for i in range(600)])
    counts = drawn.sum(1)
    assert counts.min() == 1
    assert counts.max() == frames - 1
    seen = {tuple(row) for row in drawn.tolist()}
    alone = [tuple(i == at for i in range(frames)) for at in (0, frames - 1)]
    assert seen.issuperset(alone)
    if frames > 3:  # runs from either end, more than one frame in each: what extensions are made from
        for longer in (drawn[:, :2], drawn[:, -2:]):
            assert 0.15 < longer.all(1).mean() < 0.5
    if frames > 2:
        assert tuple(i in (0, frames - 1) for i in range(frames)) in seen


def test_known_frames_stand_at_their_own_noise_level_and_do_not_count_in_the_loss() -> None:
    torch.manual_seed(0)
    known = torch.tensor([[True, False, False, False], [False, False, True, True], [False] * 4])
    condition = FrameCondition(known, torch.tensor([0.0, 0.1, 0.0]))
    sigma = condition.sigmas(torch.tensor([0.5, 0.7, 0.9]))
    assert sigma.tolist()[0] == pytest.approx([0, 0.5, 0.5, 0.5])
    assert sigma.tolist()[1] == pytest.approx([0.7, 0.7, 0.1, 0.1])
    latents, noise = torch.randn(2, 3, 4, 4, 2, 2).unbind(0)
    sample = interpolate(latents, noise, sigma)
    assert torch.equal(sample.noisy[0, :, 0], latents[0, :, 0])
    wrong = sample.velocity.clone()
    wrong[0, :, 0] += 100  # of a known frame
    wrong[0, :, 1] += 3  # one of three unknown ones
    torch.testing.assert_close(flow_loss(wrong, sample, known), torch.tensor([3.0, 0.0, 0.0]))
