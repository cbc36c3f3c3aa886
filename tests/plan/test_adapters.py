"""A training of adapters (LoRA) as the planner tells it, against counted steps and what torch keeps."""

from dataclasses import replace
from types import ModuleType
from typing import Any

import diffusers
import pytest
import torch
from torch import Tensor, nn

from minisora.flops.as_written import meta_allowances
from minisora.flops.count_module import INPUTS, build_on_meta
from minisora.flops.count_torch import count_forward, count_step
from minisora.flops.live_memory import training_peak
from minisora.plan.question import ask, card_named
from minisora.plan.spending import adapted_macs, adapter_params, spend
from minisora.report.cost import TransformerShape, forward_macs

RANK = 8


class Adapted(nn.Module):
    """A frozen projection and an adapter beside it."""

    def __init__(self, frozen: nn.Linear, rank: int):
        super().__init__()
        device = frozen.weight.device
        self.frozen = frozen
        self.down = nn.Linear(frozen.in_features, rank, bias=False, device=device)
        self.up = nn.Linear(rank, frozen.out_features, bias=False, device=device)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.frozen(x) + self.up(self.down(x))
        return y


def adapt(model: nn.Module, rank: int) -> int:
    """Freeze it but for adapters of all projections of attention; returns how many weights learn."""
    model.requires_grad_(False)
    for block in [each for each in model.modules() if hasattr(each, "to_q")]:
        for name in ("to_q", "to_k", "to_v"):
            setattr(block, name, Adapted(getattr(block, name), rank))
        out: Any = block.to_out
        out[0] = Adapted(out[0], rank)
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


CASES: dict[str, tuple[dict[str, Any], TransformerShape]] = {
    "WanTransformer3DModel": (
        {"num_attention_heads": 2, "attention_head_dim": 32, "num_layers": 2, "ffn_dim": 192, "text_dim": 32},
        TransformerShape(
            2.0, 64.0, 192.0, text="cross", text_tokens=24.0, modulation=False, patch_values=64.0
        ),
    ),
    "CogVideoXTransformer3DModel": (
        {
            "num_attention_heads": 2,
            "attention_head_dim": 32,
            "num_layers": 3,
            "text_embed_dim": 32,
            "max_text_seq_length": 24,
        },
        TransformerShape(
            3.0, 64.0, 256.0, text="joint", text_tokens=24.0, modulation=False, patch_values=64.0
        ),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_step_of_adapters_costs_what_is_counted(name: str) -> None:
    settings, shape = CASES[name]
    latents, tokens = (5, 8, 8), 5.0 * 16
    model = build_on_meta(getattr(diffusers, name), settings)
    inputs = INPUTS[name][2](model.config, latents, 24)
    with meta_allowances(), torch.no_grad():
        forward = count_forward(lambda: model(**inputs)) // 2
    # What embeds noise level and prompt learns nothing.
    shape = replace(shape, once=forward - float(forward_macs(shape, 5.0, 16.0).total))
    assert abs(shape.once) < 0.1 * forward
    learn = adapt(model.train(), RANK)
    assert float(adapter_params(shape, RANK)) == learn
    with meta_allowances():
        counted = count_step(lambda: model(**inputs, return_dict=False)[0].square().mean())
    told = 2 * float(adapted_macs(shape, forward_macs(shape, 5.0, 16.0), float(RANK), tokens))
    assert told == pytest.approx(counted.model_flops, rel=0.005)


@pytest.mark.parametrize("number", [7, 12, 15])
def test_a_step_of_adapters_keeps_what_is_told(plan_memory: ModuleType, number: int) -> None:
    """Wan's blocks, CogVideoX's and LTX's."""
    case = plan_memory.CASES[number]
    model, loss = plan_memory.build(case)
    params = sum(p.numel() for p in model.parameters())
    adapt(model, RANK)
    measured = training_peak(model, loss)
    question = ask(
        plan_memory.subject_of(case, params),
        card=card_named("h100 sxm"),
        precision="float32",
        batch=case.batch,
        train=True,
        rank=RANK,
    )
    numbers = spend(question.subject, question.inputs(1.0, 1.0, 0.0))
    told = float(numbers["train_memory"] - numbers["train_average"])
    assert told == pytest.approx(measured, rel=0.15)


def test_adapters_of_a_whole_model_take_less_of_all() -> None:
    from minisora.plan.subject import named

    card = card_named("h100 sxm")
    whole, some = (
        {name: float(value) for name, value in spend(each.subject, each.inputs(0.3, 0.3, 0.05)).items()}
        for each in (ask(named("wan 14b"), card=card, train=True, rank=rank) for rank in (0, 32))
    )
    for name in ("train_flops", "train_weights", "train_activations", "train_moments", "train_step_seconds"):
        assert some[name] < whole[name]
    # Two matrices of 32 x 5,120 for each of 8 projections of 40 blocks.
    assert some["train_gradients"] == 4 * 40 * 8 * 2 * 32 * 5120
