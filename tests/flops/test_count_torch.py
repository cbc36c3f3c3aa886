"""The torch counter: attention is counted on every device, and nothing is counted short in silence."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from minisora.errors import UserError
from minisora.flops.count_module import count_module
from minisora.flops.count_torch import count_forward, count_step, count_torch
from minisora.flops.passes import Pass

B, H, S, M, D = 2, 4, 10, 6, 8
PRODUCT = 2 * B * H * S * M * D  # FLOPs of one batched product of the attention below


def attention(device: str, *, mask: bool = False) -> Tensor:
    q = torch.randn(B, H, S, D, device=device, requires_grad=True)
    k, v = (torch.randn(B, H, M, D, device=device, requires_grad=True) for _ in range(2))
    attn_mask = torch.ones(B, 1, 1, M, dtype=torch.bool, device=device) if mask else None
    return F.scaled_dot_product_attention(q, k, v, attn_mask=attn_mask).sum()


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("mask", [False, True])
def test_attention_is_two_products_forward_and_five_backward(device: str, mask: bool):
    count = count_step(lambda: attention(device, mask=mask))
    assert count.forward_flops == 2 * PRODUCT
    assert count.backward_flops == 5 * PRODUCT
    assert count.recompute_flops == PRODUCT
    assert count.model_flops == 6 * PRODUCT


def test_unfused_attention_on_cpu_keeps_its_scores():
    with sdpa_kernel(SDPBackend.MATH):
        count = count_step(lambda: attention("cpu"))
    assert (count.forward_flops, count.backward_flops, count.recompute_flops) == (2 * PRODUCT, 4 * PRODUCT, 0)


def test_torch_alone_counts_nothing_here():
    """Why this counter exists. When torch mends it, `FORMULAS` may shrink."""
    with FlopCounterMode(display=False) as stock:
        attention("cpu")
    assert stock.get_total_flops() == 0


def test_the_functional_is_put_back_after_an_error():
    before = F.scaled_dot_product_attention
    with pytest.raises(ZeroDivisionError):
        count_forward(lambda: 1 / 0)
    assert F.scaled_dot_product_attention is before


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(16, 48), nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, 2, 8)).permute(2, 0, 3, 1, 4)
        return x + torch.sin(self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)))


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_checkpointing_adds_one_forward_and_calls_it_recompute(device: str):
    with torch.device(device):
        block, x = Block(), torch.randn(2, 5, 16, requires_grad=True)
    plain = count_step(lambda: block(x).sum())
    twice = count_step(lambda: checkpoint(block, x, use_reentrant=False).sum())
    assert twice.forward_flops == plain.forward_flops
    assert twice.train_flops == plain.train_flops + plain.forward_flops
    assert twice.model_flops == plain.model_flops


def test_frozen_input_costs_two_forwards():
    layer, x = nn.Linear(8, 4), torch.randn(3, 8)
    assert count_step(lambda: layer(x).sum()).ratio == 2
    assert count_step(lambda: layer(x.requires_grad_()).sum()).ratio == 3


@pytest.mark.parametrize("transposed", [False, True])
def test_grouped_convolution_backward_is_twice_forward(transposed: bool):
    kind = nn.ConvTranspose2d if transposed else nn.Conv2d
    conv, x = kind(8, 8, 3, groups=4), torch.randn(2, 8, 9, 7, requires_grad=True)
    count = count_step(lambda: conv(x).sum())
    places = 9 * 7 if transposed else 7 * 5
    assert count.forward_flops == 2 * 2 * places * 8 * 2 * 9
    assert count.backward_flops == 2 * count.forward_flops


FREE = [
    nn.BatchNorm2d(4),
    nn.LeakyReLU(),
    nn.ELU(),
    nn.Mish(),
    nn.Softplus(),
    nn.Hardswish(),
    nn.Hardtanh(),
    nn.GLU(1),
]


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("module", FREE, ids=lambda module: type(module).__name__)
def test_norms_and_activations_cost_nothing_forward_or_backward(module: nn.Module, device: str):
    x = torch.randn(2, 4, 6, 6, device=device, requires_grad=True)
    count = count_step(lambda: module.to(device)(x).sum())
    assert count.train_flops == 0


def test_native_attention_is_counted_as_its_parts():
    attend, x = nn.MultiheadAttention(16, 4, batch_first=True).eval(), torch.randn(2, 5, 16)
    with torch.no_grad():
        fused = count_forward(lambda: attend(x, x, x, need_weights=False))
    # Gradients switch the fast path off.
    parts = count_forward(lambda: attend(x, x, x, need_weights=False))
    assert fused == parts == 2 * 2 * (4 * 5 * 16**2 + 2 * 5 * 5 * 16)


@pytest.mark.parametrize(
    ("name", "fn"),
    [
        ("cdist", lambda: torch.cdist(torch.randn(3, 4), torch.randn(5, 4))),
        ("fft", lambda: torch.fft.fft(torch.randn(8))),
        ("svd", lambda: torch.linalg.svd(torch.randn(4, 4))),
        ("_sparse_addmm", lambda: torch.sparse.mm(torch.eye(4).to_sparse(), torch.randn(4, 4))),
    ],
)
def test_an_unknown_operator_is_refused_by_name(name: str, fn):
    with torch.no_grad(), pytest.raises(UserError, match=name):
        count_forward(fn)


def test_a_custom_operator_is_refused_by_name():
    @torch.library.custom_op("minisora_test::product", mutates_args=())
    def product(a: Tensor, b: Tensor) -> Tensor:
        return a @ b

    a, b = torch.randn(3, 4), torch.randn(4, 5)
    with pytest.raises(UserError, match=r"minisora_test::product.*formulas=\{'minisora_test::product'"):
        count_forward(lambda: product(a, b))

    # The remedy of the message, followed: MACs from shapes.
    formulas = {"minisora_test::product": lambda a, b: a[0] * a[1] * b[1]}
    assert count_forward(lambda: product(a, b=b), formulas=formulas) == 2 * 3 * 4 * 5
    model = Calls(lambda x, y: product(x, y))
    assert count_module(model, (a, b), formulas=formulas).count.macs == 3 * 4 * 5


class Calls(nn.Module):
    """A module around a function."""

    def __init__(self, fn):
        super().__init__()
        self.fn = fn

    def forward(self, *args: Tensor):
        return self.fn(*args)


def test_the_module_of_an_unknown_operator_is_named():
    model = nn.Sequential(nn.Linear(4, 4), nn.Sequential(Calls(torch.linalg.inv)))
    with pytest.raises(UserError, match=r"aten::linalg_inv_ex \(1x, such as in '1\.0'\)"):
        count_forward(lambda: model(torch.eye(4)))


def test_matrix_vector_products_count():
    a, v = torch.randn(3, 4), torch.randn(4)
    assert count_forward(lambda: a.mv(v)) == 24
    assert count_forward(lambda: torch.dot(v, v)) == 8
    assert count_forward(lambda: torch.addmv(torch.randn(3), a, v)) == 24


def test_module_paths_are_the_models_own():
    model = nn.Sequential(nn.Linear(4, 8), nn.Sequential(nn.Linear(8, 2)))
    count = count_torch(Pass("a pass", model, (torch.randn(3, 4),)))
    assert count.by_module() == {"": 3 * 48, "0": 3 * 32, "1": 3 * 16, "1.0": 3 * 16}
    assert count.own_work() == {"0": 3 * 32, "1.0": 3 * 16}


def test_a_loss_without_gradient_is_refused():
    with pytest.raises(UserError, match="no gradient"):
        count_step(lambda: torch.zeros(()))
