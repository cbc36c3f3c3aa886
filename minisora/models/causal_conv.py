"""Convolutions of a causal video autoencoder: per frame in space, causal in time, and changes of resolution.

Every tensor here is B T H W C with channels last in memory. Per-frame and temporal convolutions are then
plain 2-D convolutions on free views of it, which CPU and GPU libraries do best.

Causality makes streaming exact: a module that looks back keeps the frames it will need in a `Stream`, so a
long clip coded chunk by chunk gives what it would give whole.

Outside residual branches every layer starts as an isometry (an orthogonal map, no spatial mixing), so that a
fresh stack passes its input on at full strength whatever its depth; torch's default shrinks it by sqrt(3) a layer.

Letters: B batch, T frames, H W height and width, C channels, k kernel length, s stride.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Stream = dict[nn.Module, Tensor]  # the last frames that each module saw; an empty one starts a clip


class FrameConv(nn.Conv2d):
    """k x k convolution of each frame by itself, zero padded at the borders."""

    bias: nn.Parameter  # always there

    def __init__(self, in_channels: int, out_channels: int, kernel: int = 3):
        super().__init__(in_channels, out_channels, kernel, padding=kernel // 2)
        nn.init.zeros_(self.weight)
        nn.init.orthogonal_(self.weight[:, :, kernel // 2, kernel // 2])
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map B T H W C to B T H W C'."""
        frames = x.flatten(0, 1).permute(0, 3, 1, 2)  # (B T) C H W, channels last
        y = super().forward(frames).permute(0, 2, 3, 1)  # (B T) H W C'
        return y.unflatten(0, x.shape[:2])


class CausalTimeConv(nn.Conv2d):
    """Convolution along time only that sees no later frame; a clip starts as if its first frame had stood still.

    With stride s, 1 + s n frames become 1 + n, and each further chunk of s n frames becomes n.
    """

    bias: nn.Parameter  # always there

    def __init__(self, in_channels: int, out_channels: int, kernel: int = 3, stride: int = 1):
        super().__init__(in_channels, out_channels, (kernel, 1), stride=(stride, 1))
        with torch.no_grad():
            tap = nn.init.orthogonal_(torch.empty(out_channels, in_channels)) / kernel
            self.weight.copy_(tap[:, :, None, None].expand_as(self.weight))
            self.bias.zero_()

    def forward(self, x: Tensor, stream: Stream | None = None) -> Tensor:
        """Map B T H W C to B T' H W C'; `stream` carries the past of a clip that comes in chunks."""
        height = x.shape[2]
        kernel, stride = self.kernel_size[0], self.stride[0]
        past = stream.get(self) if stream is not None else None
        if past is None:
            past = x[:, :1].expand(-1, kernel - 1, -1, -1, -1)
        x = torch.cat([past, x], dim=1)  # B (T + k - 1) H W C
        if stream is not None:
            # A copy: a view would keep the whole chunk of every layer.
            stream[self] = x[:, x.shape[1] - (kernel - stride) :].clone()
        y = super().forward(x.flatten(2, 3).permute(0, 3, 1, 2))  # B C' T' (H W)
        return y.permute(0, 2, 3, 1).unflatten(2, (height, -1))


class TimeUp(nn.Module):
    """Double the frames after the first: 1 + n become 1 + 2 n (the first stands for itself alone)."""

    def __init__(self, channels: int):
        super().__init__()
        self.expand = nn.Linear(channels, 2 * channels)
        # Both frames start as copies of the one they come from.
        with torch.no_grad():
            self.expand.weight.copy_(torch.eye(channels).repeat(2, 1))
            self.expand.bias.zero_()

    def forward(self, x: Tensor, stream: Stream | None = None) -> Tensor:
        """Map B T H W C to B (2T - 1) H W C, or to 2T frames in a later chunk."""
        first = stream is None or self not in stream
        if stream is not None:
            stream[self] = x.new_empty(0)
        y = self.expand(x).unflatten(-1, (2, -1))  # B T H W 2 C
        y = y.movedim(4, 2).flatten(1, 2)  # B 2T H W C
        return y[:, 1:] if first else y


class SpaceDown(nn.Module):
    """Halve height and width: each 2 x 2 square becomes one place, then a linear map."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.merge = nn.Linear(4 * in_channels, out_channels)
        nn.init.orthogonal_(self.merge.weight)
        nn.init.zeros_(self.merge.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map B T H W C to B T H/2 W/2 C'."""
        return self.merge(fold_pixels(x, 2))


class SpaceUp(nn.Module):
    """Double height and width: a linear map, then each place becomes a 2 x 2 square."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.split = nn.Linear(in_channels, 4 * out_channels)
        nn.init.orthogonal_(self.split.weight)
        nn.init.zeros_(self.split.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map B T H W C to B T 2H 2W C'."""
        return unfold_pixels(self.split(x), 2)


def fold_pixels(x: Tensor, factor: int) -> Tensor:
    """Space to channels: B T (H f) (W f) C to B T H W (f f C)."""
    batch, frames, height, width, channels = x.shape
    x = x.reshape(batch, frames, height // factor, factor, width // factor, factor, channels)
    return x.transpose(3, 4).flatten(4)


def unfold_pixels(x: Tensor, factor: int) -> Tensor:
    """Channels to space, undoing `fold_pixels`: B T H W (f f C) to B T (H f) (W f) C."""
    batch, frames, height, width, _ = x.shape
    x = x.unflatten(-1, (factor, factor, -1)).transpose(3, 4)
    return x.reshape(batch, frames, height * factor, width * factor, -1)


class ResBlock(nn.Module):
    """x + time(space(x)): a 3 x 3 convolution per frame and a causal one over time, pre-normalised.

    Normalisation is per position over channels, so it leaks nothing through time or across tiles.

    Args:
        channels: in and out.
        mixes_frames: whether the second convolution looks back in time; if not, it has one tap.
    """

    def __init__(self, channels: int, mixes_frames: bool = True):
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.space = FrameConv(channels, channels)
        self.space.reset_parameters()
        self.norm2 = nn.LayerNorm(channels)
        self.time = CausalTimeConv(channels, channels, kernel=3 if mixes_frames else 1)
        nn.init.zeros_(self.time.weight)
        nn.init.zeros_(self.time.bias)

    def forward(self, x: Tensor, stream: Stream | None = None) -> Tensor:
        """Map B T H W C to B T H W C."""
        y = self.space(F.silu(self.norm1(x)))
        return x + self.time(F.silu(self.norm2(y)), stream)
