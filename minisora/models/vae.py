"""VideoVAE: a small causal spatio-temporal autoencoder, 4x8x8 by default.

The first frame is coded by itself and every later group of `temporal_factor` frames after it, so latent
frames = 1 + (frames - 1) / temporal_factor and one image is a one-frame video (the layout of
CogVideoX, Yang et al. 2024, arXiv 2408.06072, and Wan, arXiv 2503.20314).

Letters: B batch, T frames, H W pixels, T' H' W' latent grid, Z latent channels, C channels.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn
from torch.nn import functional as F

from minisora.errors import UserError
from minisora.memory import available_memory, is_out_of_memory
from minisora.models.causal_conv import (
    CausalTimeConv,
    FrameConv,
    ResBlock,
    SpaceDown,
    SpaceUp,
    Stream,
    TimeUp,
    fold_pixels,
    unfold_pixels,
)
from minisora.models.clip_grid import check_clip

# Bytes of activations: more at a time are no faster.
_MOST = {"cpu": 2 << 30, "cuda": 8 << 30}
# Of what is free, one such part.
_SHARE = 4
# What layers remember between chunks takes as much as about so many frames more.
_STATE_FRAMES = 4
# Cells; below it the halo is most of the work.
_SMALLEST_TILE = 4


@dataclass(frozen=True)
class Posterior:
    """Diagonal Gaussian over raw (not normalised) latents, each B Z T' H' W'."""

    mean: Tensor
    log_variance: Tensor

    def sample(self, noise: Tensor) -> Tensor:
        """Reparameterised draw from standard normal `noise`."""
        return self.mean + noise * torch.exp(0.5 * self.log_variance)

    def kl(self) -> Tensor:
        """KL divergence to the standard normal, mean over elements, in nats."""
        return 0.5 * (self.mean.square() + self.log_variance.exp() - 1 - self.log_variance).mean()


class CausalStack(nn.Sequential):
    """Layers in a row, with the stream handed to those that look back in time."""

    def forward(self, x: Tensor, stream: Stream | None = None) -> Tensor:
        """Map B T H W C through every layer."""
        for layer in self:
            x = layer(x, stream) if isinstance(layer, ResBlock | CausalTimeConv | TimeUp) else layer(x)
        return x

    def halo(self) -> float:
        """How far, in cells of the *input*, an output cell sees to each side."""
        reach, scale = 0.0, 1.0  # of a cell of the current level, in input cells
        for layer in self:
            if isinstance(layer, SpaceDown):
                scale *= 2
            elif isinstance(layer, SpaceUp):
                scale /= 2
            elif isinstance(layer, ResBlock):
                reach += scale
            elif isinstance(layer, FrameConv):
                reach += scale * (layer.kernel_size[0] // 2)
        return reach


class VideoVAE(ModelMixin, ConfigMixin):
    """Compresses videos B 3 T H W in [-1, 1] to latents B Z T' H' W' and back.

    `latents` everywhere outside this class are normalised (zero mean, unit variance per channel) with the
    statistics in the buffers `latent_mean` and `latent_std`, which training sets at its end.

    Args:
        temporal_factor: frames per latent frame, a power of two.
        spatial_factor: pixels per latent cell and side, a power of two.
        latent_channels: Z.
        pixel_patch: pixels folded into channels before the first convolution.
        widths: channels per spatial level, finest first; as many as
            log2(spatial_factor / pixel_patch) + 1.
        blocks_per_level: residual blocks per level; the decoder has one more for each doubling of frames.
        encoder_blocks: residual blocks per level of the encoder, where it is to have fewer.
        mixes_frames: whether a frame is coded with those before it; if not, each by itself, as a world that is played
            needs it (temporal_factor 1 only).
    """

    @register_to_config
    def __init__(
        self,
        temporal_factor: int = 4,
        spatial_factor: int = 8,
        latent_channels: int = 8,
        pixel_patch: int = 4,
        widths: Sequence[int] = (64, 128),
        blocks_per_level: int = 2,
        encoder_blocks: int | None = None,
        mixes_frames: bool = True,
    ):
        super().__init__()
        if temporal_factor > 1 and not mixes_frames:
            raise UserError(
                f"vae.temporal_factor = {temporal_factor} mixes frames: set it to 1, or vae.mixes_frames=true"
            )
        levels = int(math.log2(spatial_factor // pixel_patch)) + 1
        if len(widths) != levels:
            raise UserError(
                f"vae.widths has {len(widths)} entries, but spatial_factor {spatial_factor} over pixel_patch "
                f"{pixel_patch} makes {levels} levels: give {levels} widths"
            )
        halvings = int(math.log2(temporal_factor))
        # Frames are halved as early as possible: the finest level costs most.
        time_steps = [halvings // levels + (level < halvings % levels) for level in range(levels)]

        encoder: list[nn.Module] = [FrameConv(3 * pixel_patch**2, widths[0])]
        for level, width in enumerate(widths):
            if level:
                encoder.append(SpaceDown(widths[level - 1], width))
            encoder += [ResBlock(width, mixes_frames) for _ in range(encoder_blocks or blocks_per_level)]
            encoder += [CausalTimeConv(width, width, stride=2) for _ in range(time_steps[level])]
        # No norm or nonlinearity before the last layer of either side: the residual stream is a linear
        # autoencoder from the first step on, which learns brightness and colour at once.
        moments = FrameConv(widths[-1], 2 * latent_channels)
        # A posterior of std 0.14: unit noise at the start would drown the signal.
        with torch.no_grad():
            moments.bias[latent_channels:] = -4.0
        encoder.append(moments)
        self.encoder = CausalStack(*encoder)

        decoder: list[nn.Module] = [FrameConv(latent_channels, widths[-1])]
        for level, width in reversed(list(enumerate(widths))):
            if level < levels - 1:
                decoder.append(SpaceUp(widths[level + 1], width))
            for _ in range(time_steps[level]):
                decoder += [ResBlock(width), TimeUp(width)]
            decoder += [ResBlock(width, mixes_frames) for _ in range(blocks_per_level)]
        decoder.append(FrameConv(widths[0], 3 * pixel_patch**2))
        self.decoder = CausalStack(*decoder)

        self.latent_mean: Tensor
        self.latent_std: Tensor
        self.register_buffer("latent_mean", torch.zeros(latent_channels))
        self.register_buffer("latent_std", torch.ones(latent_channels))

    def latent_size(self, frames: int, height: int, width: int) -> tuple[int, int, int]:
        """Latent grid (T', H', W') of a clip.

        Raises:
            UserError: the clip does not fit the strides; the message names the two nearest sizes that do.
        """
        return check_clip(
            frames,
            height,
            width,
            temporal_factor=self.config.temporal_factor,
            spatial_factor=self.config.spatial_factor,
        )

    def clip_size(self, latent_frames: int, latent_height: int, latent_width: int) -> tuple[int, int, int]:
        """Frames, height and width in pixels of a latent grid."""
        t, s = self.config.temporal_factor, self.config.spatial_factor
        return 1 + (latent_frames - 1) * t, latent_height * s, latent_width * s

    def encode(self, video: Tensor, stream: Stream | None = None) -> Posterior:
        """Posterior over raw latents of a video B 3 T H W; with a stream, of the next chunk of one."""
        x = fold_pixels(video.permute(0, 2, 3, 4, 1), self.config.pixel_patch)  # B T H/p W/p 3pp
        moments = self.encoder(x, stream).permute(0, 4, 1, 2, 3)  # B 2Z T' H' W'
        mean, log_variance = moments.chunk(2, dim=1)  # each B Z T' H' W'
        return Posterior(mean, log_variance.clamp(-20, 10))

    def decode(self, raw: Tensor, stream: Stream | None = None) -> Tensor:
        """Video B 3 T H W (not clamped) of raw latents B Z T' H' W'; with a stream, the next chunk of one."""
        x = self.decoder(raw.permute(0, 2, 3, 4, 1).contiguous(), stream)  # B T H/p W/p 3pp
        return unfold_pixels(x, self.config.pixel_patch).permute(0, 4, 1, 2, 3)

    def forward(
        self, video: Tensor, noise: Tensor, latent_noise: float = 0.0, *, halved: bool = False
    ) -> tuple[Tensor, Posterior, Tensor | None]:
        """What training looks at.

        Args:
            video: B 3 T H W in [-1, 1].
            noise: standard normal, B Z T' H' W'.
            latent_noise: standard deviation of noise beside the posterior's own, in raw latents: the decoder learns to
                pass over errors of this size, which a DiT's samples have.
            halved: also decode the latents' `halve`, which should be the video's (scale equivariance, Skorokhodov
                et al. 2025, arXiv 2502.14831).

        Returns:
            Reconstruction B 3 T H W, posterior, and what the halved latents decode to, B 3 T H/2 W/2 (whole cells), or
            None.
        """
        posterior = self.encode(video)
        drawn_from = posterior
        if latent_noise:
            least = torch.tensor(2 * math.log(latent_noise), device=video.device)
            noisy = torch.logaddexp(posterior.log_variance.float(), least)
            drawn_from = Posterior(posterior.mean.float(), noisy)
        raw = drawn_from.sample(noise)
        return self.decode(raw), posterior, self.decode(halve(raw)) if halved else None

    def normalize(self, raw: Tensor) -> Tensor:
        """Raw latents B Z ... to zero mean and unit variance per channel."""
        shape = (1, -1, *[1] * (raw.ndim - 2))
        return (raw - self.latent_mean.view(shape)) / self.latent_std.view(shape)

    def denormalize(self, latents: Tensor) -> Tensor:
        """Undo `normalize`."""
        shape = (1, -1, *[1] * (latents.ndim - 2))
        return latents * self.latent_std.view(shape) + self.latent_mean.view(shape)

    @torch.no_grad()
    def to_latents(self, video: Tensor, *, chunk: int | None = None, tile: int | None = None) -> Tensor:
        """Normalised latents B Z T' H' W' (posterior means) of a video B 3 T H W in [-1, 1].

        Args:
            video: its size must fit the strides (`latent_size` tells).
            chunk: latent frames coded at a time; bounds memory for long clips, exact.
            tile: latent cells per side coded at a time; bounds memory for large clips, exact (tiles carry
                a halo as wide as the network's reach). Without either, what does not fit is coded in such parts.
        """
        grid = self.latent_size(*video.shape[2:])
        halo = math.ceil(self.encoder.halo() * self.config.pixel_patch / self.config.spatial_factor)

        def code(part: Tensor, stream: Stream | None) -> Tensor:
            return self.encode(part, stream).mean

        return self.normalize(self._in_parts(code, video, grid, halo, chunk, tile, encodes=True))

    @torch.no_grad()
    def to_video(self, latents: Tensor, *, chunk: int | None = None, tile: int | None = None) -> Tensor:
        """Video B 3 T H W in [-1, 1] of normalised latents; `chunk` and `tile` as in `to_latents`."""
        frames, height, width = latents.shape[2:]
        raw = self.denormalize(latents)
        halo = math.ceil(self.decoder.halo())
        video = self._in_parts(self.decode, raw, (frames, height, width), halo, chunk, tile, encodes=False)
        return video.clamp_(-1, 1)

    def _in_parts(
        self,
        code: Callable[[Tensor, Stream | None], Tensor],
        x: Tensor,
        grid: tuple[int, int, int],
        halo: int,
        chunk: int | None,
        tile: int | None,
        *,
        encodes: bool,
    ) -> Tensor:
        """Code x (B C T H W) of latent grid T' H' W' in the parts asked for, or else in such as fit."""
        sizes = Sizes(
            self.config.temporal_factor, self.config.spatial_factor, halo, self.pixel_bytes(x.element_size())
        )
        if chunk is not None or tile is not None:
            return in_parts(code, x, sizes, Parts(chunk=chunk, tile=tile), encodes=encodes)
        return in_fitting_parts(code, x, (len(x), *grid), sizes, encodes=encodes)

    def pixel_bytes(self, number_bytes: int = 4) -> float:
        """About the most activations, in bytes per pixel of a frame, that coding holds at a time, without gradients.

        A block of the level with most numbers holds up to seven tensors of its size; the pixels stand beside them
        three times, folded and not.
        """
        widest = max(width / 4**level for level, width in enumerate(self.config.widths))
        folded = self.config.pixel_patch**2
        return number_bytes * (7 * widest / folded + 3 * 3)


# Coding in parts, so that activations fit in memory: rows, chunks of frames, tiles. The parts give what the whole
# gives (causality makes chunks exact, a halo makes tiles exact); only the last bits may differ. Ordinary clips are
# coded whole.


@dataclass(frozen=True)
class Parts:
    """Rows, latent frames and cells per side coded at a time; None: all of them."""

    rows: int | None = None
    chunk: int | None = None
    tile: int | None = None


@dataclass(frozen=True)
class Sizes:
    """How the sides of a coder hang together.

    Args:
        frames: pixel frames per latent frame.
        cell: pixels per latent cell and side.
        halo: cells that a tile needs around it.
        pixel_bytes: bytes of activations per pixel of a frame.
    """

    frames: int
    cell: int
    halo: int
    pixel_bytes: float


def choose_parts(grid: tuple[int, int, int, int], sizes: Sizes, budget: float) -> Parts:
    """The largest parts of B T' H' W' latents whose activations stay within `budget` bytes, as far as any do."""
    rows, frames, height, width = grid
    pixels = budget / sizes.pixel_bytes
    area = height * width * sizes.cell**2
    video = area * frames * sizes.frames
    if rows * video <= pixels:
        return Parts()
    if video <= pixels:
        return Parts(rows=int(pixels // video))
    chunk = int((pixels / area - _STATE_FRAMES) // sizes.frames)
    if chunk >= 1:
        return Parts(rows=1, chunk=min(chunk, frames))
    side = (pixels / (sizes.frames + _STATE_FRAMES)) ** 0.5 / sizes.cell
    return Parts(rows=1, chunk=1, tile=max(_SMALLEST_TILE, int(side) - 2 * sizes.halo))


def in_fitting_parts(
    code: Callable[[Tensor, Stream | None], Tensor],
    x: Tensor,
    grid: tuple[int, int, int, int],
    sizes: Sizes,
    *,
    encodes: bool,
) -> Tensor:
    """`in_parts` of a size that fits the memory; where it runs out all the same, in ever smaller ones."""
    device = x.device.type
    budget = min(_MOST.get(device, _MOST["cpu"]), available_memory(x.device) / _SHARE)
    parts = choose_parts(grid, sizes, budget)
    while True:
        try:
            return in_parts(code, x, sizes, parts, encodes=encodes)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            smaller = parts
            while smaller == parts and budget > 1:
                budget /= 2
                smaller = choose_parts(grid, sizes, budget)
            if smaller == parts:
                raise
            parts = smaller
        # Here, not within the handler: the error holds on to what the failed part had allocated.
        if device == "cuda":
            torch.cuda.empty_cache()


def in_parts(
    code: Callable[[Tensor, Stream | None], Tensor], x: Tensor, sizes: Sizes, parts: Parts, *, encodes: bool
) -> Tensor:
    """Code x (B C T H W) part by part, and put the results together.

    Args:
        code: an encoder or a decoder; with a stream, of the next chunk of a video.
        x: a video, or latents.
        sizes: how the sides of the coder hang together.
        parts: rows, frames and cells coded at a time.
        encodes: x is a video, whose first chunk has one frame more, as latent frame 0 codes it alone.
    """
    cell_in, cell_out = (sizes.cell, 1) if encodes else (1, sizes.cell)
    batch, length = len(x), x.shape[2]
    height, width = x.shape[3] // cell_in, x.shape[4] // cell_in  # cells
    rows, tile = parts.rows or batch, parts.tile or max(height, width)
    step = (parts.chunk or length) * (sizes.frames if encodes else 1)
    cuts = [0, *range(step + encodes, length, step), length]
    frames = 1 + (length - 1) // sizes.frames if encodes else 1 + (length - 1) * sizes.frames
    if rows >= batch and tile >= max(height, width) and len(cuts) == 2:
        return code(x, None)
    out: Tensor | None = None
    for row in range(0, batch, rows):
        for top in range(0, height, tile):
            y0, y1 = max(0, top - sizes.halo), min(height, top + tile + sizes.halo)
            for left in range(0, width, tile):
                x0, x1 = max(0, left - sizes.halo), min(width, left + tile + sizes.halo)
                some = x[row : row + rows, :, :, y0 * cell_in : y1 * cell_in, x0 * cell_in : x1 * cell_in]
                inner_y = slice((top - y0) * cell_out, (min(top + tile, height) - y0) * cell_out)
                inner_x = slice((left - x0) * cell_out, (min(left + tile, width) - x0) * cell_out)
                stream: Stream | None = {} if len(cuts) > 2 else None
                at = 0
                for start, stop in pairwise(cuts):
                    part = code(some[:, :, start:stop], stream)[..., inner_y, inner_x]
                    if out is None:
                        size = (batch, part.shape[1], frames, height * cell_out, width * cell_out)
                        out = part.new_empty(size)
                    target = out[row : row + rows, :, at : at + part.shape[2]]
                    corner = target[..., top * cell_out :, left * cell_out :]
                    corner[..., : part.shape[3], : part.shape[4]] = part
                    at += part.shape[2]
    assert out is not None
    return out


def halve(x: Tensor, cell: int = 1) -> Tensor:
    """Means of 2x2 places, B C T H/2 W/2, of x B C T H W.

    Args:
        x: latents, or a video.
        cell: places per latent cell and side; the last cell of an odd number is left out.
    """
    height, width = (2 * cell * (side // (2 * cell)) for side in x.shape[3:])
    return F.avg_pool3d(x[..., :height, :width], (1, 2, 2))


@dataclass(frozen=True)
class VAELoss:
    """`total` is minimised, the parts are reported. Pixel errors are on the [-1, 1] scale."""

    total: Tensor
    l1: Tensor
    mse: Tensor
    kl: Tensor  # nats per latent element


def vae_loss(
    reconstruction: Tensor,
    video: Tensor,
    kl: Tensor,
    *,
    kl_weight: float,
    l2_share: float,
    moving: Tensor | None = None,
    moving_weight: float = 1.0,
) -> VAELoss:
    """Loss of a batch; videos are B 3 T H W in [-1, 1], `kl` is the posterior's divergence, nats per element.

    L1 keeps edges, L2 is what PSNR measures; `l2_share` mixes them. Errors where the video moves (`moving`,
    B 1 T H W bool) count `moving_weight` times: a small object that passes is worth more than its few pixels.
    """
    error = reconstruction.float() - video
    l1, mse = error.abs().mean(), error.square().mean()
    minimised = (1 - l2_share) * l1 + l2_share * mse
    if moving is not None and moving_weight != 1:
        each = (1 - l2_share) * error.abs() + l2_share * error.square()
        minimised = minimised + (moving_weight - 1) * (each * moving).mean()
    return VAELoss(minimised + kl_weight * kl, l1, mse, kl)
