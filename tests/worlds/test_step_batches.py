"""What a world is trained on: which code stands beside which frame, and that a position says everything."""

from collections.abc import Sequence

import torch
from torch import Tensor

from minisora.data.clips import ClipMemory
from minisora.worlds.step_batches import StepBatches, WindowBatches


class Counted:
    """Clips and latents whose every value is the number of the frame."""

    def __len__(self) -> int:
        return 3

    def clips(self, indices: Sequence[int]) -> Tensor:
        return torch.arange(6, dtype=torch.uint8).view(1, 1, 6, 1, 1).expand(len(indices), 3, 6, 4, 4)

    def latents(self, indices: Sequence[int]) -> Tensor:
        return torch.arange(6.0).view(1, 1, 6, 1, 1).repeat(len(indices), 2, 1, 2, 2)

    def captions(self) -> list[str]:
        return [""] * 3

    def fingerprint(self) -> str:
        return "counted"


def test_the_code_of_the_step_from_a_frame_stands_beside_the_frame_it_leads_to() -> None:
    # codes[:, t] = t leads from frame t to frame t + 1.
    codes = torch.arange(5).expand(3, 5)
    batches = WindowBatches(Counted(), codes, frames=3, code_dropout=0.0, hidden=8, seed=0)
    batch = batches.at(range(40))
    frame = batch.latents[:, 0, :, 0, 0]
    assert batch.latents.shape == (40, 2, 3, 2, 2)
    assert frame.equal(batch.codes + 1.0)
    assert batch.before[:, 0, :, 0, 0].equal(batch.codes + 0.0)
    assert frame.unique().tolist() == [1, 2, 3, 4, 5]

    hidden = WindowBatches(Counted(), codes, frames=9, code_dropout=0.5, hidden=8, seed=0).at(range(40))
    # A clip that is shorter than the window gives all it has.
    assert hidden.codes.shape == (40, 5)
    assert 0.3 < (hidden.codes == 8).float().mean() < 0.7


def test_a_step_is_three_frames_in_a_row_and_follows_from_its_position() -> None:
    batches = StepBatches(ClipMemory(Counted()), 0.5, seed=0, num_samples=80)
    batch = batches.at(range(40))
    before, now, then = batch.frames[:, 0, :, 0, 0].long().unbind(1)
    assert then.equal(now + 1)
    assert before.equal((now - 1).clamp_min(0))
    assert now.unique().tolist() == [0, 1, 2, 3, 4]
    assert batch.done[-1] == 39 / 80
    again = batches.at([7, 3])
    assert again.frames.equal(batch.frames[[7, 3]])
    assert again.hidden.equal(batch.hidden[[7, 3]])
