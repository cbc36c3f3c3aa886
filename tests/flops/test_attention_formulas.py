"""Every attention operator that torch has, in its own layout, against the two and five products written out."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from minisora.errors import UserError
from minisora.flops.attention_formulas import (
    HEADS_FIRST,
    LAYOUTS,
    attention_flops,
    attention_size,
    is_backward,
)
from minisora.flops.count_torch import FORMULAS, count_forward, count_step, is_free

aten = torch.ops.aten
# Attention that torch decomposes into operators of `LAYOUTS` or into plain products before it is counted.
COMPOSITE = frozenset({"aten::scaled_dot_product_attention", "aten::_scaled_dot_product_attention_math"})
# batch, query heads, heads of keys and values, queries, keys, channels of queries and keys, of values
CASES = [(2, 4, 4, 10, 10, 8, 8), (2, 4, 4, 10, 6, 8, 8), (2, 6, 2, 10, 6, 8, 8), (3, 6, 3, 5, 7, 8, 16)]
Case = tuple[int, int, int, int, int, int, int]


def attention_operators() -> set[str]:
    names = {name.partition(".")[0] for name in torch._C._dispatch_get_all_op_names()}
    return {name for name in names if name.startswith("aten::") and "attention" in name}


def test_every_attention_operator_of_torch_has_a_formula():
    """Fails when a newer torch has one more; a user then gets the line of an operator without a formula."""
    assert attention_operators() - set(LAYOUTS) - COMPOSITE - set(FORMULAS) == set()


def test_no_attention_operator_counts_as_free():
    for name in attention_operators():
        assert not is_free(getattr(aten, name.removeprefix("aten::")))


def written_out(case: Case) -> tuple[int, int]:
    """FLOPs of attention forward and of its gradients with the scores made again, by torch, from plain products."""
    b, h, _, m, n, k, v = case
    query, key, value = (torch.empty(b, h, *s, device="meta") for s in ((m, k), (n, k), (n, v)))
    grad, scores = torch.empty(b, h, m, v, device="meta"), torch.empty(b, h, m, n, device="meta")
    with FlopCounterMode(display=False) as forward:
        (query @ key.mT) @ value
    with FlopCounterMode(display=False) as backward:
        query @ key.mT, grad @ value.mT, scores.mT @ grad, scores @ key, scores.mT @ query
    return forward.get_total_flops(), backward.get_total_flops()


def tensors(case: Case, layout: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradient of the output, query, key and value on meta."""
    b, h, hk, m, n, k, v = case
    heads_first = [
        torch.empty(s, device="meta") for s in ((b, h, m, v), (b, h, m, k), (b, hk, n, k), (b, hk, n, v))
    ]
    if layout == HEADS_FIRST:
        return tuple(heads_first)
    return tuple(t.transpose(1, 2) for t in heads_first)


@pytest.mark.parametrize("case", CASES, ids=["self", "cross", "grouped", "other values"])
@pytest.mark.parametrize("operator", sorted(name for name in LAYOUTS if "varlen" not in name))
def test_against_products_written_out(operator: str, case: Case):
    if operator.startswith("aten::") and operator not in attention_operators():
        pytest.skip(f"torch {torch.__version__} has no {operator}")
    grad, *qkv = tensors(case, LAYOUTS[operator])
    forward, backward = written_out(case)
    if not is_backward(operator):
        first = [grad] if "inplace" in operator else []
        assert attention_flops(operator, [*first, *qkv]) == forward
    else:
        args = qkv if operator.startswith("higher_order::") else [grad, *qkv]
        assert attention_flops(operator, args) == backward
        size = attention_size(operator, args)
        assert size.recompute_flops * (size.channels + size.value_channels) == forward * size.channels


@pytest.mark.parametrize("case", CASES, ids=["self", "cross", "grouped", "other values"])
@pytest.mark.parametrize("operator", sorted(name for name in LAYOUTS if "varlen" in name))
def test_packed_against_products_written_out(operator: str, case: Case):
    b, h, hk, m, n, k, v = case
    forward, backward = written_out(case)
    query, key, value = torch.empty(b * m, h, k), torch.empty(b * n, hk, k), torch.empty(b * n, hk, v)
    out = torch.empty(b * m, h, v)
    offsets = {"cu_seq_q": torch.arange(b + 1) * m, "cu_seq_k": torch.arange(b + 1) * n}
    given = {"out": out, "grad_out": out, "query": query, "key": key, "value": value, **offsets}
    assert attention_flops(operator, [], given) == (backward if is_backward(operator) else forward)


PACKED = [
    ("aten::_flash_attention_forward", "cum_seq"),
    ("aten::_flash_attention_backward", "cum_seq"),
    ("aten::_cudnn_attention_forward", "cum_seq"),
    ("aten::_cudnn_attention_backward", "cum_seq"),
    ("aten::_efficient_attention_forward", "cu_seqlens"),
    ("aten::_efficient_attention_backward", "cu_seqlens"),
]


@pytest.mark.parametrize(("operator", "offsets"), PACKED)
def test_packed_sequences_are_counted_one_by_one(operator: str, offsets: str):
    lengths = [(3, 5), (7, 2), (1, 4)]
    h, hk, k = 4, 2, 8
    sums = [written_out((1, h, hk, m, n, k, k)) for m, n in lengths]
    forward, backward = (sum(part) for part in zip(*sums, strict=True))
    batch = (1,) if "efficient" in operator else ()
    query, key = torch.empty(*batch, 11, h, k), torch.empty(*batch, 11, hk, k)
    given = {
        "query": query,
        "key": key,
        "value": key,
        f"{offsets}_q": torch.tensor([0, 3, 10, 11]),
        f"{offsets}_k": torch.tensor([0, 5, 7, 11]),
    }
    assert attention_flops(operator, [], given) == (backward if is_backward(operator) else forward)
    # the offsets' values are what counts, so without them there is no count
    given[f"{offsets}_q"] = given[f"{offsets}_q"].to("meta")
    with pytest.raises(UserError, match=f"{operator} takes the lengths.*count_forward"):
        attention_flops(operator, [], given)


def test_efficient_attention_as_a_user_calls_it():
    q = torch.randn(2, 1024, 16, 64, device="meta")
    call = aten._efficient_attention_forward
    flops = count_forward(lambda: call(q, q, q, None, None, None, None, None, 0.0, 0, False))
    assert flops == 4 * 2 * 16 * 1024 * 1024 * 64 == 8_589_934_592
    with FlopCounterMode(display=False) as stock:
        call(q, q, q, None, None, None, None, None, 0.0, 0, False)
    # Why there is a formula of ours: torch takes queries for heads.
    assert stock.get_total_flops() == 134_217_728


@pytest.mark.parametrize(
    "name",
    ["_efficient_attention_forward", "_flash_attention_forward", "_scaled_dot_product_flash_attention"],
)
def test_the_layout_is_the_one_that_torch_s_kernel_has(name: str):
    """The log of the scores' sums is (batch, heads, queries), whatever the layout of the tensors."""
    b, h, m, k = 2, 3, 32, 8
    _, q, _, _ = tensors((b, h, h, m, m, k, k), LAYOUTS[f"aten::{name}"])
    more = {
        "_efficient_attention_forward": (None, None, None, None, None, 0.0, 0, True),
        "_flash_attention_forward": (None, None, m, m, 0.0, False, False),
        "_scaled_dot_product_flash_attention": (),
    }[name]
    assert getattr(aten, name)(q, q, q, *more)[1].shape == (b, h, m)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_grouped_queries_forward_and_backward(device: str):
    b, h, hk, m, n, k = 2, 6, 2, 10, 12, 8
    query = torch.randn(b, h, m, k, device=device, requires_grad=True)
    key, value = (torch.randn(b, hk, n, k, device=device, requires_grad=True) for _ in range(2))
    step = count_step(lambda: F.scaled_dot_product_attention(query, key, value, enable_gqa=True).sum())
    forward, _ = written_out((b, h, hk, m, n, k, k))
    assert step.forward_flops == forward
    # without what a fused kernel makes again, two products of gradients for one of the forward pass
    assert step.model_flops == 3 * forward
