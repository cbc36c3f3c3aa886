"""Models of diffusers as the planner reads them off passes: small ones of every class that can be called."""

from typing import Any

import pytest

from minisora.errors import UserError
from minisora.flops.count_module import CONFIGS, INPUTS, count_diffusers
from minisora.plan.blocks import LTX_DECODER
from minisora.plan.foreign import AGREE, Transformer, diffusers_subject, read_decoder, read_transformer
from minisora.report.cost import forward_macs

SMALL: dict[str, dict[str, Any]] = {
    "CogVideoXTransformer3DModel": {
        "num_attention_heads": 2, "attention_head_dim": 32, "num_layers": 2, "text_embed_dim": 32,
    },
    "LatteTransformer3DModel": {
        **CONFIGS["LatteTransformer3DModel"], "num_attention_heads": 2, "attention_head_dim": 32, "num_layers": 2,
        "cross_attention_dim": 64, "caption_channels": 32,
    },
    "AllegroTransformer3DModel": {
        "num_attention_heads": 2, "attention_head_dim": 24, "num_layers": 2, "cross_attention_dim": 48,
        "caption_channels": 32,
    },
    "CosmosTransformer3DModel": {
        "num_attention_heads": 2, "attention_head_dim": 32, "num_layers": 2, "text_embed_dim": 32,
        "adaln_lora_dim": 8,
    },
    "SkyReelsV2Transformer3DModel": {
        "num_attention_heads": 2, "attention_head_dim": 32, "num_layers": 3, "ffn_dim": 192, "text_dim": 32,
    },
    "LTXVideoTransformer3DModel": {
        "num_attention_heads": 2, "attention_head_dim": 32, "num_layers": 2, "cross_attention_dim": 64,
        "caption_channels": 32,
    },
    "WanTransformer3DModel": {
        "num_attention_heads": 2, "attention_head_dim": 32, "num_layers": 3, "ffn_dim": 192, "text_dim": 32,
    },
    "HunyuanVideoTransformer3DModel": {
        "num_attention_heads": 2, "num_layers": 1, "num_single_layers": 2, "num_refiner_layers": 1,
        "text_embed_dim": 32, "pooled_projection_dim": 32,
    },
    "MochiTransformer3DModel": {
        "num_attention_heads": 2, "attention_head_dim": 32, "num_layers": 2, "pooled_projection_dim": 32,
        "text_embed_dim": 32,
    },
}  # fmt: skip
SHAPES = {
    "CogVideoXTransformer3DModel": (2, 64, "joint", "full", False),
    "LatteTransformer3DModel": (4, 64, "cross", "factorised", False),
    "AllegroTransformer3DModel": (2, 48, "cross", "full", False),
    "CosmosTransformer3DModel": (2, 64, "cross", "full", False),
    "SkyReelsV2Transformer3DModel": (3, 64, "cross", "full", False),
    "LTXVideoTransformer3DModel": (2, 64, "cross", "full", False),
    "WanTransformer3DModel": (3, 64, "cross", "full", False),
    "HunyuanVideoTransformer3DModel": (3, 256, "joint", "full", False),
    "MochiTransformer3DModel": (2, 64, "joint", "full", True),
}


def test_every_class_that_can_be_called_is_tried() -> None:
    assert set(SMALL) == set(INPUTS)


@pytest.mark.parametrize("name", SMALL)
def test_two_small_passes_say_what_any_clip_costs(name: str) -> None:
    read = read_transformer(name, SMALL[name])
    shape = read.shape
    assert (shape.layers, shape.width, shape.text, read.attention, shape.gated_mlp) == SHAPES[name]
    assert read.error <= AGREE
    # Another clip, counted in all ways that there are. Latte knows 16 frames only.
    latents = (16 if name.startswith("Latte") else 11, 20, 24)
    settings = {"config": SMALL[name], "latent_size": list(latents), "text_tokens": INPUTS[name][1]}
    counted = count_diffusers(name, settings).count.macs
    places = float(latents[1] // read.patch[1] * (latents[2] // read.patch[2]))
    told = float(forward_macs(shape, float(latents[0]), places, read.attention).total)
    assert told == pytest.approx(counted, rel=AGREE)


def test_a_decoder_is_seen_as_it_was_measured() -> None:
    # Given an argument, even its default, it is looked at anew.
    decoder, strides, causal, params = read_decoder("AutoencoderKLLTXVideo", {"latent_channels": 128})
    assert (strides, causal) == ((8, 32, 32), True)
    assert params > 1e8
    assert decoder.source != LTX_DECODER.source
    assert decoder.macs_per_pixel == pytest.approx(LTX_DECODER.macs_per_pixel, rel=0.1)
    assert decoder.values == pytest.approx(LTX_DECODER.values, rel=0.1)


def test_a_decoder_with_constants_in_its_module_is_seen_too() -> None:
    settings = {"encoder_block_out_channels": (16, 16, 16, 16), "decode_block_out_channels": (16, 16, 16, 16)}
    _, strides, causal, _ = read_decoder("AutoencoderKLCosmos", {**settings, "num_layers": 1})
    assert (strides, causal) == ((8, 8, 8), True)


@pytest.mark.parametrize(
    ("name", "settings", "vae", "message"),
    [
        ("WanTransformer", {}, None, "did you mean 'WanTransformer3DModel'"),
        ("WanTransformer3DModel", {"num_layer": 2}, None, "did you mean 'num_layers'"),
        ("WanTransformer3DModel", {**SMALL["WanTransformer3DModel"], "num_layers": 0}, None, "no attention"),
        ("WanTransformer3DModel", SMALL["WanTransformer3DModel"], "AutoencoderKLWam", "'AutoencoderKLWan'"),
    ],
)
def test_what_diffusers_has_not_is_one_line(
    name: str, settings: dict[str, Any], vae: str | None, message: str
) -> None:
    with pytest.raises(UserError, match=message) as raised:
        diffusers_subject(name, settings, vae=vae)
    assert "\n" not in str(raised.value)


def test_a_model_by_its_class_is_planned_as_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wan 14B, whose VAE need not be looked at again: its decoder, and its clip's 32,760 tokens."""
    from minisora.plan import foreign
    from minisora.plan.blocks import WAN_DECODER
    from minisora.plan.question import ask, card_named
    from minisora.plan.spending import spend
    from minisora.plan.subject import named

    shape = named("wan 14b").shape
    read = Transformer(shape, 40, "full", (1, 2, 2), 14.3e9)
    monkeypatch.setattr(foreign, "read_transformer", lambda name, config: read)
    monkeypatch.setattr(foreign, "read_decoder", lambda name, settings: (WAN_DECODER, (4, 8, 8), True, 1.3e8))
    subject = diffusers_subject("WanTransformer3DModel")
    assert subject.clip == (81, 480, 832)
    question = ask(subject, card=card_named("h100 sxm"))
    other = ask(named("wan 14b"), card=card_named("h100 sxm"), size=(480, 832))
    found, known = (spend(each.subject, each.inputs(0.3, 0.3, 0.05)) for each in (question, other))
    assert found["tokens"] == known["tokens"] == 32_760
    assert float(found["pass_flops"]) == pytest.approx(float(known["pass_flops"]))
