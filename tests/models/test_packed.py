"""Packed rows: clips of any sizes in common rows come out as each would alone, and little is wasted."""

import pytest
import torch
from torch import Tensor

from minisora.errors import UserError
from minisora.models.dit import VideoDiT
from minisora.models.packed import pack, packed_velocities

SIZES = [(1, 2, 2), (3, 4, 4), (2, 2, 6), (5, 4, 2), (3, 4, 4)]  # latent T H W


def make(**settings: object) -> VideoDiT:
    torch.manual_seed(0)
    options: dict = {"in_channels": 4, "width": 48, "depth": 2, "heads": 2, "text_width": 16} | settings
    model = VideoDiT(**options).eval()
    for parameter in model.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return model


def clips() -> tuple[list[Tensor], list[Tensor], dict[str, Tensor]]:
    """Noisy clips of many sizes, half of them with a noise level per frame, and their texts."""
    g = torch.Generator().manual_seed(1)
    noisy = [torch.randn(4, *size, generator=g) for size in SIZES]
    sigmas = [torch.rand(size[0] if i % 2 else 1, generator=g) for i, size in enumerate(SIZES)]
    mask = torch.ones(len(SIZES), 5, dtype=torch.bool)
    mask[2, 3:] = False
    text = {
        "text": torch.randn(len(SIZES), 5, 16, generator=g),
        "text_mask": mask,
        "pooled": torch.randn(len(SIZES), 16, generator=g),
    }
    return noisy, sigmas, text


@pytest.mark.parametrize("capacity", [12, 20, 1000])
@pytest.mark.parametrize("modulation", ["per_block", "shared"])
def test_each_clip_comes_out_as_it_would_alone(capacity: int, modulation: str) -> None:
    model = make(modulation=modulation)
    noisy, sigmas, text = clips()
    together = packed_velocities(model, noisy, sigmas, capacity, **text)
    for i, velocity in enumerate(together):
        own = {name: tensor[i : i + 1] for name, tensor in text.items()}
        alone = model(noisy[i][None], sigmas[i][None], **own)[0]
        torch.testing.assert_close(velocity, alone, atol=1e-4, rtol=1e-4)


def test_gradients_are_those_of_the_clips_alone() -> None:
    model = make()
    noisy, sigmas, text = clips()
    sum(v.square().sum() for v in packed_velocities(model, noisy, sigmas, 20, **text)).backward()
    packed = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    for i in range(len(noisy)):
        own = {name: tensor[i : i + 1] for name, tensor in text.items()}
        model(noisy[i][None], sigmas[i][None], **own).square().sum().backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(packed[name], parameter.grad, atol=1e-3, rtol=1e-3, msg=name)


def test_without_text() -> None:
    model = make(text_width=None)
    noisy, sigmas, _ = clips()
    alone = model(noisy[1][None], sigmas[1][None])[0]
    torch.testing.assert_close(packed_velocities(model, noisy, sigmas, 20)[1], alone, atol=1e-4, rtol=1e-4)


def test_rows_are_filled_evenly() -> None:
    rows = pack([80, 75, 75, 180, 32, 144, 80, 16, 80, 75, 144, 32, 80, 75, 16, 80], 512)
    assert sorted(clip for row in rows.clips for clip in row) == list(range(16))
    assert rows.length <= 512
    assert rows.waste < 0.05


def test_one_row_more_where_even_filling_overflows() -> None:
    rows = pack([6, 6, 6], 10)  # 18 tokens would fit two rows of 10, were clips divisible
    assert len(rows.clips) == 3
    assert rows.waste == 0


def test_a_clip_longer_than_a_row_is_refused() -> None:
    with pytest.raises(UserError, match=r"180 tokens does not fit a packed row of 100.*data\.packing to 180"):
        pack([32, 180], 100)


def test_factorised_attention_is_refused() -> None:
    noisy, sigmas, text = clips()
    with pytest.raises(UserError, match=r"dit\.attention=full"):
        packed_velocities(make(attention="factorised"), noisy, sigmas, 20, **text)
