"""Closed forms of the VAE and the text encoder, in the same terms as the DiT's (`closed_form`).

Letters: T frames, H W the grid of a level, C channels, p pixel patch, M text tokens, D width.

Per layer, MACs: a 3 x 3 convolution of each frame 9 T H W C C'; a causal one over time (3 frames)
3 T' H W C C', where T' is what comes out of it; a fold or unfold of 2 x 2 places with its linear map
4 T h w C C' at the smaller grid h w; a doubling of frames 2 T H W C^2 at the frames that come in. A residual
block is one convolution of each kind: 12 T H W C^2. Padding counts as work, as it does in every counter (and
mostly in the machine).
"""

import math

from minisora.config import TextConfig, VAEConfig
from minisora.flops.count_closed_form import Term


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

    def residual(self) -> None:
        cells = self.frames * self.places
        self._add(".space", 9 * cells * self.channels**2)
        self._add(".time", 3 * cells * self.channels**2)
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


def encode_terms(config: VAEConfig, frames: int, height: int, width: int) -> list[Term]:
    """The products of encoding one clip of that many frames and pixels."""
    p = config.pixel_patch
    walk = _Walk("encoder", frames, height // p, width // p, 3 * p * p)
    walk.frame_conv(config.widths[0])
    for level, channels in enumerate(config.widths):
        if level:
            walk.halve_places(channels)
        for _ in range(config.encoder_blocks or config.blocks_per_level):
            walk.residual()
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
            walk.residual()
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
