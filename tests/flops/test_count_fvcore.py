"""Sabotage: whatever fvcore used to count short is counted right, or refused by name."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minisora.errors import UserError
from minisora.flops.agree import Count
from minisora.flops.count_fvcore import count_fvcore, einsum_macs
from minisora.flops.count_torch import count_forward
from minisora.flops.passes import Pass


class Calls(nn.Module):
    """A module around a function, with whatever submodules it uses."""

    def __init__(self, fn, **modules: nn.Module):
        super().__init__()
        self.fn = fn
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, *args: Tensor):
        return self.fn(self, *args)


def count(model: nn.Module, *args: Any, **kwargs: Any) -> Count:
    return count_fvcore(Pass("a pass", model, args, kwargs))


def both(model: nn.Module, *args: Tensor) -> int:
    """MACs by fvcore, after checking that torch's counter agrees."""
    macs = count(model, *args).total_macs
    with torch.no_grad():
        assert 2 * macs == count_forward(lambda: model(*args))
    return macs


DEVICES = pytest.mark.parametrize("device", ["cpu", "meta"])


@DEVICES
def test_attention(device: str):
    q, k, v = (torch.randn(2, 4, n, 8, device=device) for n in (10, 6, 6))
    model = Calls(lambda self, *qkv: F.scaled_dot_product_attention(*qkv))
    assert both(model, q, k, v) == 2 * 2 * 4 * 10 * 6 * 8


@DEVICES
def test_broadcast_matmul(device: str):
    a, b = torch.randn(4, 8, device=device), torch.randn(10, 8, 5, device=device)
    assert both(Calls(lambda self, x, y: x @ y), a, b) == 1600
    assert both(Calls(lambda self, x, y: x @ y), b.transpose(1, 2), a.T) == 1600
    assert both(Calls(lambda self, x, y: x[0] @ y), a, b) == 400


@DEVICES
@pytest.mark.parametrize("padding", ["same", "valid", 1])
def test_convolution_paddings(device: str, padding):
    with torch.device(device):
        conv, x = nn.Conv2d(6, 8, 3, padding=padding, groups=2), torch.randn(2, 6, 9, 7)
    places = 7 * 5 if padding == "valid" else 9 * 7
    assert both(Calls(lambda self, x: self.conv(x), conv=conv), x) == 2 * places * 8 * 3 * 9


@DEVICES
@pytest.mark.parametrize("kind", [nn.Conv1d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d])
def test_other_convolutions(device: str, kind):
    dims = int(kind.__name__[-2])
    with torch.device(device):
        conv, x = kind(4, 6, 3, stride=2), torch.randn(2, 4, *([7] * dims))
    places = 7 if "Transpose" in kind.__name__ else 3
    assert both(conv, x) == 2 * places**dims * 24 * 3**dims


@DEVICES
def test_a_convolution_called_behind_the_functional_is_not_lost(device: str):
    w, x = torch.randn(8, 4, 3, 3, device=device), torch.randn(1, 4, 9, 9, device=device)
    model = Calls(lambda self, x, w: torch.convolution(x, w, None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1))
    if device == "cpu":
        assert both(model, x, w) == 49 * 8 * 4 * 9
    else:
        with pytest.raises(UserError, match="aten::convolution"):
            count(model, x, w)


@DEVICES
@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("bhsd,bhmd->bhsm", [(2, 3, 5, 4), (2, 3, 6, 4)]),
        ("...ij,...jk->...ik", [(2, 3, 5, 4), (2, 3, 4, 7)]),
        ("i,j->ij", [(3,), (4,)]),
        ("ij,jk", [(3, 4), (4, 5)]),
        ("nhwpqc->nchpwq", [(2, 3, 3, 2, 2, 4)]),
        ("bi,ij,bj->b", [(2, 3), (3, 4), (2, 4)]),
        ("abk,bc->ac", [(2, 3, 4), (3, 5)]),
    ],
)
def test_einsum(device: str, equation: str, shapes):
    both(
        Calls(lambda self, *xs: torch.einsum(equation, *xs)), *(torch.randn(s, device=device) for s in shapes)
    )


def test_einsum_needs_no_memory():
    assert einsum_macs("ij,jk->ik", [[10**6, 10**6], [10**6, 10**6]]) == 10**18


@DEVICES
def test_native_attention_in_eval(device: str):
    with torch.device(device):
        attend, x = nn.MultiheadAttention(16, 4, batch_first=True).eval(), torch.randn(2, 5, 16)
    right = 2 * (4 * 5 * 16**2 + 2 * 5 * 5 * 16)
    model = Calls(lambda self, x: self.attend(x, x, x, need_weights=False)[0], attend=attend).eval()
    assert both(model, x) == right


def test_norms_and_activations_stay_out_of_the_macs():
    model = nn.Sequential(nn.Linear(8, 4), nn.LayerNorm(4), nn.GELU(), nn.RMSNorm(4), nn.SiLU())
    counted = count(model, torch.randn(3, 8))
    assert counted.total_macs == 3 * 8 * 4
    assert counted.elementwise == {
        ("1", "layer_norm"): 60,
        ("2", "gelu"): 48,
        ("3", "rms_norm"): 60,
        ("4", "silu"): 48,
    }


@DEVICES
@pytest.mark.parametrize(
    ("name", "fn"),
    [
        ("aten::cdist", lambda self, x: torch.cdist(x, x)),
        ("aten::fft_fft", lambda self, x: torch.fft.fft(x)),
        ("aten::kron", lambda self, x: torch.kron(x, x)),
    ],
)
def test_an_unknown_operator_is_refused_with_its_module(device: str, name: str, fn):
    inner = Calls(fn)
    model = Calls(lambda self, x: self.inner(x), inner=inner)
    with pytest.raises(UserError, match=rf"{name}.*'inner'"):
        count(model, torch.randn(4, 6, device=device))


# packing reads the lengths, which a meta tensor has not
@pytest.mark.parametrize(("device", "packed"), [("cpu", False), ("cpu", True), ("meta", False)])
@pytest.mark.parametrize(("kind", "gates"), [(nn.LSTM, 4), (nn.GRU, 3), (nn.RNN, 1)])
def test_every_weight_of_a_recurrent_layer_meets_every_token(device: str, kind, gates: int, packed: bool):
    with torch.device(device):
        layer, x = kind(4, 8, 2, bidirectional=True), torch.randn(5, 3, 4)
    # layer 1 takes 4 channels, layer 2 both directions of layer 1
    weights = 2 * gates * 8 * ((4 + 8) + (2 * 8 + 8))

    def run(self, x: Tensor) -> Tensor:
        lengths = torch.tensor([5, 3, 2])
        return self.layer(nn.utils.rnn.pack_padded_sequence(x, lengths) if packed else x)[1]

    assert both(Calls(run, layer=layer), x) == (10 if packed else 15) * weights


@pytest.mark.parametrize(("kind", "gates"), [(nn.LSTMCell, 4), (nn.GRUCell, 3), (nn.RNNCell, 1)])
def test_recurrent_cells(kind, gates: int):
    assert both(kind(4, 8), torch.randn(2, 4)) == 2 * gates * 8 * (4 + 8)


def test_an_lstm_with_projection():
    assert both(nn.LSTM(4, 8, proj_size=3), torch.randn(5, 2, 4)) == 10 * (32 * 4 + 32 * 3 + 3 * 8)


@DEVICES
def test_bilinear_is_its_einsum_from_left_to_right(device: str):
    with torch.device(device):
        layer, a, b = nn.Bilinear(3, 4, 5), torch.randn(2, 7, 3), torch.randn(2, 7, 4)
    with torch.device(device):
        # x1 A for the 14 rows, then its product with x2
        first = both(Calls(lambda self, x, w: x @ w), torch.randn(14, 3), torch.randn(3, 20))
        second = both(Calls(lambda self, x, y: x @ y), torch.randn(14, 5, 4), torch.randn(14, 4, 1))
    assert both(layer, a, b) == first + second == 14 * 5 * 4 * (3 + 1)


@DEVICES
def test_other_products(device: str):
    with torch.device(device):
        a, b = torch.randn(4, 6), torch.randn(3, 2, 6)
        bytes_ = torch.ones(32, 16, dtype=torch.int8), torch.ones(16, 8, dtype=torch.int8)
    assert both(Calls(lambda self, a, b: torch.tensordot(a, b, dims=([1], [-1]))), a, b) == 4 * 6 * 3 * 2
    assert both(Calls(lambda self, a, b: torch._int_mm(a, b)), *bytes_) == 32 * 16 * 8


def test_a_python_autograd_function_is_refused():
    class Product(torch.autograd.Function):
        @staticmethod
        def forward(ctx, a, b):
            return a @ b

    with pytest.raises(UserError, match=r"prim::PythonOp\.Product"):
        count(Calls(lambda self, a, b: Product.apply(a, b)), torch.randn(3, 4), torch.randn(4, 5))


@torch.jit.script
def looped(x: Tensor, times: int) -> Tensor:
    for _ in range(times):
        x = x @ x
    return x


def test_a_scripted_loop_hides_nothing():
    with pytest.raises(UserError, match=r"prim::(Loop|CallFunction)"):
        count(Calls(lambda self, x: looped(x, 3)), torch.randn(4, 4))


def test_nested_arguments_and_outputs():
    def fn(self, x, pair, scale=1.0, extra=None):
        return {"a": self.linear(x * scale), "b": (pair[0] @ pair[1], None)}

    class Model(Calls):
        def forward(self, x, pair, scale=1.0, extra=None):
            return fn(self, x, pair, scale, extra)

    model = Model(fn, linear=nn.Linear(4, 5))
    pair = (torch.randn(2, 3), torch.randn(3, 2))
    counted = count(model, torch.randn(2, 4), pair, scale=2.0)
    assert counted.own == {("linear", "linear"): 40, ("", "matmul"): 12}
    assert counted.by_module() == {"": 52, "linear": 40}


def test_counting_changes_nothing():
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5)).train()
    conv2d, masked_fill = F.conv2d, Tensor.masked_fill
    count(model, torch.randn(2, 4))
    assert model.training
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert F.conv2d is conv2d
    assert Tensor.masked_fill is masked_fill


def test_a_part_in_eval_stays_in_eval():
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5))
    model[1].eval()
    count(model, torch.randn(2, 4))
    assert [m.training for m in model] == [True, False]


def test_what_the_tracer_cannot_follow_is_one_line_and_leaves_no_hooks():
    hidden = torch.randn(3, requires_grad=True)
    model = nn.Sequential(nn.Linear(3, 3), Calls(lambda self, x: x + torch.compile(lambda y: y)(hidden)))
    with pytest.raises(UserError, match="cannot follow Sequential.*count_forward") as raised:
        count(model, torch.randn(2, 3))
    assert "\n" not in str(raised.value)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
