"""What a model of ours must cost, by arithmetic from its config alone: the third count.

A model is a list of `Term`s, one per matrix product or convolution, each with its module's path. Sums over
groups give the rows of the ledger; sums over paths are compared with what fvcore and torch saw of a real
pass.

**Forward**, MACs per sample, for N = T S tokens of width D (T frames of S), hidden width f D, M text tokens
of width W, L blocks, p latent values a patch (one noise level a clip):

    embed            N p D + 256 D + D^2             patches; sigma's sinusoid (256) and MLP
                     + M W D + W D                   text tokens, pooled text
    attention_linear 4 N D^2                  x L    q, k, v, out
    attention_quadratic 2 N K D               x L    scores and weighted sum over K keys: K = N (full);
                                                     S and T on even and odd blocks (factorised)
    cross_linear     2 N D^2 + 2 M D^2        x L    q and out over tokens; k, v over text
    cross_quadratic  2 N M D                  x L
    mlp              2 f N D^2                x L
    modulation       6 D^2 x L, or once if shared; + 2 D^2 for the head's
    head             N p' D

Modulation runs once per *sample*: its 6 L D^2 parameters do not meet every token, so "6 FLOPs per parameter
and token" overcounts a DiT (a third of DiT-XL/2's parameters are modulation).

**Backward.** A product y = x w costs its forward again for the gradient of w, and again for that of x if x
needs one (the first layers' inputs do not). A fused attention kernel does five products where forward does
two, since it rebuilds the scores: 2.5 times forward, of which 0.5 is recomputation. Under checkpointing every
block's forward runs once more.

Elementwise work (norms, activations, softmax, residuals) is in no total here: it loads memory, not
multipliers.

**VAE**, MACs per layer, for T frames, a level's grid H W, C channels: a 3 x 3 convolution of each frame 9 T H W C C';
a causal one over time (3 frames) 3 T' H W C C', where T' is what comes out of it; a fold or unfold of 2 x 2 places with
its linear map 4 T h w C C' at the smaller grid h w; a doubling of frames 2 T H W C^2 at the frames that come in. A
residual block is one convolution of each kind: 12 T H W C^2, or 10 where no frames are mixed. Padding counts as
work, as it does in every counter (and mostly in the machine).

**diffusers' video transformers** from their configs, at the end: letters as above, S = N + M, E the width of the time
embedding, p the patch side.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from minisora.config import Config, TextConfig, VAEConfig
from minisora.flops.agree import Count
from minisora.models.clip_grid import token_grid

Size = tuple[int, int, int]
"""Frames, height, width: of latents where nothing else is said."""

# Width of the sinusoid that embeds the noise level.
SIGMA_FEATURES = 256


@dataclass(frozen=True)
class Term:
    """One product of a forward pass.

    Args:
        module: path of the module that runs it.
        group: row of the ledger.
        macs: forward MACs for one sample.
        quadratic: a fused attention, two operand products, rather than a layer with a weight.
        input_grad: whether its input needs a gradient in training.
        checkpointed: whether it lies in a block that checkpointing runs again.
    """

    module: str
    group: str
    macs: int
    quadratic: bool = False
    input_grad: bool = True
    checkpointed: bool = False

    def backward_macs(self) -> int:
        """MACs of its gradients, with the scores that fused attention rebuilds, without checkpointing."""
        if self.quadratic:
            return self.macs * 5 // 2
        return self.macs * (2 if self.input_grad else 1)

    def rebuilt_macs(self) -> int:
        """The part of `backward_macs` that computes scores a second time."""
        return self.macs // 2 if self.quadratic else 0


def total(terms: Iterable[Term]) -> int:
    """Forward MACs."""
    return sum(term.macs for term in terms)


def count_closed_form(terms: Iterable[Term] | None, batch: int = 1) -> Count | None:
    """MACs of a forward pass of `batch` samples: it never sees the model. None where there is no closed form."""
    if terms is None:
        return None
    own: Counter[tuple[str, str]] = Counter()
    for term in terms:
        own[term.module, term.group] += term.macs * batch
    return Count("closed form", dict(own))


@dataclass(frozen=True)
class TrainMacs:
    """MACs of a training step of one sample, as `count_torch.StepCount` counts them (that one in FLOPs)."""

    forward: int
    train: int
    recompute: int


def train_macs(terms: Iterable[Term], *, checkpointing: bool) -> TrainMacs:
    """Forward, everything, and of it what is computed a second time."""
    terms = list(terms)
    forward = total(terms)
    again = sum(term.macs for term in terms if term.checkpointed) if checkpointing else 0
    backward = sum(term.backward_macs() for term in terms)
    rebuilt = sum(term.rebuilt_macs() for term in terms)
    return TrainMacs(forward, forward + backward + again, again + rebuilt)


def dit_terms(
    config: Config,
    latent_size: tuple[int, int, int],
    *,
    text_width: int | None,
    text_tokens: int,
    latent_grad: bool = False,
    text_grad: bool = True,
) -> list[Term]:
    """The products of one denoising pass of one sample of the config's DiT.

    Args:
        config: of the model.
        latent_size: latent grid (T', H', W').
        text_width: channels of the text encoder; None for a model without text.
        text_tokens: M.
        latent_grad: whether the latents need a gradient (never in training; in guidance by a loss they do).
        text_grad: whether the text tokens do (they do where the text encoder learns too).
    """
    dit = config.dit
    grid = token_grid(latent_size, dit.patch)
    frames, places = grid[0], grid[1] * grid[2]
    n, d, cells = frames * places, dit.width, dit.patch[0] * dit.patch[1] * dit.patch[2]
    hidden, channels = int(d * dit.mlp_ratio), config.vae.latent_channels
    m, has_text = text_tokens, dit.text_conditioning and text_width is not None

    terms = [
        Term("embed", "embed", n * channels * cells * d, input_grad=latent_grad),
        Term("embed_sigma.up", "embed", SIGMA_FEATURES * d, input_grad=False),
        Term("embed_sigma.down", "embed", d * d),
    ]
    if has_text and text_width is not None:
        terms += [
            Term("embed_text", "embed", m * text_width * d, input_grad=text_grad),
            Term("embed_pooled", "embed", text_width * d, input_grad=text_grad),
        ]
    if dit.modulation == "shared":
        terms.append(Term("shared_modulation", "modulation", 6 * d * d))
    keys = (n,) if dit.attention == "full" else (places, frames)
    for i in range(dit.depth):
        block = f"blocks.{i}"
        if dit.modulation == "per_block":
            terms.append(Term(f"{block}.modulation", "modulation", 6 * d * d, checkpointed=True))
        attention, group = f"{block}.attention", "attention_linear"
        terms += [
            Term(f"{attention}.qkv", group, 3 * n * d * d, checkpointed=True),
            Term(attention, "attention_quadratic", 2 * n * keys[i % len(keys)] * d, True, checkpointed=True),
            Term(f"{attention}.out", group, n * d * d, checkpointed=True),
        ]
        if has_text:
            cross, group = f"{block}.cross", "cross_linear"
            terms += [
                Term(f"{cross}.q", group, n * d * d, checkpointed=True),
                Term(f"{cross}.kv", group, 2 * m * d * d, checkpointed=True),
                Term(cross, "cross_quadratic", 2 * n * m * d, True, checkpointed=True),
                Term(f"{cross}.out", group, n * d * d, checkpointed=True),
            ]
        terms += [
            Term(f"{block}.mlp.up", "mlp", n * d * hidden, checkpointed=True),
            Term(f"{block}.mlp.down", "mlp", n * hidden * d, checkpointed=True),
        ]
    out_channels = channels * (2 if dit.learn_sigma else 1)
    return [
        *terms,
        Term("modulation_out", "modulation", 2 * d * d),
        Term("head", "head", n * d * out_channels * cells),
    ]


def optimizer_flops(params: int, *, clip: bool = True, ema: bool = True) -> int:
    """Elementwise FLOPs of one AdamW step (Loshchilov & Hutter 2019, arXiv 1711.05101, algorithm 2).

    Per parameter: two moments (3 + 4), the update's root, quotient and step (5), decay (2); clipping by the
    global norm reads and scales every gradient (3), the average of the weights is a lerp (3). It is bound by
    memory and tiny beside the passes: its own column, in no total.
    """
    return params * (14 + 3 * clip + 3 * ema)


class _Walk:
    """Goes through a stack layer by layer with the size of what flows through it."""

    def __init__(self, stack: str, frames: int, height: int, width: int, channels: int):
        self.stack, self.index = stack, 0
        self.frames, self.places, self.channels = frames, height * width, channels
        self.terms: list[Term] = []
        self._first = True

    def _add(self, inner: str, macs: int) -> None:
        # The first layer's input is pixels (encoder); the decoder's is latents, which need a gradient.
        frozen = self._first and self.stack == "encoder"
        path = f"{self.stack}.{self.index}{inner}"
        self.terms.append(Term(path, f"vae_{self.stack}", macs, input_grad=not frozen))
        self._first = False

    def frame_conv(self, channels: int) -> None:
        self._add("", 9 * self.frames * self.places * self.channels * channels)
        self.index, self.channels = self.index + 1, channels

    def residual(self, taps: int = 3) -> None:
        cells = self.frames * self.places
        self._add(".space", 9 * cells * self.channels**2)
        self._add(".time", taps * cells * self.channels**2)
        self.index += 1

    def halve_frames(self) -> None:
        self.frames = 1 + (self.frames - 1) // 2
        self._add("", 3 * self.frames * self.places * self.channels**2)
        self.index += 1

    def double_frames(self) -> None:
        self._add(".expand", 2 * self.frames * self.places * self.channels**2)
        self.frames = 2 * self.frames - 1
        self.index += 1

    def halve_places(self, channels: int) -> None:
        self.places //= 4
        self._add(".merge", 4 * self.frames * self.places * self.channels * channels)
        self.index, self.channels = self.index + 1, channels

    def double_places(self, channels: int) -> None:
        self._add(".split", 4 * self.frames * self.places * self.channels * channels)
        self.places *= 4
        self.index, self.channels = self.index + 1, channels


def _halvings(config: VAEConfig) -> list[int]:
    """Halvings of time per level, finest first: as even as possible, the finest level first."""
    levels, halvings = len(config.widths), int(math.log2(config.temporal_factor))
    return [halvings // levels + (level < halvings % levels) for level in range(levels)]


def _taps(config: VAEConfig) -> int:
    """Frames that a residual block's second convolution sees."""
    return 3 if config.mixes_frames else 1


def encode_terms(config: VAEConfig, frames: int, height: int, width: int) -> list[Term]:
    """The products of encoding one clip of that many frames and pixels."""
    p = config.pixel_patch
    walk = _Walk("encoder", frames, height // p, width // p, 3 * p * p)
    walk.frame_conv(config.widths[0])
    for level, channels in enumerate(config.widths):
        if level:
            walk.halve_places(channels)
        for _ in range(config.encoder_blocks or config.blocks_per_level):
            walk.residual(_taps(config))
        for _ in range(_halvings(config)[level]):
            walk.halve_frames()
    walk.frame_conv(2 * config.latent_channels)
    return walk.terms


def decode_terms(config: VAEConfig, latent_size: tuple[int, int, int]) -> list[Term]:
    """The products of decoding one clip from its latent grid (T', H', W')."""
    walk = _Walk("decoder", *latent_size, config.latent_channels)
    walk.frame_conv(config.widths[-1])
    for level in reversed(range(len(config.widths))):
        if level < len(config.widths) - 1:
            walk.double_places(config.widths[level])
        for _ in range(_halvings(config)[level]):
            walk.residual()
            walk.double_frames()
        for _ in range(config.blocks_per_level):
            walk.residual(_taps(config))
    walk.frame_conv(3 * config.pixel_patch**2)
    return walk.terms


def text_terms(config: TextConfig, tokens: int) -> list[Term]:
    """The products of encoding one caption of M tokens: 12 M D^2 + 2 M^2 D a block; embeddings are free."""
    m, d, group = tokens, config.width, "text_encoder"
    terms = []
    for i in range(config.depth):
        block = f"blocks.{i}"
        terms += [
            Term(f"{block}.qkv", group, 3 * m * d * d),
            Term(block, group, 2 * m * m * d, True),
            Term(f"{block}.out", group, m * d * d),
            Term(f"{block}.mlp.up", group, 4 * m * d * d),
            Term(f"{block}.mlp.down", group, 4 * m * d * d),
        ]
    return terms


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
