"""Models that are not ours: diffusers' video transformers on meta tensors, and any module."""

import json

import pytest
import torch
from torch import nn

from minisora.errors import UserError
from minisora.flops.count_module import CONFIGS, count_diffusers, count_module


@pytest.mark.slow
def test_cogvideox_2b_at_its_native_clip():
    ledger = count_diffusers("CogVideoXTransformer3DModel")
    counts = ledger.count.agreement.to_dict()
    assert ledger.count.params == pytest.approx(1.69e9, rel=0.01)
    assert counts["closed_form_macs"] == counts["fvcore_macs"] == counts["torch_macs"]
    # the formula of any transformer, without its small parts: 12 S D^2 + 2 S^2 D a layer, S = 17,550 + 226
    s, d = 17_776, 1920
    assert counts["fvcore_macs"] == pytest.approx(30 * (12 * s * d * d + 2 * s * s * d), rel=0.001)
    assert json.loads(json.dumps(ledger.to_dict()))["forward"]["flops"] == 2 * counts["fvcore_macs"]
    assert ledger.table().row_count == 4


def test_latte_xl_shapes_against_the_closed_form():
    ledger = count_diffusers(
        "LatteTransformer3DModel", {"config": {**CONFIGS["LatteTransformer3DModel"], "num_layers": 3}}
    )
    counts = ledger.count.agreement.to_dict()
    assert counts["closed_form_macs"] == counts["fvcore_macs"] == counts["torch_macs"]


SMALL = {
    "WanTransformer3DModel": {
        "config": {
            "num_attention_heads": 2,
            "attention_head_dim": 24,
            "num_layers": 2,
            "ffn_dim": 100,
            "text_dim": 32,
        },
        "latent_size": [3, 8, 8],
        "text_tokens": 7,
    },
    "LTXVideoTransformer3DModel": {
        "config": {
            "num_attention_heads": 2,
            "attention_head_dim": 24,
            "num_layers": 2,
            "cross_attention_dim": 48,
            "caption_channels": 32,
        },
        "latent_size": [2, 4, 4],
    },
    "HunyuanVideoTransformer3DModel": {
        "config": {
            "num_attention_heads": 2,
            "attention_head_dim": 16,
            "num_layers": 1,
            "num_single_layers": 1,
            "num_refiner_layers": 1,
            "text_embed_dim": 16,
            "pooled_projection_dim": 8,
            "rope_axes_dim": [4, 6, 6],
        },
        "latent_size": [2, 4, 4],
        "text_tokens": 9,
    },
    "MochiTransformer3DModel": {
        "config": {
            "num_attention_heads": 2,
            "attention_head_dim": 16,
            "num_layers": 2,
            "pooled_projection_dim": 24,
            "text_embed_dim": 16,
            "time_embed_dim": 16,
        },
        "latent_size": [2, 4, 4],
        "text_tokens": 9,
    },
}


@pytest.mark.parametrize("name", SMALL)
def test_other_video_transformers(name: str):
    ledger = count_diffusers(name, SMALL[name])
    counts = ledger.count.agreement.to_dict()
    assert counts["fvcore_macs"] == counts["torch_macs"] > 0
    assert (counts["closed_form_macs"] is None) == (name != "WanTransformer3DModel")
    assert ledger.count.agreement.max_disagreement == 0
    assert ledger.count.fvcore.by_operator()["scaled_dot_product_attention"] > 0


def test_inputs_by_shape():
    settings = {
        "config": {"num_layers": 1, "num_attention_heads": 2, "attention_head_dim": 8, "sample_size": 8},
        "inputs": {
            "hidden_states": [1, 4, 8, 8],
            "timestep": {"shape": [1], "dtype": "int64"},
            "class_labels": {"shape": [1], "dtype": "int64"},
        },
    }
    ledger = count_diffusers("DiTTransformer2DModel", settings)
    assert ledger.count.agreement.max_disagreement == 0


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("CogVideoTransformer3DModel", {}, "did you mean 'CogVideoXTransformer3DModel'"),
        ("WanTransformer3DModel", {"config": {"layers": 2}}, "no setting 'layers'"),
        ("WanTransformer3DModel", {"latents": [1, 2, 3]}, "unknown key 'latents'"),
        (
            "DiTTransformer2DModel",
            {"config": {"num_layers": 1}},
            "does not run on no inputs.*it takes hidden_states",
        ),
        ("DiTTransformer2DModel", {"inputs": {"timestep": {"dtype": "int64"}}}, "must be"),
    ],
)
def test_bad_settings_get_one_clear_line(name: str, settings: dict, message: str):
    with pytest.raises(UserError, match=message):
        count_diffusers(name, settings)


def test_any_module_counts_two_ways():
    model = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), 2)
    ledger = count_module(model, (torch.randn(3, 5, 16),))
    assert ledger.count.agreement.to_dict()["closed_form_macs"] is None
    assert ledger.count.macs == 2 * 3 * (5 * (4 * 16 * 16 + 2 * 16 * 32) + 2 * 5 * 5 * 16)


def test_a_module_used_twice_is_counted_twice():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(4, 4)
            self.b = self.a

        def forward(self, x):
            return self.b(self.a(x))

    assert count_module(Twice(), (torch.randn(2, 4),)).count.macs == 2 * 2 * 16


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"latent_size": [0.5, 8, 8]}, "whole numbers above 0, not 0.5"),
        ({"latent_size": "8x8"}, "must be .frames, height, width."),
        ({"text_tokens": "many"}, "not 'many'"),
        ({"config": [1]}, "must hold named values"),
    ],
)
def test_settings_of_another_kind_are_named(settings: dict, told: str) -> None:
    with pytest.raises(UserError, match=told):
        count_diffusers("CogVideoXTransformer3DModel", settings)


@torch.library.custom_op("minisora_test::scaled_product", mutates_args=())
def scaled_product(x: torch.Tensor, times: int, weight: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
    return x.repeat(times, 1) @ weight * scale


@scaled_product.register_fake
def _(x: torch.Tensor, times: int, weight: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
    return x.new_empty(times * x.shape[0], weight.shape[1])


def test_a_formula_takes_the_arguments_in_the_operators_own_order_and_with_its_defaults():
    class Scaled(nn.Module):
        def forward(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
            return scaled_product(x, weight=weight, times=3)

    def macs(x: tuple[int, ...], times: int, weight: tuple[int, ...], scale: float) -> int:
        assert scale == 1.0
        return times * x[0] * weight[0] * weight[1]

    inputs = (torch.randn(2, 5), torch.randn(5, 7))
    ledger = count_module(Scaled(), inputs, formulas={"minisora_test::scaled_product": macs})
    assert ledger.count.macs == 3 * 2 * 5 * 7
