"""A causal `VideoDiT` frame by frame: the keys and values of the frames before are kept, so a frame costs one frame.

No frame sees a later one, so what the attention through time has computed of a frame stays as it is, and the next frame
looks at it. As many frames are kept as the model's window has beside the new one; what a kept frame saw of still older
ones stays in its keys, as in a pass over the whole video with the window as its mask.

Letters: B batch, C channels, H W latent grid, S tokens per frame, D width, h heads, n frames kept.
"""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor

from minisora.errors import UserError
from minisora.models.clip_grid import token_grid
from minisora.models.dit import VideoDiT
from minisora.models.patchify import unpatchify


class KeptKeys:
    """Keys and values of one attention through time; tensors are replaced, never changed.

    Args:
        most: frames to keep.
    """

    def __init__(self, most: int):
        self.most = most
        # Each (B S) h n D/h, rotated; of the frames kept, and of the frame that was looked at last.
        self._kept: tuple[Tensor, Tensor] | None = None
        self._last: tuple[Tensor, Tensor] | None = None

    def join(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """As `minisora.models.dit.PastKeys`."""
        self._last = keys, values
        if self._kept is None:
            return keys, values
        return torch.cat([self._kept[0], keys], dim=2), torch.cat([self._kept[1], values], dim=2)

    def keep(self) -> None:
        """Keep the frame that was looked at last, and let go of one that is out of the window."""
        assert self._last is not None
        joined = self.join(*self._last)
        first = joined[0].shape[2] - self.most
        self._kept = (
            (joined[0][:, :, max(0, first) :], joined[1][:, :, max(0, first) :]) if self.most else None
        )

    def take(self, rows: Tensor, batch: int) -> "KeptKeys":
        """Of these rows of a batch only."""
        taken = KeptKeys(self.most)
        if self._kept is not None:
            keys, values = (each.unflatten(0, (batch, -1))[rows].flatten(0, 1) for each in self._kept)
            taken._kept = keys, values
        return taken


class FrameMemory:
    """What a model has seen of B videos, frame after frame.

    Args:
        dit: with a `causal_window`.

    Raises:
        UserError: the model has none.
    """

    def __init__(self, dit: VideoDiT):
        if dit.config.causal_window is None or dit.patch[0] > 1:
            raise UserError(
                "this VideoDiT sees later frames: train one with causal_window and patch [1, h, w]"
            )
        self.dit = dit
        # Frames seen so far.
        self.position = 0
        self._past = [KeptKeys(dit.config.causal_window - 1) if axis == "time" else None for axis in dit.axes]

    def look(self, latents: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        """What the model says of the next frame, as of the last frame of the whole video; the memory stays as it is.

        Args:
            latents: B C 1 H W.
            sigma: noise level, B.
            labels: of the frame, B.

        Returns:
            B C' 1 H W.
        """
        dit = self.dit
        grid = token_grid((1, latents.shape[3], latents.shape[4]), dit.patch)
        x = dit.embed_latents(latents, grid)  # B 1 S D
        cond = dit.condition(sigma, None, labels)  # B 1 D
        block_cond = dit.block_condition(cond)  # B 1 D, or B 1 6D
        ropes = dit.rope_tables(grid, x.device, first=self.position)
        for block, axis, past in zip(dit.blocks, dit.axes, self._past, strict=True):
            x = block(x, block_cond, ropes[axis], past=past)  # B 1 S D
        x = dit.read_out(x, dit.modulation_out(cond))  # B 1 S (C' ph pw)
        return unpatchify(x, dit.patch, grid)  # B C' 1 H W

    def see(self, latents: Tensor, sigma: Tensor, labels: Tensor | None = None) -> None:
        """Take a frame into the memory; arguments as of `look`."""
        self.look(latents, sigma, labels)
        for past in self._past:
            if past is not None:
                past.keep()
        self.position += 1

    def copied(self) -> "FrameMemory":
        """The memory as it is now; what is seen later does not change it."""
        other = copy.copy(self)
        other._past = [copy.copy(past) for past in self._past]
        return other

    def take(self, rows: Sequence[int] | Tensor, batch: int) -> "FrameMemory":
        """The memory of these videos (indices, repeated or not) of the B there are."""
        other = copy.copy(self)
        index = torch.as_tensor(rows)
        other._past = [None if past is None else past.take(index, batch) for past in self._past]
        return other
