"""What sees two pictures of one world side by side: here a thing is now, there it is then.

Letters: B pairs, Z channels, h w latent grid, C width.
"""

import numpy as np
import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from minisora.models.causal_conv import FrameConv, ResBlock

# Noise on the latents of the first picture in training, at most: what a dream shows is never quite right.
_MOST_NOISE = 0.3


class TwoPictures(ModelMixin, ConfigMixin):
    """Logits of something about two pictures, each the latents of one frame.

    Args:
        channels: Z.
        height, width: h and w.
        hidden: C.
        outputs: how many logits.
    """

    def __init__(self, channels: int, height: int, width: int, hidden: int, outputs: int):
        super().__init__()
        self.see = FrameConv(3 * channels, hidden)
        self.blocks = nn.ModuleList(ResBlock(hidden, mixes_frames=False) for _ in range(2))
        # Where things are is what it is about: places are not pooled.
        self.join = nn.Linear(hidden * height * width, 4 * hidden)
        self.say = nn.Linear(4 * hidden, outputs)

    def forward(self, now: Tensor, then: Tensor) -> Tensor:
        """Logits, B outputs, of pictures B Z h w each."""
        both = torch.cat([now, then, then - now], dim=1)  # B 3Z h w
        x = self.see(both.permute(0, 2, 3, 1)[:, None])  # B 1 h w C
        for block in self.blocks:
            x = block(x)  # B 1 h w C
        return self.say(F.silu(self.join(F.silu(x).flatten(1))))  # B outputs


def noised(latents: Tensor, draws: np.random.Generator) -> Tensor:
    """Latents B Z h w with standard normal noise, each by a level of its own, even from none to `_MOST_NOISE`."""
    level = torch.from_numpy(_MOST_NOISE * draws.random(len(latents))).float()[:, None, None, None]
    return latents + level * torch.from_numpy(draws.standard_normal(latents.shape, dtype=np.float32))
