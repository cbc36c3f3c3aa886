"""What of a video a VAE codes at a time, so that its activations fit in memory: rows, chunks of frames, tiles.

The parts give what the whole gives (causality makes chunks exact, a halo makes tiles exact); only the last bits may
differ. Ordinary clips are coded whole.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from minisora.memory import available_memory, is_out_of_memory
from minisora.models.causal_conv import Stream

_MOST = {"cpu": 2 << 30, "cuda": 8 << 30}  # bytes of activations: more at a time are no faster
_SHARE = 4  # of what is free, one such part
_STATE_FRAMES = 4  # what layers remember between chunks takes as much as about so many frames more
_SMALLEST_TILE = 4  # cells; below it the halo is most of the work


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
        pixel_bytes: of activations, per pixel of a frame.
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
        sizes: of the coder.
        parts: what is coded at a time.
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
                    place = out[row : row + rows, :, at : at + part.shape[2]]
                    place[..., top * cell_out :, left * cell_out :][..., : part.shape[3], : part.shape[4]] = (
                        part
                    )
                    at += part.shape[2]
    assert out is not None
    return out
