import os
import subprocess
import sys

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


@pytest.mark.parametrize("capability", ["default", "avx2"])
def test_bfloat16_is_attended_to_with_the_kernels_held_to_older_cpus(capability: str) -> None:
    code = (
        "import torch\n"
        "from minisora.models.attention import attend\n"
        "torch.manual_seed(0)\n"
        "q, k, v = torch.randn(3, 1, 2, 80, 32)\n"
        "expected = torch.nn.functional.scaled_dot_product_attention(q, k, v)\n"
        "with torch.no_grad():\n"
        "    found = attend(q.bfloat16(), k.bfloat16(), v.bfloat16())\n"
        "assert found.dtype == torch.bfloat16\n"
        "assert (found - expected).abs().max() < 0.05\n"
    )
    env = {**os.environ, "ATEN_CPU_CAPABILITY": capability}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
