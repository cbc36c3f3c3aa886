"""What is cheap is made again: the same gradients, and less kept for the backward pass."""

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from minisora.models.layers import MLP


def _direct(mlp: MLP, x: Tensor) -> Tensor:
    return mlp.down(mlp.act(mlp.up(x)))


def test_the_output_of_gelu_is_not_kept_and_gradients_are_the_same() -> None:
    torch.manual_seed(0)
    mlp, x = MLP(6, 40), torch.randn(5, 6)
    found = []
    for forward in (mlp, lambda y: _direct(mlp, y)):
        kept: list[int] = []

        def keep(tensor: Tensor, kept: list[int] = kept) -> Tensor:
            kept.append(tensor.numel())
            return tensor

        mlp.zero_grad()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = forward(x).square().sum()
        loss.backward()
        found.append((kept.count(5 * 40), [p.grad.clone() for p in mlp.parameters() if p.grad is not None]))
    (remade, gradients), (direct, expected) = found
    assert direct == 2  # what goes into GELU and what comes out of it
    assert remade == 1
    assert len(gradients) == 4
    for ours, theirs in zip(gradients, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_no_product_runs_twice() -> None:
    mlp, x = MLP(6, 40), torch.randn(5, 6, requires_grad=True)
    with FlopCounterMode(display=False) as counter:
        mlp(x).sum().backward()
    assert (
        counter.get_total_flops() == 3 * 2 * 2 * 5 * 6 * 40
    )  # forward, two gradients; two products; 2 a MAC
