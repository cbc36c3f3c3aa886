"""Attention in bands, counted three ways on a block that skips what is not seen: fvcore, torch, and the planner."""

import itertools
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minisora.errors import UserError
from minisora.flops.count_closed_form import Term
from minisora.flops.ledger import count_pass
from minisora.flops.passes import Pass
from minisora.plan.question import ask, card_named
from minisora.plan.spending import spend
from minisora.plan.subject import of_size, parse_attention
from minisora.report.cost import Attention, Band, TransformerShape, attention_keys, forward_macs

FRAMES, PLACES, WIDTH, HEADS, HIDDEN = 7, 6, 32, 2, 96
# Of the places.
ROWS = 2


class TiledBlock(nn.Module):
    """Attention of tokens that take the keys of a window around them, moved inside at the ends."""

    def __init__(self, kind: Band):
        super().__init__()
        self.window = int(kind.frames), int(kind.rows), int(kind.columns)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, HIDDEN), nn.Linear(HIDDEN, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        grid = (FRAMES, ROWS, PLACES // ROWS)
        q, k, v = (
            part.unflatten(1, grid).unflatten(-1, (HEADS, -1)) for part in self.qkv(x).chunk(3, dim=-1)
        )
        parts = []
        for at in itertools.product(*map(range, grid)):
            around = [
                slice(first, first + extent)
                for first, extent in (
                    (max(0, min(i - n // 2, side - n)), min(n, side))
                    for i, n, side in zip(at, self.window, grid, strict=True)
                )
            ]
            query = q[:, at[0], at[1], at[2], None].transpose(1, 2)
            key, value = (each[:, *around].flatten(1, 3).transpose(1, 2) for each in (k, v))
            parts.append(F.scaled_dot_product_attention(query, key, value))
        x = self.out(torch.cat(parts, dim=2).transpose(1, 2).flatten(2))
        return self.down(F.gelu(self.up(x)))


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


@pytest.mark.parametrize(
    "text", ["full", "causal", "causal:3", "window:3", "window:5", "window:99", "tile:3x2x1", "tile:9x1x3"]
)
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
        tiled = isinstance(kind, Band) and kind.kind == "tile"
        block = (TiledBlock if tiled else BandedBlock)(kind).eval()  # type: ignore[arg-type]
        x = torch.zeros(1, tokens, WIDTH)
    counted = count_pass(Pass("a banded block", block, (x,), terms=terms))
    assert counted.agreement.max_disagreement == 0
    shape = TransformerShape(layers=1, width=WIDTH, hidden=HIDDEN, modulation=False)
    planned = forward_macs(shape, float(FRAMES), float(PLACES), kind)
    assert float(planned.total) == pytest.approx(counted.macs, rel=1e-12)


class Experts(nn.Module):
    """An MLP of several experts, of which each token meets some; every expert gets as many tokens."""

    def __init__(self, experts: int, active: int):
        super().__init__()
        self.active = active
        self.up = nn.ModuleList(nn.Linear(WIDTH, HIDDEN, bias=False) for _ in range(experts))
        self.down = nn.ModuleList(nn.Linear(HIDDEN, WIDTH, bias=False) for _ in range(experts))

    def forward(self, x: Tensor) -> Tensor:
        parts = x.repeat(1, self.active, 1).chunk(len(self.up), dim=1)
        pairs = zip(parts, self.up, self.down, strict=True)
        return torch.cat([down(F.gelu(up(part))) for part, up, down in pairs], dim=1)


@pytest.mark.parametrize(("experts", "active"), [(6, 1), (6, 2)])
def test_experts_cost_what_a_token_meets_and_weigh_what_there_is(experts: int, active: int) -> None:
    tokens = FRAMES * PLACES
    with torch.device("meta"):
        mixture, x = Experts(experts, active).eval(), torch.zeros(1, tokens, WIDTH)
    counted = count_pass(Pass("experts", mixture, (x,), by_module=False))
    # A dense MLP as wide as the experts that a token meets.
    shape = TransformerShape(layers=1, width=WIDTH, hidden=active * HIDDEN, modulation=False)
    without = TransformerShape(layers=1, width=WIDTH, hidden=0, modulation=False)
    planned = [forward_macs(each, float(FRAMES), float(PLACES)).total for each in (shape, without)]
    assert float(planned[0] - planned[1]) == counted.macs
    assert sum(p.numel() for p in mixture.parameters()) == experts * 2 * WIDTH * HIDDEN


def test_a_mixture_by_its_numbers_is_a_model_of_the_active_size_that_weighs_all() -> None:
    dense, mixture = of_size(14e9), of_size(27e9, active=14e9)
    assert mixture.shape == dense.shape
    numbers = [
        spend(each, ask(each, card=card_named("h100 sxm")).inputs(0.3, 0.3, 0.05))
        for each in (dense, mixture)
    ]
    assert numbers[0]["pass_flops"] == numbers[1]["pass_flops"]
    more = float(numbers[1]["serve_weights"] - numbers[0]["serve_weights"])
    assert more == pytest.approx(2 * 13e9)
    with pytest.raises(UserError, match="at most 5e\\+09"):
        of_size(5e9, active=6e9)


class EightBits(nn.Module):
    """A block's products with weights in int8, and attention in float32."""

    def __init__(self) -> None:
        super().__init__()
        shapes = {"qkv": 3 * WIDTH, "out": WIDTH, "up": HIDDEN}
        for name, columns in {**shapes, "down": WIDTH}.items():
            rows = HIDDEN if name == "down" else WIDTH
            self.register_buffer(name, torch.zeros(rows, columns, dtype=torch.int8))

    def product(self, x: Tensor, name: str) -> Tensor:
        return torch._int_mm(x.to(torch.int8), self.get_buffer(name)).float()

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            part.unflatten(-1, (HEADS, -1)).transpose(0, 1) for part in self.product(x, "qkv").chunk(3, -1)
        )
        seen = F.scaled_dot_product_attention(q[None], k[None], v[None])[0]
        x = self.product(seen.transpose(0, 1).flatten(1), "out")
        return self.product(F.gelu(self.product(x, "up")), "down")


def test_products_in_8_bits_are_counted_as_such() -> None:
    with torch.device("meta"):
        block, x = EightBits().eval(), torch.zeros(FRAMES * PLACES, WIDTH)
    counted = count_pass(Pass("products in 8 bits", block, (x,), by_module=False))
    subject = replace(
        of_size(1e9), shape=TransformerShape(layers=1, width=WIDTH, hidden=HIDDEN, modulation=False), vae=(1, 1, 1),
        patch=(1, 1, 1), causal=False, heads=HEADS,
    )  # fmt: skip
    for precision, eight in (("int8", 1.0), ("float8", 1.0), ("bfloat16", 0.0)):
        question = ask(
            subject,
            card=card_named("h100 sxm"),
            frames=FRAMES,
            size=(2, 3),
            steps=1,
            passes=1,
            precision=precision,
        )  # type: ignore[arg-type]
        numbers = spend(subject, question.inputs(0.3, 0.3, 0.05))
        by_int_mm = 2 * counted.fvcore.by_operator()["_int_mm"]
        assert float(numbers["pass_flops"]) == 2 * counted.macs
        assert float(numbers["eight_bit_flops"]) == eight * by_int_mm
