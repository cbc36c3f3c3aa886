"""What is done in a world, found by looking alone: a code for every step from one frame to the next.

Default ("winner"): K guesses at the next frame, one for each code, and the code of a step is the one whose guess came
nearest (winner takes all, as ILPO, Edwards et al. 2019, arXiv 1805.07914). There is no encoder and no quantiser, so
nothing can collapse but guesses that never win, which a small part of the mean over all guesses feeds. The rival
("fsq"): an encoder that sees the next frame says the code through finite scalar quantisation (Mentzer et al. 2023,
arXiv 2309.15505), two levels a dimension, as the latent action model of Genie (Bruce et al. 2024, arXiv 2402.15391)
does through a codebook.

What keeps a code from meaning right here and left there: the code enters as gain and bias of all places alike, the
network sees a few cells around and not where they are, and of a share of the examples the frame before is hidden, so
that "as before" is no code. What makes codes mean what is done and not how bright it is: errors where the picture
changes count more. All of it is measured, not hoped for: a code in use may mean nothing.

Letters: B steps, K codes, h w cells (squares of `fold` pixels of the shrunk frame), C channels, D = log2 K.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from minisora.errors import UserError
from minisora.models.causal_conv import FrameConv, ResBlock, fold_pixels

# A pixel of the shrunk frame changes where a channel differs by more than this part of the range [-1, 1].
_CHANGES = 0.03 * 2
# Spread of a quantised value before it is quantised, below which it is pushed apart.
_LEAST_SPREAD = 0.5


@dataclass(frozen=True)
class FoundCodes:
    """Of B steps: the code of each, the error of its guess, and the mean error over all guesses that were made; B."""

    codes: Tensor
    error: Tensor
    mean_error: Tensor


class ActionModel(ModelMixin, ConfigMixin):
    """Guesses the next frame from two frames and a code, and so finds the code of a step.

    Args:
        codes: K, a power of two.
        discovery: "winner" or "fsq", see above.
        side: frames are averaged down until their shorter side has at most so many pixels.
        width: C.
        depth: 3x3 convolutions, which say how far a guess sees.
        changing_weight: of errors on pixels that change, where the others have 1.
        fold: pixels folded into a cell, a side.

    Raises:
        UserError: the number of codes is no power of two.
    """

    @register_to_config
    def __init__(
        self,
        codes: int = 8,
        discovery: Literal["winner", "fsq"] = "winner",
        side: int = 32,
        width: int = 64,
        depth: int = 3,
        changing_weight: float = 20.0,
        fold: int = 2,
    ):
        super().__init__()
        if codes < 2 or codes & (codes - 1):
            raise UserError(f"codes = {codes} must be a power of two, such as 8")
        cell = 3 * fold**2
        self.see = FrameConv(2 * cell, width)
        self.blocks = nn.ModuleList(ResBlock(width, mixes_frames=False) for _ in range(depth - 1))
        self.up = nn.Linear(width, 2 * width)
        self.down = nn.Linear(2 * width, cell)
        # Gain and bias by code; the codes are apart from the start, or one guess would win everything.
        bits = int(math.log2(codes))
        self.modulation = nn.Linear(codes if discovery == "winner" else bits, 4 * width)
        nn.init.normal_(self.modulation.weight, std=0.5)
        nn.init.zeros_(self.modulation.bias)
        nn.init.normal_(self.down.weight, std=0.01)
        nn.init.zeros_(self.down.bias)
        self.encoder: nn.ModuleList | None = None
        if discovery == "fsq":
            self.encoder = nn.ModuleList(
                [FrameConv(3 * cell, width), ResBlock(width, mixes_frames=False), nn.Linear(width, bits)]
            )

    def forward(self, frames: Tensor, shown: Tensor | None = None) -> FoundCodes:
        """The codes of steps.

        Args:
            frames: before, now and next, B 3 3 H W (three channels of three frames) in [-1, 1].
            shown: the same for the encoder of "fsq", such as moved to the side, so that no code can say where.

        Returns:
            Codes and errors; for learning, `error` alone carries gradients to what was guessed best.
        """
        before, now, then = self.cells(frames).unbind(1)  # each B h w c
        change = then - now  # B h w c
        weight = self._weights(change)  # B h w c
        seen = self.features(before, now)  # B h w C
        if self.encoder is None:
            errors = self._errors(self.guesses(seen), change, weight)  # B K
            error, codes = errors.min(dim=1)
            return FoundCodes(codes, error, errors.mean(1))
        signs, spread = self._quantised(self.cells(frames if shown is None else shown))  # B D
        codes = ((signs > 0).long() * 2 ** torch.arange(signs.shape[1], device=signs.device)).sum(1)
        error = self._errors(self._guess(seen, signs[:, None]), change, weight)[:, 0]  # B
        return FoundCodes(codes, error + spread, error)

    def cells(self, frames: Tensor) -> Tensor:
        """Frames B 3 T H W shrunk and folded: B T h w c."""
        height, width = frames.shape[-2:]
        factor = max(1, math.ceil(min(height, width) / self.config.side))
        fold = self.config.fold
        small = F.avg_pool2d(frames.transpose(1, 2).flatten(0, 1).float(), factor)  # (B T) 3 h w
        # Pixels at the right and below that fill no cell are left out.
        small = small[..., : small.shape[-2] // fold * fold, : small.shape[-1] // fold * fold]
        return fold_pixels(small.unflatten(0, (len(frames), -1)).permute(0, 1, 3, 4, 2), fold)

    def features(self, before: Tensor, now: Tensor) -> Tensor:
        """What is seen of two frames, B h w c each: B h w C."""
        x = self.see(torch.cat([now, now - before], dim=-1)[:, None])  # B 1 h w C
        for block in self.blocks:
            x = block(x)  # B 1 h w C
        return x[:, 0]

    def guesses(self, seen: Tensor) -> Tensor:
        """The change to the next frame by each code: B K h w c."""
        codes = torch.arange(self.config.codes, device=seen.device)
        if self.encoder is None:
            rows = F.one_hot(codes, self.config.codes).float()  # K K
        else:
            bits = int(math.log2(self.config.codes))
            rows = (codes[:, None] >> torch.arange(bits, device=seen.device) & 1) * 2.0 - 1  # K D
        return self._guess(seen, rows.expand(len(seen), -1, -1))

    def _guess(self, seen: Tensor, rows: Tensor) -> Tensor:
        """The change by each of n codes (B n D) from what is seen (B h w C): B n h w c."""
        hidden = self.up(F.silu(seen))[:, None]  # B 1 h w 2C
        gain, bias = self.modulation(rows)[:, :, None, None].chunk(2, dim=-1)  # each B n 1 1 2C
        return self.down(F.silu(torch.addcmul(bias, hidden, 1 + gain)))  # B n h w c

    def _weights(self, change: Tensor) -> Tensor:
        """How much each value of the next frame counts, by how much it changes; B h w c."""
        pixels = change.unflatten(-1, (-1, 3))  # B h w ff 3
        changes = (pixels.abs().amax(-1, keepdim=True) > _CHANGES).float()
        return (1 + (self.config.changing_weight - 1) * changes).expand_as(pixels).flatten(-2)

    @staticmethod
    def _errors(guesses: Tensor, change: Tensor, weight: Tensor) -> Tensor:
        """Weighted mean squared error of each guess (B n h w c), B n."""
        return ((guesses.float() - change[:, None]).square() * weight[:, None]).flatten(2).mean(2)

    def _quantised(self, cells: Tensor) -> tuple[Tensor, Tensor]:
        """Codes as signs (B D, straight through) of three frames (B 3 h w c), and what pushes them apart."""
        assert self.encoder is not None
        before, now, then = cells.unbind(1)
        see, block, say = self.encoder
        x = block(see(torch.cat([now, now - before, then - now], dim=-1)[:, None]))  # B 1 h w C
        pooled = F.silu(x).amax(dim=(1, 2, 3)) + F.silu(x).mean(dim=(1, 2, 3))  # B C
        value = say(pooled).float()  # B D
        bounded = torch.tanh(value)
        signs = torch.where(bounded >= 0, 1.0, -1.0)
        spread = F.relu(_LEAST_SPREAD - bounded.std(0)).mean() if len(value) > 1 else bounded.new_zeros(())
        return bounded + (signs - bounded).detach(), spread

    @torch.no_grad()
    def codes_of(self, clip: Tensor, batch_size: int = 64) -> Tensor:
        """The code of each step of a clip.

        Args:
            clip: 3 T H W in [-1, 1], T >= 2.
            batch_size: steps at a time.

        Returns:
            T - 1 codes; `codes[t]` leads from frame t to frame t + 1.
        """
        first = torch.cat([clip[:, :1], clip[:, :-2]], dim=1)  # frames before; the first stands for its own
        steps = torch.stack([first, clip[:, :-1], clip[:, 1:]], dim=2).transpose(0, 1)  # T-1 3 3 H W
        return torch.cat([self(part).codes for part in steps.split(batch_size)])
