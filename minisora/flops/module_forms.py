"""Closed forms of diffusers' video transformers, from their configs: the third count of models not ours.

Letters: N video tokens, M text tokens, S = N + M, D width, E width of the time embedding, p patch side.
"""

from collections.abc import Callable
from typing import Any

from minisora.flops.count_closed_form import Term

Size = tuple[int, int, int]


def cogvideox_terms(config: Any, size: Size, text_tokens: int) -> list[Term]:
    """CogVideoX (Yang et al. 2024, arXiv 2408.06072): text and video in one sequence, full attention.

    A block costs 4 S D^2 + 2 S^2 D for attention, 8 S D^2 for the MLP, and 12 E D for its two modulations
    (shift, scale and gate, for video and text each), which run once per sample.
    """
    d, e = config.num_attention_heads * config.attention_head_dim, config.time_embed_dim
    p, pt = config.patch_size, config.patch_size_t or 1
    n = size[0] // pt * (size[1] // p) * (size[2] // p)
    s, cells = n + text_tokens, p * p * pt
    terms = [
        Term("patch_embed.proj", "embed", n * config.in_channels * cells * d),
        Term("patch_embed.text_proj", "embed", text_tokens * config.text_embed_dim * d),
        Term("time_embedding.linear_1", "embed", d * e),
        Term("time_embedding.linear_2", "embed", e * e),
    ]
    for i in range(config.num_layers):
        block = f"transformer_blocks.{i}"
        terms += [
            Term(f"{block}.norm1.linear", "modulation", 6 * e * d),
            Term(f"{block}.norm2.linear", "modulation", 6 * e * d),
            *(
                Term(f"{block}.attn1.{name}", "attention_linear", s * d * d)
                for name in ("to_q", "to_k", "to_v")
            ),
            Term(f"{block}.attn1.to_out.0", "attention_linear", s * d * d),
            Term(f"{block}.attn1", "attention_quadratic", 2 * s * s * d, True),
            Term(f"{block}.ff.net.0.proj", "mlp", 4 * s * d * d),
            Term(f"{block}.ff.net.2", "mlp", 4 * s * d * d),
        ]
    return [
        *terms,
        Term("norm_out.linear", "modulation", 2 * e * d),
        Term("proj_out", "head", n * d * config.out_channels * cells),
    ]


def latte_terms(config: Any, size: Size, text_tokens: int) -> list[Term]:
    """Latte (Ma et al. 2024, arXiv 2401.03048): blocks that attend in a frame and to text, and through time.

    For F frames of S tokens, N = F S: a spatial block costs 4 N D^2 + 2 N S D, cross-attention 2 N D^2 +
    2 F M D^2 + 2 N M D (the text is repeated for every frame), the MLP 8 N D^2; a temporal block
    4 N D^2 + 2 N F D and 8 N D^2.
    """
    d, p = config.num_attention_heads * config.attention_head_dim, config.patch_size
    frames, places = size[0], size[1] // p * (size[2] // p)
    n, m = frames * places, text_tokens
    terms = [
        Term("pos_embed.proj", "embed", n * config.in_channels * p * p * d),
        Term("adaln_single.emb.timestep_embedder.linear_1", "embed", 256 * d),
        Term("adaln_single.emb.timestep_embedder.linear_2", "embed", d * d),
        Term("adaln_single.linear", "modulation", 6 * d * d),
        Term("caption_projection.linear_1", "embed", m * config.caption_channels * d),
        Term("caption_projection.linear_2", "embed", m * d * d),
    ]
    for i in range(config.num_layers):
        for block, keys in (
            (f"transformer_blocks.{i}", places),
            (f"temporal_transformer_blocks.{i}", frames),
        ):
            for name in ("to_q", "to_k", "to_v", "to_out.0"):
                terms.append(Term(f"{block}.attn1.{name}", "attention_linear", n * d * d))
            terms.append(Term(f"{block}.attn1", "attention_quadratic", 2 * n * keys * d, True))
            terms.append(Term(f"{block}.ff.net.0.proj", "mlp", 4 * n * d * d))
            terms.append(Term(f"{block}.ff.net.2", "mlp", 4 * n * d * d))
        cross = f"transformer_blocks.{i}.attn2"
        for name, tokens in (("to_q", n), ("to_k", frames * m), ("to_v", frames * m), ("to_out.0", n)):
            terms.append(Term(f"{cross}.{name}", "cross_linear", tokens * d * d))
        terms.append(Term(cross, "cross_quadratic", 2 * n * m * d, True))
    return [*terms, Term("proj_out", "head", n * d * p * p * (config.out_channels or config.in_channels))]


def wan_terms(config: Any, size: Size, text_tokens: int) -> list[Term]:
    """Wan (arXiv 2503.20314), text to video: full attention, cross-attention, one shared modulation."""
    d, hidden = config.num_attention_heads * config.attention_head_dim, config.ffn_dim
    pt, ph, pw = config.patch_size
    n, m, cells = size[0] // pt * (size[1] // ph) * (size[2] // pw), text_tokens, pt * ph * pw
    conditions = "condition_embedder"
    terms = [
        Term("patch_embedding", "embed", n * config.in_channels * cells * d),
        Term(f"{conditions}.time_embedder.linear_1", "embed", config.freq_dim * d),
        Term(f"{conditions}.time_embedder.linear_2", "embed", d * d),
        Term(f"{conditions}.time_proj", "modulation", 6 * d * d),
        Term(f"{conditions}.text_embedder.linear_1", "embed", m * config.text_dim * d),
        Term(f"{conditions}.text_embedder.linear_2", "embed", m * d * d),
    ]
    for i in range(config.num_layers):
        block = f"blocks.{i}"
        for name in ("to_q", "to_k", "to_v", "to_out.0"):
            tokens = m if name in ("to_k", "to_v") else n
            terms.append(Term(f"{block}.attn1.{name}", "attention_linear", n * d * d))
            terms.append(Term(f"{block}.attn2.{name}", "cross_linear", tokens * d * d))
        terms.append(Term(f"{block}.attn1", "attention_quadratic", 2 * n * n * d, True))
        terms.append(Term(f"{block}.attn2", "cross_quadratic", 2 * n * m * d, True))
        terms.append(Term(f"{block}.ffn.net.0.proj", "mlp", n * d * hidden))
        terms.append(Term(f"{block}.ffn.net.2", "mlp", n * d * hidden))
    return [*terms, Term("proj_out", "head", n * d * config.out_channels * cells)]


CLOSED_FORMS: dict[str, Callable[[Any, Size, int], list[Term]]] = {
    "CogVideoXTransformer3DModel": cogvideox_terms,
    "LatteTransformer3DModel": latte_terms,
    "WanTransformer3DModel": wan_terms,
}
"""By diffusers class; others are counted two ways."""
