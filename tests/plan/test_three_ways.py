"""Attention in bands, counted three ways on a block that skips what is not seen: fvcore, torch, and the planner."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minisora.flops.count_closed_form import Term
from minisora.flops.ledger import count_pass
from minisora.flops.passes import Pass
from minisora.plan.subject import parse_attention
from minisora.report.cost import Attention, Band, TransformerShape, attention_keys, forward_macs

FRAMES, PLACES, WIDTH, HEADS, HIDDEN = 7, 6, 32, 2, 96


def seen(kind: Attention | Band, frame: int) -> tuple[int, int]:
    """The latent frames that a frame sees, written out."""
    if not isinstance(kind, Band):
        return 0, FRAMES
    extent = int(kind.frames)
    if kind.kind == "causal":
        return 0, min(FRAMES, (frame // extent + 1) * extent)
    return max(0, frame - extent // 2), min(FRAMES, frame + extent // 2 + 1)


class BandedBlock(nn.Module):
    """Attention that takes for each frame the keys that it sees, and an MLP."""

    def __init__(self, kind: Attention | Band):
        super().__init__()
        self.kind = kind
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, HIDDEN), nn.Linear(HIDDEN, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in self.qkv(x).chunk(3, dim=-1))
        parts = []
        for frame in range(FRAMES):
            first, end = seen(self.kind, frame)
            own, others = slice(frame * PLACES, (frame + 1) * PLACES), slice(first * PLACES, end * PLACES)
            parts.append(F.scaled_dot_product_attention(q[:, :, own], k[:, :, others], v[:, :, others]))
        x = self.out(torch.cat(parts, dim=2).transpose(1, 2).flatten(2))
        return self.down(F.gelu(self.up(x)))


@pytest.mark.parametrize("text", ["full", "causal", "causal:3", "window:3", "window:5", "window:99"])
def test_three_ways_agree_on_what_a_band_costs(text: str) -> None:
    kind, tokens = parse_attention(text), FRAMES * PLACES
    keys = attention_keys(kind, float(FRAMES), float(PLACES))
    terms = [
        Term("qkv", "attention_linear", 3 * tokens * WIDTH**2),
        Term("", "attention_quadratic", round(2 * tokens * float(keys) * WIDTH), True),
        Term("out", "attention_linear", tokens * WIDTH**2),
        Term("up", "mlp", tokens * WIDTH * HIDDEN),
        Term("down", "mlp", tokens * WIDTH * HIDDEN),
    ]
    with torch.device("meta"):
        block, x = BandedBlock(kind).eval(), torch.zeros(1, tokens, WIDTH)
    counted = count_pass(Pass("a banded block", block, (x,), terms=terms))
    assert counted.agreement.max_disagreement == 0
    shape = TransformerShape(layers=1, width=WIDTH, hidden=HIDDEN, modulation=False)
    planned = forward_macs(shape, float(FRAMES), float(PLACES), kind)
    assert float(planned.total) == pytest.approx(counted.macs, rel=1e-12)
