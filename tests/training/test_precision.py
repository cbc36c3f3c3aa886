import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from minisora.training.precision import attention_backend, choose_precision

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("tiles", "dots", "width", "precision"),
    [
        (False, False, 4096, "fp32"),
        (False, True, 128, "bf16"),
        (False, True, 32, "fp32"),
        (True, True, 128, "fp32"),
        (True, True, 1024, "bf16"),
    ],
)
def test_a_cpu_trains_in_what_it_has_units_for(
    monkeypatch: pytest.MonkeyPatch, tiles: bool, dots: bool, width: int, precision: str
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: tiles)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: dots)
    assert choose_precision("auto", CPU, width)[0] == precision


def test_what_is_configured_is_taken() -> None:
    assert choose_precision("fp32", CPU, 4096) == ("fp32", "as configured")


def test_the_open_products_give_the_fused_kernels_result() -> None:
    q, k, v = torch.randn(3, 2, 4, 20, 32).unbind(0)
    mask = torch.rand(2, 1, 1, 20) < 0.7
    mask[..., 0] = True
    fused = scaled_dot_product_attention(q, k, v, attn_mask=mask)
    with attention_backend(CPU, "bf16"):
        assert torch.allclose(scaled_dot_product_attention(q, k, v, attn_mask=mask), fused, atol=1e-5)
        in_bf16 = scaled_dot_product_attention(*(t.bfloat16() for t in (q, k, v)), attn_mask=mask)
    assert (in_bf16.float() - fused).abs().max() < 0.05
