import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minisora.config import load
from minisora.flops.count_closed_form import count_closed_form, dit_terms
from minisora.report.cost import TransformerShape, attention_keys, forward_macs

REPORT = TransformerShape(42, 5120, 20480)


@settings(max_examples=60, deadline=None)
@given(
    width=st.sampled_from([64, 128, 384]),
    depth=st.integers(1, 5),
    frames=st.integers(1, 6),
    side=st.sampled_from([2, 4, 8]),
    attention=st.sampled_from(["full", "factorised"]),
)
def test_the_estimate_costs_a_model_as_the_instrument_counts_it(
    width: int, depth: int, frames: int, side: int, attention: str
) -> None:
    config = load(
        None,
        [f"dit.width={width}", f"dit.depth={depth * 2}", "dit.heads=2", f"dit.attention={attention}",
         "dit.text_conditioning=false", "dit.patch=[1,2,2]", "vae.latent_channels=4"],
    )  # fmt: skip
    terms = dit_terms(config, (frames, 2 * side, 2 * side), text_width=None, text_tokens=0)
    groups = count_closed_form(terms).by_operator()
    shape = TransformerShape(depth * 2, width, 4 * width, patch_values=16)
    cost = forward_macs(shape, frames, side * side, attention)  # type: ignore[arg-type]
    assert cost.attention == groups["attention_quadratic"]
    assert (
        cost.linear
        == groups["attention_linear"] + groups["mlp"] + groups["head"] + frames * side**2 * 16 * width
    )
    assert cost.per_sample == groups["modulation"] - 2 * width**2  # the head's modulation is left out


def test_dit_xl_at_512_is_the_published_figure() -> None:
    assert forward_macs(TransformerShape(28, 1152, 4608, patch_values=24), 1, 1024).total == pytest.approx(
        524.6e9, rel=2e-4
    )


def test_attention_overtakes_the_rest_at_six_widths() -> None:
    cost = forward_macs(REPORT, 1, 6 * 5120)
    assert cost.attention == pytest.approx(cost.linear)


def test_the_reports_clip_by_every_kind_of_attention() -> None:
    rule = 524.6e9 * 30 * 180
    found = {
        kind: forward_macs(REPORT, 180, 1024, kind).total / rule for kind in ("full", "factorised", "divided")
    }
    assert found == pytest.approx({"full": 6.02, "factorised": 0.876, "divided": 1.18}, rel=2e-3)


def test_text_and_gates_and_shared_heads_cost_what_they_should() -> None:
    plain = TransformerShape(1, 8, 32, modulation=False)
    base = forward_macs(plain, 1, 10).linear
    assert base == 10 * (4 * 64 + 2 * 32 * 8)
    assert (
        forward_macs(TransformerShape(1, 8, 32, gated_mlp=True, modulation=False), 1, 10).linear - base
        == 10 * 256
    )
    assert (
        base - forward_macs(TransformerShape(1, 8, 32, kv_share=0.5, modulation=False), 1, 10).linear
        == 10 * 64
    )
    cross = forward_macs(TransformerShape(1, 8, 32, text="cross", text_tokens=3, modulation=False), 1, 10)
    assert cross.linear - base == 2 * 10 * 64 + 2 * 3 * 64
    assert cross.attention == 2 * 10 * 10 * 8 + 2 * 10 * 3 * 8
    joint = forward_macs(TransformerShape(1, 8, 32, text="joint", text_tokens=3, modulation=False), 1, 10)
    assert joint.attention == 2 * 13 * 13 * 8
    assert attention_keys("divided", 5, 7) == 12


def test_arrays_cost_as_their_entries_do() -> None:
    widths = np.array([64.0, 128.0])
    together = forward_macs(TransformerShape(2, widths, 4 * widths), 3, 16).total
    apart = [forward_macs(TransformerShape(2, w, 4 * w), 3, 16).total for w in widths]
    assert np.allclose(together, apart)
