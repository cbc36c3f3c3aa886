"""What hides its operators (compilation, fast paths, control flow as operators, scripts) is counted as it is written,
or refused in one line; and nothing stays changed."""

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo import eval_frame
from torch._higher_order_ops import scan, while_loop
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from minisora.errors import UserError
from minisora.flops.as_written import as_written
from minisora.flops.count_module import count_module
from minisora.flops.count_torch import count_forward, count_step


class Calls(nn.Module):
    """A module around a function."""

    def __init__(self, fn):
        super().__init__()
        self.fn = fn

    def forward(self, *args: Tensor):
        return self.fn(*args)


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 8))


X = torch.randn(4, 8)
MLP_MACS = 2 * 4 * 8 * 8


def macs(model: nn.Module, *args: Tensor, **kwargs) -> int:
    return count_module(model, args, kwargs).count.macs


def test_a_compiled_module():
    assert macs(torch.compile(mlp()), X) == MLP_MACS
    compiled = torch.compile(mlp())
    assert count_forward(lambda: compiled(X)) == 2 * MLP_MACS


def test_a_compiled_part_is_named_as_the_part_it_was():
    part = torch.compile(mlp())
    model = nn.Sequential(part, nn.Identity())
    count = count_module(model, (X,)).count
    assert count.fvcore.by_module() == {"": 512, "0": 512, "0.0": 256, "0.2": 256}
    assert model[0] is part


def test_a_module_compiled_in_place():
    model = mlp()
    model.compile()
    call = model._compiled_call_impl
    assert macs(model, X) == MLP_MACS
    assert model._compiled_call_impl is call


# Older versions refuse a compiled function inside a trace, whatever is set; a compiled module is no such thing.
refused_in_a_trace = not hasattr(eval_frame, "_use_eager_on_nested_compile")
needs_nesting = pytest.mark.skipif(
    refused_in_a_trace, reason=f"torch {torch.__version__} refuses a compiled function inside a trace"
)


@pytest.mark.skipif(not refused_in_a_trace, reason="this torch runs a compiled function inside a trace")
def test_a_compiled_function_is_one_line_where_torch_refuses_it():
    with pytest.raises(UserError, match=r"cannot follow Calls .*by torch alone with .*count_forward"):
        macs(Calls(torch.compile(lambda x: x @ x.T)), X)


@needs_nesting
def test_compiled_functions():
    product = torch.compile(lambda x: x @ x.T)
    assert macs(Calls(product), X) == 4 * 4 * 8
    assert macs(Calls(lambda x: torch.compile(lambda y: y @ y.T)(x)), X) == 4 * 4 * 8


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("padded", [False, True])
def test_a_transformer_encoder_in_eval(device: str, padded: bool):
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    model = nn.TransformerEncoder(layer, 2).eval().to(device)
    mask = {"src_key_padding_mask": torch.arange(5, device=device).expand(3, 5) > 3} if padded else {}
    assert macs(model, torch.randn(3, 5, 16, device=device), **mask) == 66_240
    assert torch.backends.mha.get_fastpath_enabled()


def test_the_fused_layer_called_by_its_own_operator():
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True).eval()
    attend, x = layer.self_attn, torch.randn(3, 5, 16)
    tensors = [attend.in_proj_weight, attend.in_proj_bias, attend.out_proj.weight, attend.out_proj.bias]
    norms = [layer.norm1.weight, layer.norm1.bias, layer.norm2.weight, layer.norm2.bias]
    mlp_ = [layer.linear1.weight, layer.linear1.bias, layer.linear2.weight, layer.linear2.bias]
    call = torch.ops.aten._transformer_encoder_layer_fwd
    with torch.no_grad():
        flops = count_forward(lambda: call(x, 16, 2, *tensors, False, False, 1e-5, *norms, *mlp_))
    assert flops == 66_240


FLEX_MACS = 2 * 4 * 128 * 128 * 16


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_flex_attention(device: str):
    q = torch.randn(1, 4, 128, 16, device=device)
    assert macs(Calls(lambda q: flex_attention(q, q, q)), q) == FLEX_MACS


@needs_nesting
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_flex_attention_compiled(device: str):
    q = torch.randn(1, 4, 128, 16, device=device)
    compiled = torch.compile(flex_attention)
    assert macs(Calls(lambda q: compiled(q, q, q)), q) == FLEX_MACS


def test_flex_attention_with_a_mask_is_counted_whole():
    def forward(q: Tensor, k: Tensor) -> Tensor:
        mask = create_block_mask(lambda b, h, i, j: i >= j, None, None, 128, 128, device="cpu")
        twice = lambda score, *place: 2 * score  # noqa: E731
        return flex_attention(q, k, k, score_mod=twice, block_mask=mask, enable_gqa=True)

    q, k = torch.randn(1, 4, 128, 16), torch.randn(1, 2, 128, 16)
    assert macs(Calls(forward), q, k) == FLEX_MACS


def test_flex_attention_backward_is_five_products():
    q, k = (torch.randn(1, h, 128, 16, requires_grad=True) for h in (4, 2))
    step = count_step(lambda: flex_attention(q, k, k, enable_gqa=True).sum())
    assert (step.forward_flops, step.backward_flops) == (2 * FLEX_MACS, 5 * FLEX_MACS)
    assert step.recompute_flops == FLEX_MACS


def branches(x: Tensor) -> Tensor:
    return torch.cond(x.sum() > 0, lambda x: x @ x, lambda x: x @ x @ x, (x,))


def loop(x: Tensor) -> Tensor:
    start = torch.zeros((), dtype=torch.long, device=x.device)
    return while_loop(lambda i, x: i < 3, lambda i, x: (i + 1, x @ x), (start, x))[1]


def test_control_flow_is_counted_as_it_runs_on_these_values():
    one = torch.ones(6, 6)
    assert macs(Calls(branches), one) == 6**3
    assert macs(Calls(branches), -one) == 2 * 6**3
    assert macs(Calls(loop), one) == 3 * 6**3
    step = count_step(lambda: branches(one.clone().requires_grad_()).sum())
    assert (step.forward_flops, step.backward_flops) == (2 * 6**3, 4 * 6**3)


@pytest.mark.parametrize(("fn", "name"), [(branches, "torch.cond"), (loop, "while_loop")])
def test_control_flow_without_values_is_refused(fn, name: str):
    with pytest.raises(UserError, match=f"{name} decides by a tensor's value.*count on real tensors"):
        macs(Calls(fn), torch.ones(6, 6, device="meta"))


def test_other_control_flow_is_refused_by_name():
    def forward(x: Tensor) -> Tensor:
        return scan(lambda carry, row: (carry @ carry, row.clone()), x, x)[0]

    with pytest.raises(UserError, match="higher_order::scan.*plain Python"):
        macs(Calls(forward), torch.ones(6, 6))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_torchscript_is_refused_before_the_trace_and_counted_by_torch():
    scripted = torch.jit.script(mlp())
    with pytest.raises(UserError, match="the model is TorchScript.*given to torch.jit"):
        macs(scripted, X)
    with pytest.raises(UserError, match="'0' of Sequential is TorchScript"):
        macs(nn.Sequential(torch.jit.trace(mlp(), X)), X)
    assert count_forward(lambda: scripted(X)) == 2 * MLP_MACS


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_quantized_model_is_sent_back_to_what_it_was():
    quantized = torch.ao.quantization.quantize_dynamic(mlp(), {nn.Linear})
    with pytest.raises(UserError, match=r"quantized::linear_dynamic.*'0'.*before it is quantized"):
        macs(quantized, X)


def test_a_nested_tensor_is_one_line():
    x = torch.nested.nested_tensor([torch.randn(2, 3), torch.randn(4, 3)], layout=torch.jagged)
    with pytest.raises(UserError, match="on dense tensors") as raised:
        macs(nn.Linear(3, 5), x)
    assert "\n" not in str(raised.value)


def test_an_error_of_the_models_own_comes_through_as_it_is():
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        macs(mlp(), torch.randn(4, 7))


def test_everything_is_put_back_after_an_error():
    operator, compile_ = torch._ops.HigherOrderOperator.__call__, torch.compile
    with as_written():
        assert not torch.backends.mha.get_fastpath_enabled()
    with pytest.raises(ZeroDivisionError):
        count_forward(lambda: 1 / 0)
    assert torch.backends.mha.get_fastpath_enabled()
    assert torch._ops.HigherOrderOperator.__call__ is operator
    assert torch.compile is compile_
    assert torch._dynamo.eval_frame._stance.stance == "default"
