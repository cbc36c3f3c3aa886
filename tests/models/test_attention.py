import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from minisora.models.attention import attend


@pytest.mark.parametrize("masked", [False, True])
def test_products_written_out_give_the_fused_kernels_result_and_gradients(masked: bool) -> None:
    torch.manual_seed(0)
    inputs = torch.randn(3, 2, 4, 20, 32)
    mask = torch.rand(2, 1, 1, 20) < 0.7 if masked else None
    if mask is not None:
        mask[..., 0] = True
    exact = [t.clone().requires_grad_() for t in inputs]
    rounded = [t.bfloat16().requires_grad_() for t in inputs]
    expected = scaled_dot_product_attention(*exact, attn_mask=mask)
    got = attend(*rounded, mask)
    assert (got.float() - expected).abs().max() < 0.05
    expected.sum().backward()
    got.float().sum().backward()
    for mine, right in zip(rounded, exact, strict=True):
        assert mine.grad is not None
        assert right.grad is not None
        assert (mine.grad.float() - right.grad).abs().max() < 0.05


def test_all_but_training_on_short_bfloat16_rows_goes_to_the_fused_kernel(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[tuple[torch.dtype, int]] = []

    def fused(q: torch.Tensor, *others: object, **options: object) -> torch.Tensor:
        asked.append((q.dtype, q.shape[-2]))
        return q

    monkeypatch.setattr("torch.nn.functional.scaled_dot_product_attention", fused)
    attend(*torch.randn(3, 1, 1, 8, 4, requires_grad=True))
    attend(*torch.randn(3, 1, 1, 9, 4).bfloat16())
    learning = torch.randn(3, 1, 1, 10, 4).bfloat16().requires_grad_()
    attend(*learning)
    with torch.no_grad():
        attend(*learning)
    attend(*torch.randn(3, 1, 1, 1025, 4).bfloat16().requires_grad_())
    assert asked == [
        (torch.float32, 8),
        (torch.bfloat16, 9),
        (torch.bfloat16, 10),
        (torch.bfloat16, 1025),
    ]
