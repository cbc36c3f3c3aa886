"""Tells which words fit a clip by what is in its frames, wherever it is: a small convolutional network on VAE latents.

What a clip shows may be anywhere in it, a digit that flies about, say. Averages over places, which are enough for where
things are and go (`minisora.evaluate.caption_following`), do not tell it.

Letters: N clips, Z T' H' W' latents, W words, C channels.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Cells per side that larger latents are averaged to, and channels.
_SIDE, _WIDTH = 16, 32
# Training: steps, clips of a step and frames of each, drawn anew every time; the rest are of AdamW.
_STEPS, _CLIPS, _FRAMES = 600, 32, 4
_LR, _DECAY, _DROPOUT = 2e-3, 0.05, 0.2
# Clips looked at together where nothing is learned.
_AT_ONCE = 64


class WordNetwork(nn.Module):
    """Log odds of words from latents: each frame by itself, the most and the mean over places, the mean over frames.

    Args:
        channels: Z.
        words: W.
    """

    def __init__(self, channels: int, words: int):
        super().__init__()
        self.look = nn.Sequential(
            nn.Conv2d(channels, _WIDTH, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(_WIDTH, 2 * _WIDTH, 3, stride=2, padding=1),
            nn.SiLU(),
            nn.Conv2d(2 * _WIDTH, 2 * _WIDTH, 3, padding=1),
            nn.SiLU(),
        )
        self.drop = nn.Dropout(_DROPOUT)
        self.tell = nn.Linear(4 * _WIDTH, words)

    def forward(self, latents: Tensor) -> Tensor:
        """Map latents N Z T' H' W' to log odds N W."""
        frames = latents.transpose(1, 2).flatten(0, 1)  # (N T') Z H' W'
        height, width = frames.shape[2:]
        if max(height, width) > _SIDE:
            frames = F.adaptive_avg_pool2d(frames, (min(height, _SIDE), min(width, _SIDE)))
        seen = self.look(frames)  # (N T') 2C h w
        pooled = torch.cat([seen.amax((2, 3)), seen.mean((2, 3))], dim=1)
        return self.tell(self.drop(pooled)).unflatten(0, (len(latents), -1)).mean(1)

    @torch.no_grad()
    def odds(self, latents: Tensor) -> Tensor:
        """`forward` of many clips, without gradients."""
        return torch.cat([self(part.float()) for part in latents.split(_AT_ONCE)])


def learn_words(latents: Tensor, has: Tensor) -> WordNetwork:
    """A network that tells words; the same one for the same clips.

    Args:
        latents: N Z T' H' W', normalised.
        has: N W, 1 where the clip's caption has the word.
    """
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(0)
        network = WordNetwork(latents.shape[1], has.shape[1])
        optimizer = torch.optim.AdamW(network.parameters(), lr=_LR, weight_decay=_DECAY)
        rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, _LR, total_steps=_STEPS)
        for _ in range(_STEPS):
            rows = torch.randint(len(latents), (_CLIPS,))
            frames = torch.randint(latents.shape[2], (_FRAMES,))
            some = latents[rows][:, :, frames].float()
            loss = F.binary_cross_entropy_with_logits(network(some), has[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            rate.step()
    return network.eval()
