"""The DiT: zero at birth, any size, full and factorised attention, per-frame noise, checkpointing."""

import os
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from minisora.errors import UserError
from minisora.models.build import selective_checkpoint
from minisora.models.clip_grid import check_clip, token_grid
from minisora.models.dit import VideoDiT, attend
from minisora.models.patchify import patchify, unpatchify
from minisora.models.positions import rotary_table, rotate


def make(seed: int = 0, filled: bool = True, **kwargs: object) -> VideoDiT:
    """A tiny DiT; `filled` replaces the zero-initialised layers, so that everything matters."""
    torch.manual_seed(seed)
    settings: dict = {"in_channels": 4, "width": 48, "depth": 2, "heads": 2, "text_width": 16} | kwargs
    model = VideoDiT(**settings).eval()
    if filled:
        for parameter in model.parameters():
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.1)
    return model


def inputs(frames: int = 3, height: int = 4, width: int = 6, tokens: int = 5) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(1)
    return {
        "latents": torch.randn(2, 4, frames, height, width, generator=g),
        "sigma": torch.rand(2, generator=g),
        "text": torch.randn(2, tokens, 16, generator=g),
        "text_mask": torch.ones(2, tokens, dtype=torch.bool),
        "pooled": torch.randn(2, 16, generator=g),
    }


@pytest.mark.parametrize("attention", ["full", "factorised"])
@pytest.mark.parametrize("modulation", ["per_block", "shared"])
def test_a_fresh_model_outputs_exactly_zero(attention: str, modulation: str) -> None:
    model = make(filled=False, attention=attention, modulation=modulation)
    assert torch.equal(model(**inputs()), torch.zeros(2, 4, 3, 4, 6))


@pytest.mark.parametrize("attention", ["full", "factorised"])
@pytest.mark.parametrize("size", [(1, 2, 2), (1, 8, 4), (5, 4, 4), (2, 6, 10)])
def test_one_model_takes_any_size(attention: str, size: tuple[int, int, int]) -> None:
    model = make(attention=attention)
    assert model(**inputs(*size)).shape == (2, 4, *size)


@pytest.mark.parametrize("attention", ["full", "factorised"])
def test_dropout_drops_in_training_only_and_is_no_part_of_the_model(attention: str) -> None:
    plain, model = make(attention=attention), make(attention=attention)
    model.set_dropout(0.5)
    assert model.state_dict().keys() == plain.state_dict().keys()
    assert model.config == plain.config
    out = plain(**inputs())
    assert torch.equal(model(**inputs()), out)
    assert torch.equal(plain.train()(**inputs()), out)
    model.train()
    torch.manual_seed(0)
    dropped = model(**inputs())
    assert not torch.equal(dropped, out)
    torch.manual_seed(0)
    assert torch.equal(model(**inputs()), dropped)


def test_dropout_drops_the_same_where_activations_are_computed_again() -> None:
    gradients = []
    for function in (None, "plain", selective_checkpoint):
        model = make().train()
        model.set_dropout(0.5)
        if function is not None:
            model.enable_gradient_checkpointing(None if function == "plain" else function)
        torch.manual_seed(0)
        model(**inputs()).square().mean().backward()
        gradients.append([p.grad for p in model.parameters()])
    for other in gradients[1:]:
        assert all(torch.equal(a, b) for a, b in zip(gradients[0], other, strict=True))


def test_each_branch_and_the_hidden_values_are_dropped() -> None:
    """Without what the branches add, tokens go through a block as they came."""
    block = make().blocks[0].train()
    x, cond = torch.randn(1, 3, 4, 48), torch.randn(1, 1, 48)
    rope = rotary_table((3, 2, 2), 24, 100.0, torch.device("cpu"))
    text, mask = torch.randn(1, 5, 48), torch.ones(1, 5, dtype=torch.bool)
    block.dropout = 1.0
    assert torch.equal(block(x, cond, rope, text, mask), x)
    block.dropout, block.mlp.dropout = 0.0, 1.0
    assert torch.equal(block.mlp(x), block.mlp.down.bias.expand_as(x))


def test_gradients_reach_every_parameter() -> None:
    for settings in ({}, {"attention": "factorised", "modulation": "shared"}):
        model = make(**settings)
        model(**inputs()).square().mean().backward()
        assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_masked_text_tokens_change_nothing() -> None:
    model, given = make(), inputs()
    given["text_mask"][:, 3:] = False
    out = model(**given)
    given["text"] = given["text"].clone()
    given["text"][:, 3:] = 9.0
    torch.testing.assert_close(model(**given), out, atol=1e-4, rtol=1e-4)
    given["text"][:, 0] = 9.0
    assert (model(**given) - out).abs().max() > 1e-3


def test_one_sigma_for_all_frames_equals_the_same_one_per_frame() -> None:
    model, given = make(), inputs()
    out = model(**given)
    given["sigma"] = given["sigma"][:, None].expand(2, 3)
    torch.testing.assert_close(model(**given), out, atol=1e-4, rtol=1e-4)
    given["sigma"] = given["sigma"] * torch.tensor([0.0, 1.0, 1.0])  # a known first frame
    assert (model(**given) - out).abs().max() > 1e-3


def test_factorised_attention_keeps_frames_apart_in_space_blocks() -> None:
    model, given = make(attention="factorised", depth=1), inputs()
    out = model(**given)
    given["latents"] = given["latents"].clone()
    given["latents"][:, :, 2] += 1
    changed = model(**given)
    torch.testing.assert_close(changed[:, :, :2], out[:, :, :2], atol=1e-4, rtol=1e-4)
    assert (changed[:, :, 2] - out[:, :, 2]).abs().max() > 1e-3


@pytest.mark.parametrize("how", [None, selective_checkpoint])
def test_checkpointing_changes_memory_not_gradients(how: Callable[..., Tensor] | None) -> None:
    model, given = make().train(), inputs()
    model(**given).square().mean().backward()
    plain = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    model.enable_gradient_checkpointing(how)
    model(**given).square().mean().backward()
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.grad, plain[name], atol=1e-4, rtol=1e-4)


def test_attention_depends_on_distance_not_place() -> None:
    g = torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 1, 1, 1, 24, generator=g)
    table = rotary_table((4, 5, 6), 24, 100.0, torch.device("cpu"))

    def score(a: tuple[int, int, int], b: tuple[int, int, int]) -> float:
        def at(x: Tensor, place: tuple[int, int, int]) -> Tensor:
            token = (place[0] * 5 + place[1]) * 6 + place[2]
            return rotate(x, table[:, token : token + 1])

        return float((at(q, a) * at(k, b)).sum())

    assert score((0, 0, 0), (1, 2, 3)) == pytest.approx(score((2, 1, 2), (3, 3, 5)), abs=1e-4)
    assert abs(score((0, 0, 0), (1, 2, 3)) - score((0, 0, 0), (1, 2, 2))) > 1e-3


def test_patchify_round_trip_and_token_order() -> None:
    latents = torch.arange(2 * 3 * 4 * 4 * 6.0).view(2, 3, 4, 4, 6)
    tokens = patchify(latents, (2, 2, 3))
    assert tokens.shape == (2, 2, 4, 36)
    assert torch.equal(unpatchify(tokens, (2, 2, 3), (2, 2, 2)), latents)
    assert torch.equal(tokens[0, 0, 1], latents[0, :, :2, :2, 3:].flatten())


def test_bad_settings_say_what_to_do() -> None:
    with pytest.raises(UserError, match="width = 50 is not a multiple of heads = 4"):
        VideoDiT(width=50, heads=4)
    with pytest.raises(UserError, match="even and at least 6"):
        VideoDiT(width=16, heads=4)
    with pytest.raises(UserError, match="height = 5 is not a multiple of the patch 2: make it 4 or 6"):
        token_grid((3, 5, 4), (1, 2, 2))
    with pytest.raises(UserError, match="pass text, text_mask and pooled"):
        make()(torch.zeros(1, 4, 1, 2, 2), torch.zeros(1))
    with pytest.raises(UserError, match="height 72 does not fit the spatial stride 16: use 64 or 80"):
        check_clip(17, 72, 64, temporal_factor=4, spatial_factor=8, patch=(1, 2, 2))
    with pytest.raises(UserError, match="9 frames do not fit .* use 5 or 13"):
        check_clip(9, 64, 64, temporal_factor=4, spatial_factor=8, patch=(2, 2, 2))


def test_a_saved_model_gives_the_same_output(tmp_path) -> None:
    model, given = make(attention="factorised"), inputs()
    model.save_pretrained(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "config.json",
        "diffusion_pytorch_model.safetensors",
    ]
    torch.testing.assert_close(VideoDiT.from_pretrained(tmp_path).eval()(**given), model(**given))


@pytest.mark.parametrize("masked", [False, True])
def test_products_written_out_give_the_fused_kernels_result_and_gradients(masked: bool) -> None:
    torch.manual_seed(0)
    inputs = torch.randn(3, 2, 4, 20, 32)
    mask = torch.rand(2, 1, 1, 20) < 0.7 if masked else None
    if mask is not None:
        mask[..., 0] = True
    exact = [t.clone().requires_grad_() for t in inputs]
    rounded = [t.bfloat16().requires_grad_() for t in inputs]
    expected = scaled_dot_product_attention(*exact, attn_mask=mask)
    got = attend(*rounded, mask)
    assert (got.float() - expected).abs().max() < 0.05
    expected.sum().backward()
    got.float().sum().backward()
    for mine, right in zip(rounded, exact, strict=True):
        assert mine.grad is not None
        assert right.grad is not None
        assert (mine.grad.float() - right.grad).abs().max() < 0.05


def test_all_but_training_on_short_bfloat16_rows_goes_to_the_fused_kernel(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[tuple[torch.dtype, int]] = []

    def fused(q: torch.Tensor, *others: object, **options: object) -> torch.Tensor:
        asked.append((q.dtype, q.shape[-2]))
        return q

    monkeypatch.setattr("torch.nn.functional.scaled_dot_product_attention", fused)
    attend(*torch.randn(3, 1, 1, 8, 4, requires_grad=True))
    attend(*torch.randn(3, 1, 1, 9, 4).bfloat16())
    learning = torch.randn(3, 1, 1, 10, 4).bfloat16().requires_grad_()
    attend(*learning)
    with torch.no_grad():
        attend(*learning)
    attend(*torch.randn(3, 1, 1, 1025, 4).bfloat16().requires_grad_())
    assert asked == [
        (torch.float32, 8),
        (torch.bfloat16, 9),
        (torch.bfloat16, 10),
        (torch.bfloat16, 1025),
    ]


@pytest.mark.parametrize("capability", ["default", "avx2"])
def test_bfloat16_is_attended_to_with_the_kernels_held_to_older_cpus(capability: str) -> None:
    code = (
        "import torch\n"
        "from minisora.models.dit import attend\n"
        "torch.manual_seed(0)\n"
        "q, k, v = torch.randn(3, 1, 2, 80, 32)\n"
        "expected = torch.nn.functional.scaled_dot_product_attention(q, k, v)\n"
        "with torch.no_grad():\n"
        "    found = attend(q.bfloat16(), k.bfloat16(), v.bfloat16())\n"
        "assert found.dtype == torch.bfloat16\n"
        "assert (found - expected).abs().max() < 0.05\n"
    )
    env = {**os.environ, "ATEN_CPU_CAPABILITY": capability}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
