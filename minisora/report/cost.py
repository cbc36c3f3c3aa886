"""MACs of one forward pass of a video transformer, from its shape alone.

Per block, for S = F P tokens (F latent frames of P places), width d, hidden width f, M text tokens and a
share g of key-value heads (grouped queries; 1 without):

    projections    (2 + 2 g) S d^2             q, k, v, out
    MLP            2 S f d                     3 S f d if gated (SwiGLU)
    attention      2 S K d                     scores and weighted sum over the K keys that a token sees
    cross          2 S d^2 + 2 M d^2 + 2 S M d where text comes in by cross-attention
    modulation     6 d^2                       adaLN, once a *sample*

    K = S                 full attention over space and time
    K = (P + F) / 2       factorised: blocks alternate between space and time (minisora, Latte)
    K = P + F             divided: both in every block, time with projections of its own, + 4 S d^2
    K = P x frames seen   bands: a frame sees itself and those before it, or those around it (`Band`)
    K = tokens of a tile  a token sees a window of frames, rows and columns (`Band`)

Attention overtakes everything else at S = 6 d (f = 4 d, full). The arithmetic is that of
`minisora.flops.count_closed_form`, which three independent counts agree with; a test holds the two together.
All numbers may be numpy arrays.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from minisora.report.units import Number

Attention = Literal["full", "factorised", "divided"]
ATTENTIONS: tuple[Attention, ...] = ("full", "factorised", "divided")


@dataclass(frozen=True)
class Band:
    """Attention over some latent frames, or some tokens of them: what a kernel skips is not counted.

    Args:
        kind: "causal": chunks of so many frames see themselves and all before them; "window": a frame sees so many
            (an odd number), itself in their middle, fewer at the ends of the clip; "tile": a token sees a window of
            frames, rows and columns, which at the ends is moved inside (sliding tiles, arXiv 2502.04507).
        frames: how many.
        rows, columns: of tokens, of a tile.
    """

    kind: Literal["causal", "window", "tile"]
    frames: Number
    rows: Number = 0
    columns: Number = 0

    def keys(self, frames: Number, places: Number) -> Number:
        """Keys that a token of a clip of so many frames and places sees, on average."""
        if self.kind == "tile":
            return np.minimum(self.frames, frames) * np.minimum(self.rows * self.columns, places)
        return places * self.seen(frames)

    def seen(self, frames: Number) -> Number:
        """Whole latent frames that a frame of a clip of so many sees, on average."""
        if self.kind == "window":
            beside = np.minimum((self.frames - 1) / 2, frames)
            return 2 * beside + 1 - beside * (beside + 1) / frames
        chunks = np.floor(frames / self.frames)
        rest = frames - chunks * self.frames
        return self.frames * self.frames * chunks * (chunks + 1) / 2 / frames + rest


@dataclass(frozen=True)
class TransformerShape:
    """A diffusion transformer.

    Args:
        layers: blocks.
        width: channels of a token, d.
        hidden: channels inside the MLP, f.
        gated_mlp: three matrices in the MLP (SwiGLU) rather than two.
        kv_share: key-value heads / heads.
        text_tokens: M, of the prompt.
        text: how text meets the video: as tokens of the same sequence, by cross-attention, or not at all.
        modulation: adaLN weights in every block, rather than shared or none.
        patch_values: latent numbers a token stands for (embedding and head); 0 leaves both out.
        once: MACs of a pass that no token of the video adds to, beside modulation: embeddings of time and prompt.
    """

    layers: Number
    width: Number
    hidden: Number
    gated_mlp: bool = False
    kv_share: float = 1.0
    text_tokens: Number = 0
    text: Literal["joint", "cross", "none"] = "none"
    modulation: bool = True
    patch_values: Number = 0
    once: Number = 0

    def params(self) -> Number:
        """Weights of the blocks, embedding and head (small vectors left out)."""
        d = self.width
        block = (2 + 2 * self.kv_share) * d * d + (3 if self.gated_mlp else 2) * self.hidden * d
        block = block + (4 * d * d if self.text == "cross" else 0) + (6 * d * d if self.modulation else 0)
        return self.layers * block + 2 * self.patch_values * d


@dataclass(frozen=True)
class PassMacs:
    """MACs of one forward pass of one sample.

    Args:
        linear: products with weights that every token meets, and text's.
        attention: the part quadratic in tokens.
        per_sample: modulation and what else runs once a sample.
    """

    linear: Number
    attention: Number
    per_sample: Number

    @property
    def total(self) -> Number:
        """All of them."""
        return self.linear + self.attention + self.per_sample

    @property
    def attention_share(self) -> Number:
        """Attention's part of the total."""
        return self.attention / self.total


def latent_frames(frames: Number, stride: Number, *, causal: bool, chunk: Number = 0) -> Number:
    """Latent frames of so many frames; of a causal VAE the first stands alone.

    Args:
        frames: of the clip.
        stride: of the VAE in time.
        causal: 1 + (T - 1) / r latent frames, rather than T / r; a rest makes one more.
        chunk: the VAE starts anew every so many frames; 0: it does not.
    """

    def count(part: Number) -> Number:
        return 1 + np.ceil((part - 1) / stride) if causal else np.ceil(part / stride)

    return _by_chunks(frames, chunk, count)


def fitting_frames(frames: Number, stride: Number, *, causal: bool, chunk: Number = 0) -> Number:
    """The nearest number of frames that fills its latent frames; arguments as of `latent_frames`."""

    def fit(part: Number) -> Number:
        if causal:
            return 1 + stride * np.maximum(0.0, np.rint((part - 1) / stride))
        return stride * np.maximum(1.0, np.rint(part / stride))

    return _by_chunks(frames, chunk, fit)


def _by_chunks(frames: Number, chunk: Number, count: Callable[[Number], Number]) -> Number:
    if isinstance(chunk, int | float) and not chunk:
        return count(frames)
    whole = np.floor(frames / chunk)
    rest = frames - whole * chunk
    return whole * count(chunk) + np.where(rest > 0, count(rest), 0.0)


def attention_keys(kind: Attention | Band, frames: Number, places: Number) -> Number:
    """Keys that a token sees, averaged over blocks and tokens."""
    if isinstance(kind, Band):
        return kind.keys(frames, places)
    if kind == "full":
        return frames * places
    return (frames + places) * (0.5 if kind == "factorised" else 1.0)


def forward_macs(
    shape: TransformerShape, frames: Number, places: Number, attention: Attention | Band = "full"
) -> PassMacs:
    """Cost of one denoising pass.

    Args:
        shape: the model.
        frames: latent frames after patching, F.
        places: tokens a latent frame, P.
        attention: over what; text that joins the sequence is seen by, and sees, every token.
    """
    d, m = shape.width, shape.text_tokens
    joint = m if shape.text == "joint" else 0
    tokens = frames * places + joint
    keys = attention_keys(attention, frames, places) + joint
    per_token = (2 + 2 * shape.kv_share + (4 if attention == "divided" else 0)) * d * d
    per_token = per_token + (3 if shape.gated_mlp else 2) * shape.hidden * d
    linear, quadratic = tokens * per_token, 2 * tokens * keys * d
    if shape.text == "cross":
        linear = linear + 2 * tokens * d * d + 2 * m * d * d
        quadratic = quadratic + 2 * tokens * m * d
    ends = 2 * frames * places * shape.patch_values * d
    return PassMacs(
        linear=shape.layers * linear + ends,
        attention=shape.layers * quadratic,
        per_sample=shape.once + (shape.layers * 6 * d * d if shape.modulation else 0 * d),
    )
