"""CUDA paths without a card: fake tensors on "cuda" run no kernel and refuse a CPU tensor that leaks in."""

from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses import FakeTensorMode

from minisora.config import Config
from minisora.flops.count_closed_form import dit_terms, total
from minisora.flops.count_torch import count_forward
from minisora.flops.ledger import count_config
from minisora.flops.passes import decode_pass, dit_pass, encode_pass, text_pass
from minisora.models.build import build_dit, build_text_encoder, build_vae

SMALL = Config.model_validate({"dit": {"width": 48, "depth": 2, "heads": 4}})


@pytest.mark.slow
def test_no_cpu_tensor_leaks_into_a_pass():
    with FakeTensorMode(allow_non_fake_inputs=True):
        with torch.device("cuda"):
            dit, vae, text = build_dit(SMALL, 16), build_vae(SMALL), build_text_encoder(SMALL, ["a"])
        what = dit_pass(SMALL, dit, (3, 8, 8), text_width=16, batch=2, device="cuda")
        flops = count_forward(what)
        assert count_forward(encode_pass(SMALL, vae, (5, 16, 16), device="cuda")) > 0
        assert count_forward(decode_pass(SMALL, vae, (2, 2, 2), device="cuda")) > 0
        assert count_forward(text_pass(SMALL, text, device="cuda")) > 0
    assert flops == 2 * 2 * total(dit_terms(SMALL, (3, 8, 8), text_width=16, text_tokens=24))


def test_channels_that_flash_attention_pads_are_not_counted():
    """CUDA's flash kernel takes multiples of 8 channels: 12 become 16 before the counter sees them."""

    def padding(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (F.pad(x, (0, 4)) for x in (q, k, v))
        return torch.ops.aten._scaled_dot_product_flash_attention(q, k, v)[0][..., :12]

    with FakeTensorMode(), mock.patch.object(F, "scaled_dot_product_attention", padding):
        q, k = torch.randn(2, 4, 10, 12, device="cuda"), torch.randn(2, 4, 6, 12, device="cuda")
        flops = count_forward(lambda: F.scaled_dot_product_attention(q, k, k))
    assert flops == 2 * 2 * 2 * 4 * 10 * 6 * 12


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_card_counts_what_meta_counts(dtype: torch.dtype):
    meta, card = (count_config(SMALL, cases=(), device=device, dtype=dtype) for device in ("meta", "cuda"))
    assert card.dit.macs == meta.dit.macs
    assert {n: c.macs for n, c in card.components.items()} == {n: c.macs for n, c in meta.components.items()}
