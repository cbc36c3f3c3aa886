"""Muon: orthogonal steps for block matrices, AdamW for the rest, state that survives a checkpoint."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from minisora.config import TrainConfig
from minisora.models.dit import VideoDiT
from minisora.models.text import TextBlock
from minisora.models.vae import ResBlock
from minisora.training.optimizer import Muon, lr_scale, make_optimizer, orthogonalise


@pytest.mark.parametrize("shape", [(16, 16), (48, 16), (16, 64)])
def test_orthogonalised_matrices_have_singular_values_near_one(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 1e-3
    values = torch.linalg.svdvals(orthogonalise(matrix))
    assert values.min() > 0.5
    assert values.max() < 1.3
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    assert ((u @ v) * orthogonalise(matrix)).sum() / min(shape) > 0.8  # and point the same way


@pytest.mark.parametrize("rank", [4, 16])
def test_the_iteration_on_the_gram_matrix_is_the_iteration_on_the_matrix(rank: int) -> None:
    generator = torch.Generator().manual_seed(0)
    long = torch.randn(3, 16, rank, generator=generator) @ torch.randn(3, rank, 64, generator=generator)
    expected = long.double() / long.double().norm(dim=(-2, -1), keepdim=True)
    for _ in range(5):
        gram = expected @ expected.mT
        expected = (3.4445 * torch.eye(16) - 4.7750 * gram + 2.0315 * gram @ gram) @ expected
    for matrices, found in ((long, expected), (long.mT, expected.mT)):
        assert (orthogonalise(matrices).double() - found).norm() < 1e-4 * found.norm()


def test_every_parameter_is_in_one_group_and_only_block_matrices_take_orthogonal_steps() -> None:
    model = VideoDiT(width=48, depth=2, heads=2, text_width=16)
    optimizer = make_optimizer(model, TrainConfig(optimizer="muon"))
    seen = [p for group in optimizer.param_groups for p in group["params"]]
    assert sorted(map(id, seen)) == sorted(map(id, model.parameters()))
    muon = {id(p) for group in optimizer.param_groups if group["muon_parts"] for p in group["params"]}
    names = {name for name, p in model.named_parameters() if id(p) in muon}
    assert "blocks.0.attention.qkv.weight" in names
    assert not {n for n in names if "modulation" in n or "embed" in n or "head" in n or n.endswith("bias")}


def test_fused_projections_are_orthogonalised_map_by_map_and_kernels_from_all_taps() -> None:
    settings = TrainConfig(optimizer="muon", muon_lr=0.1, weight_decay=0.0)
    text, conv = TextBlock(8, 2), ResBlock(8)
    for block, weight, count in ((text, text.qkv.weight, 3), (conv, conv.space.weight, 1)):
        before = weight.detach().clone()
        optimizer = make_optimizer(nn.ModuleList([block]), settings)
        weight.grad = torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
        optimizer.step()
        for part in (before - weight.detach()).flatten(1).chunk(count):
            assert torch.linalg.svdvals(part / 0.1).min() > 0.5


def test_muon_lowers_a_loss_and_leaves_other_groups_to_adamw() -> None:
    torch.manual_seed(0)
    model = nn.ModuleDict({"block": ResBlock(8), "head": nn.Linear(8, 1)})
    optimizer = make_optimizer(model, TrainConfig(optimizer="muon", lr=1e-2))
    assert isinstance(optimizer, Muon)
    x = torch.randn(4, 3, 4, 4, 8)  # B T H W C
    y = x[..., :1] * x[..., 1:2]

    def loss() -> torch.Tensor:
        return (model["head"](model["block"](x)) - y).square().mean()

    first = loss().item()
    for _ in range(60):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    assert loss().item() < 0.7 * first
    assert "momentum" in optimizer.state[model["block"].space.weight]
    assert "exp_avg" in optimizer.state[model["head"].weight]


def test_the_learning_rate_warms_up_stays_and_falls() -> None:
    settings = TrainConfig(steps=100, warmup_steps=10, decay_share=0.3, final_lr_share=0.1)
    scales = [lr_scale(step, settings) for step in range(100)]
    assert scales[0] == pytest.approx(0.1)
    assert scales[9:70] == [1.0] * 61
    assert scales[99] == pytest.approx(0.1 + 0.9 / 30)
    assert all(a >= b for a, b in pairwise(scales[70:]))
    longer = TrainConfig(steps=200, warmup_steps=10, decay_share=0.3, final_lr_share=0.1)
    assert scales[:70] == [lr_scale(step, longer) for step in range(70)]  # a run can be extended
