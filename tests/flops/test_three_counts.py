"""fvcore, torch and the closed form agree on whatever shape the models take, forward and backward."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minisora.config import Config, load, override
from minisora.errors import UserError
from minisora.flops.count_closed_form import Term, count_closed_form, dit_terms, total, train_macs
from minisora.flops.count_torch import count_training
from minisora.flops.ledger import count_pass
from minisora.flops.passes import Pass, decode_pass, dit_pass, encode_pass, text_pass
from minisora.models.build import build_dit, build_text_encoder, build_vae

QUIET = {
    "deadline": None,
    "database": None,
    "derandomize": True,
    "suppress_health_check": list(HealthCheck),
}


@st.composite
def models(draw: st.DrawFn) -> tuple[Config, tuple[int, int, int], int]:
    """A small random config, a latent size that its patch divides, and a text width."""
    patch = draw(st.tuples(st.sampled_from([1, 2]), st.sampled_from([1, 2, 4]), st.sampled_from([1, 2])))
    heads = draw(st.integers(1, 4))
    conditioning = draw(st.sampled_from(["text", "class", "none"]))
    dit: dict[str, Any] = {
        "patch": patch,
        "width": heads * draw(st.sampled_from([6, 8, 10, 16])),
        "depth": draw(st.integers(1, 2)),
        "heads": heads,
        "mlp_ratio": draw(st.sampled_from([1.0, 2.5, 4.0])),
        "attention": draw(st.sampled_from(["full", "factorised"])),
        "modulation": draw(st.sampled_from(["per_block", "shared"])),
        "qk_norm": draw(st.booleans()),
        "text_conditioning": conditioning == "text",
        "num_classes": 10 if conditioning == "class" else None,
        "learn_sigma": draw(st.booleans()),
        "checkpointing": draw(st.sampled_from([False, True, "selective"])),
    }
    config = Config.model_validate(
        {
            "dit": dit,
            "vae": {"latent_channels": draw(st.integers(1, 5))},
            "text": {"max_tokens": draw(st.integers(1, 12))},
        }
    )
    grid = draw(st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4)))
    latent_size = (grid[0] * patch[0], grid[1] * patch[1], grid[2] * patch[2])
    return config, latent_size, draw(st.integers(1, 24))


def check(model: tuple[Config, tuple[int, int, int], int], device: str, batch: int, *, train: bool) -> None:
    config, latent_size, text_width = model
    with torch.device(device):
        dit = build_dit(config, text_width)
    terms = dit_terms(config, latent_size, text_width=text_width, text_tokens=config.text.max_tokens)
    inputs: dict[str, Any] = {"text_width": text_width, "device": device, "batch": batch}
    part = dit_pass(config, dit, latent_size, text_grad=True, **inputs)
    assert part.terms == terms
    agreement = count_pass(part).agreement
    assert [count.total_macs for count in agreement.counts] == 3 * [batch * total(terms)]
    if not train:
        return
    step = count_training(part)
    closed = train_macs(terms, checkpointing=config.dit.checkpointing is True)
    assert step.forward_flops == 2 * batch * closed.forward
    assert step.train_flops == 2 * batch * closed.train
    assert step.recompute_flops == 2 * batch * closed.recompute


@pytest.mark.slow
@settings(max_examples=100, **QUIET)
@given(models(), st.integers(0, 3))
def test_dit_on_meta_tensors(model, turn):
    check(model, "meta", 1, train=turn == 0)


@settings(max_examples=20, **QUIET)
@given(models(), st.integers(1, 3))
def test_dit_on_cpu_tensors(model, batch):
    check(model, "cpu", batch, train=True)


def assert_exact(part: Pass) -> None:
    first, *others = (count.total_macs for count in count_pass(part).agreement.counts)
    assert others == [first, first]


@st.composite
def vaes(draw: st.DrawFn) -> tuple[Config, tuple[int, int, int]]:
    """A small random VAE and a clip that fits it."""
    pixel_patch = draw(st.sampled_from([1, 2, 4]))
    levels = draw(st.integers(1, 3))
    spatial = pixel_patch * 2 ** (levels - 1)
    if spatial < 4:
        pixel_patch, spatial = 4, 4 * 2 ** (levels - 1)
    vae = {
        "temporal_factor": draw(st.sampled_from([1, 2, 4, 8])),
        "spatial_factor": spatial,
        "latent_channels": draw(st.integers(1, 4)),
        "pixel_patch": pixel_patch,
        "widths": tuple(draw(st.integers(2, 8)) for _ in range(levels)),
        "blocks_per_level": draw(st.integers(1, 2)),
    }
    vae["mixes_frames"] = vae["temporal_factor"] > 1 or draw(st.booleans())
    frames = 1 + vae["temporal_factor"] * draw(st.integers(0, 2))
    return Config.model_validate({"vae": vae}), (frames, spatial * draw(st.integers(1, 3)), spatial)


@settings(max_examples=15, **QUIET)
@given(vaes(), st.sampled_from(["cpu", "meta"]))
def test_vae(model, device):
    config, clip = model
    with torch.device(device):
        vae = build_vae(config)
    latent_size = vae.latent_size(*clip)
    encode = encode_pass(config, vae, clip, device=device)
    assert_exact(encode)
    assert_exact(decode_pass(config, vae, latent_size, device=device))
    step = count_training(encode)
    # The pass gives the mean alone, so the last layer's gradient is of half its outputs at full cost.
    assert step.train_flops == 2 * train_macs(encode.terms, checkpointing=False).train


@pytest.mark.parametrize("name", ["clips", "world", "world_short"])
def test_the_vae_of_a_shipped_config(name: str):
    config = load(name)
    with torch.device("meta"):
        vae = build_vae(config)
    clip = (config.clip.frames, config.clip.height, config.clip.width)
    assert_exact(encode_pass(config, vae, clip, device="meta"))
    assert_exact(decode_pass(config, vae, vae.latent_size(*clip), device="meta"))


@pytest.mark.parametrize("tokens", [1, 8, 24])
def test_text_encoder(tokens: int):
    config = override(Config(), [f"text.max_tokens={tokens}"])
    part = text_pass(config, build_text_encoder(config, ["a red circle"]), device="cpu")
    assert_exact(part)
    assert count_training(part).train_flops == 2 * train_macs(part.terms, checkpointing=False).train


SMALL = Config.model_validate({"dit": {"width": 32, "depth": 2, "heads": 2}})


def small_pass(terms: list[Term]) -> Pass:
    with torch.device("meta"):
        dit = build_dit(SMALL, 16)
    config = override(SMALL, ["text.max_tokens=8"])
    return replace(dit_pass(config, dit, (3, 4, 4), text_width=16), terms=terms)


def small_terms() -> list[Term]:
    return dit_terms(SMALL, (3, 4, 4), text_width=16, text_tokens=8)


def test_a_wrong_closed_form_is_refused_with_the_module_that_differs():
    wrong = [t for t in small_terms() if t.module != "blocks.1.attention"]
    count_pass(small_pass(small_terms()))
    with pytest.raises(
        UserError, match=r"disagree.*'blocks\.1\.attention': fvcore 9,216, torch 9,216, closed form 0"
    ):
        count_pass(small_pass(wrong))


def test_two_wrongs_do_not_make_a_right():
    """Errors that cancel in the total are still found."""
    moved = {"blocks.0.mlp.up": -400, "blocks.0.mlp.down": 400}
    wrong = [Term(t.module, t.group, t.macs + moved.get(t.module, 0) * 100) for t in small_terms()]
    assert total(wrong) == total(small_terms())
    with pytest.raises(UserError, match=r"2 modules differ.*blocks\.0\.mlp"):
        count_pass(small_pass(wrong))


def test_every_linear_layer_has_a_term():
    with torch.device("meta"):
        dit = build_dit(SMALL, 16)
    linear = {path for path, module in dit.named_modules() if isinstance(module, torch.nn.Linear)}
    attention = {f"blocks.{i}.{kind}" for i in range(2) for kind in ("attention", "cross")}
    assert set(count_closed_form(small_terms()).own_work()) == linear | attention


def test_frozen_input_and_input_gradient_move_only_the_first_layers():
    plain = train_macs(small_terms(), checkpointing=False).train
    frozen = dit_terms(SMALL, (3, 4, 4), text_width=16, text_tokens=8, text_grad=False)
    every = dit_terms(SMALL, (3, 4, 4), text_width=16, text_tokens=8, latent_grad=True)
    assert plain - train_macs(frozen, checkpointing=False).train == 8 * 16 * 32 + 16 * 32
    assert train_macs(every, checkpointing=False).train - plain == 12 * 8 * 4 * 32
