"""A causal DiT: no later frame reaches an earlier one, and frame by frame it says what it says of the whole."""

import pytest
import torch
from torch import Tensor

from minisora.errors import UserError
from minisora.models.dit import VideoDiT
from minisora.models.frame_memory import FrameMemory

WINDOW, FRAMES = 3, 7


def awake(**options: object) -> VideoDiT:
    """A model whose zeroed layers are not zero, so that everything can reach everything."""
    torch.manual_seed(0)
    model = VideoDiT(4, (1, 2, 2), 24, 4, 2, attention="factorised", num_classes=5, **options)  # type: ignore[arg-type]
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.15)
    return model.eval().requires_grad_(False)


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(2, 4, FRAMES, 4, 4, generator=generator)
    return latents, torch.rand(2, FRAMES, generator=generator), torch.arange(2 * FRAMES).view(2, FRAMES) % 5


def test_no_later_frame_level_or_label_reaches_an_earlier_one() -> None:
    model, (latents, sigma, labels) = awake(causal_window=WINDOW), inputs()
    before = model(latents, sigma, labels=labels)
    latents[:, :, 4], sigma[:, 4], labels[:, 4] = 9.0, 0.9, (labels[:, 4] + 1) % 5
    after = model(latents, sigma, labels=labels)
    reached = (after - before).abs().amax(dim=(0, 1, 3, 4)) > 1e-6  # T
    # Two layers through time, each of which looks back on two frames more.
    assert reached.tolist() == [False] * 4 + [True] * 3

    free = awake()
    latents, sigma, labels = inputs()
    before = free(latents, sigma, labels=labels)
    latents[:, :, 4] = 9.0
    assert ((free(latents, sigma, labels=labels) - before).abs().amax(dim=(0, 1, 3, 4)) > 1e-6).all()


def test_each_part_of_the_condition_reaches_the_frame_it_stands_at() -> None:
    model, (latents, sigma, labels) = awake(causal_window=1), inputs()
    before = model(latents, sigma, labels=labels)
    labels[0, 2] = (labels[0, 2] + 1) % 5
    changed = (model(latents, sigma, labels=labels) - before).abs().amax(dim=(1, 3, 4)) > 1e-6  # B T
    assert changed.nonzero().tolist() == [[0, 2]]


def test_frame_by_frame_is_the_whole_video_and_the_window_slides() -> None:
    model, (latents, sigma, labels) = awake(causal_window=WINDOW), inputs()
    whole = model(latents, sigma, labels=labels)
    memory = FrameMemory(model)
    for frame in range(FRAMES):
        now = (latents[:, :, frame : frame + 1], sigma[:, frame], labels[:, frame])
        moment = memory.copied()
        torch.testing.assert_close(memory.look(*now), whole[:, :, frame : frame + 1], rtol=1e-4, atol=1e-5)
        memory.see(*now)
        # What was copied has not seen it, and of rows each is itself.
        torch.testing.assert_close(moment.look(*now), whole[:, :, frame : frame + 1], rtol=1e-4, atol=1e-5)
        rows = [1, 0, 1]
        taken = moment.take(rows, 2).look(*(each[rows] for each in now))
        torch.testing.assert_close(taken, whole[rows, :, frame : frame + 1], rtol=1e-4, atol=1e-5)


def test_how_long_ago_counts_and_not_when() -> None:
    model, (latents, sigma, labels) = awake(causal_window=WINDOW), inputs()
    late, early = (
        model(latents[:, :, first:], sigma[:, first:], labels=labels[:, first:]) for first in (0, 2)
    )
    # Four frames before it are all that the last frame sees, by two layers.
    torch.testing.assert_close(late[:, :, -1], early[:, :, -1], rtol=1e-4, atol=1e-5)


def test_what_sees_later_frames_is_refused() -> None:
    with pytest.raises(UserError, match="causal_window"):
        FrameMemory(awake())
    with pytest.raises(UserError, match="factorised"):
        VideoDiT(causal_window=4)
