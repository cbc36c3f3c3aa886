"""How far it is from one picture to another, in frames, learned from clips without a label.

Frames of one clip are as far apart as the clip has it; those of two clips are further than any. What is learned is how
probable each distance is (bins that widen, as near ones matter most), and what a planner asks for is the expected one.
The distance is that of whoever recorded the clips, who wanders: mostly longer than it need be, but as a rule the longer
the further. Between a picture and a goal across a wall it knows of the wall, of which a distance of pixels or latents
knows nothing, and it does not stop growing where the player has left the goal's place, as theirs do. (Savinov et al.
2018, arXiv 1803.00653, learn from video whether a place is near; Hartikainen et al. 2019, arXiv 1907.08225, how many
steps away.)

Letters: B pairs, N clips, Z channels, T frames, h w latent grid, C width.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers.configuration_utils import register_to_config
from torch import Tensor

from minisora.config import Config
from minisora.data.clips import ClipDataset, to_float
from minisora.data.dataset import open_dataset
from minisora.data.draws import rng
from minisora.errors import UserError
from minisora.files import replace_folder
from minisora.models.vae import VideoVAE
from minisora.screen import Progress
from minisora.training.stages import read_model
from minisora.worlds.dream import Dream
from minisora.worlds.two_pictures import TwoPictures, noised

# Clips that it is learned from, at most; all of them are held as latents.
MOST_CLIPS = 1000
# First frames of each bin; the last bin is that of two clips.
EDGES = (0, 1, 2, 3, 4, 6, 8, 11, 15, 20, 26, 33, 48, 64, 96)
# Share of the pairs that are of two clips.
_APART = 0.1
_BATCH, _LEARNING_RATE, _WEIGHT_DECAY = 128, 1e-3, 0.01
# The share of the steps in which the learning rate falls to nothing.
_DECAY = 0.3
_CLIPS_AT_ONCE = 4
# Frames of the clips that it is learned from.
_FRAMES = 32


class TemporalDistance(TwoPictures):
    """Frames from one picture to another: logits of the bins, B len(edges)+1.

    Args:
        channels: Z.
        height, width: h and w.
        hidden: C.
        edges: first frames of each bin, rising from 0.
    """

    @register_to_config
    def __init__(
        self, channels: int, height: int, width: int, hidden: int = 48, edges: tuple[int, ...] = EDGES
    ):
        super().__init__(channels, height, width, hidden, len(edges) + 1)

    @torch.no_grad()
    def frames(self, now: Tensor, then: Tensor) -> Tensor:
        """Expected distance in frames, B, of pictures B Z h w and a goal of the same shape or of one, 1 Z h w.

        The geometric mean: a bin counts by the logarithm of its middle, the last as twice the one before.
        """
        chances = self(now, then.expand_as(now)).float().softmax(-1)  # B bins
        edges = torch.tensor(self.config.edges, device=now.device, dtype=torch.float32)
        ends = torch.cat([edges[1:], edges[-1:] * 1.5])
        middles = torch.cat([(edges + ends - 1) / 2, edges[-1:] * 2.5])
        return torch.expm1((chances * torch.log1p(middles)).sum(-1))

    def bins(self, frames: Tensor) -> Tensor:
        """The bin of each distance in frames (integers)."""
        edges = torch.tensor(self.config.edges, device=frames.device)
        return torch.bucketize(frames, edges, right=True) - 1


def clips_of(dream: Dream, folder: Path) -> ClipDataset:
    """The clips of a folder as a dream sees them, of one length.

    Raises:
        UserError: there are none, or they cannot be read.
    """
    height, width = dream.size
    config = Config().replace(
        **{
            "data.source": "folder",
            "data.path": folder,
            "data.require_captions": False,
            "clip.height": height,
            "clip.width": width,
            "clip.fps": dream.fps,
            "clip.frames": _FRAMES,
        }
    )
    return open_dataset(config, "train")


@torch.no_grad()
def encode_clips(vae: VideoVAE, clips: ClipDataset, progress: Progress | None = None) -> Tensor:
    """Latents of the first `MOST_CLIPS` clips, N Z T h w on the CPU.

    Args:
        vae: of single frames.
        clips: of one length.
        progress: called with (clips done, clips in all).
    """
    count = min(MOST_CLIPS, len(clips))
    latents = []
    for first in range(0, count, _CLIPS_AT_ONCE):
        videos = clips.clips(range(first, min(first + _CLIPS_AT_ONCE, count)))
        latents.append(vae.to_latents(to_float(videos.to(vae.device))).float().cpu())
        if progress:
            progress(min(first + _CLIPS_AT_ONCE, count), count)
    return torch.cat(latents)


def learn_distance(
    latents: Tensor, steps: int, seed: int = 0, progress: Progress | None = None
) -> TemporalDistance:
    """Learn how far pictures are apart.

    Args:
        latents: of clips, N Z T h w.
        steps: of the optimizer.
        seed: decides everything that is drawn.
        progress: called with (steps done, steps in all).

    Raises:
        UserError: there is one clip, or clips have one frame.
    """
    num_clips, channels, frames, height, width = latents.shape
    if num_clips < 2 or frames < 2:
        raise UserError(
            f"{num_clips} clips of {frames} frames do not tell how far pictures are apart: give two or more of both"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = TemporalDistance(channels, height, width)
    optimizer = torch.optim.AdamW(model.parameters(), lr=_LEARNING_RATE, weight_decay=_WEIGHT_DECAY)
    for step in range(steps):
        now, then, apart = pairs(latents, _BATCH, rng(seed, 1, step))
        target = torch.where(apart < 0, len(model.config.edges), model.bins(apart))
        for group in optimizer.param_groups:
            group["lr"] = _LEARNING_RATE * min(1.0, (1 - step / steps) / _DECAY)
        loss = F.cross_entropy(model(now, then), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if progress:
            progress(step + 1, steps)
    return model.eval().requires_grad_(False)


def pairs(latents: Tensor, count: int, draws: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Pictures to tell the distance of, the first a little noisy.

    Args:
        latents: N Z T h w.
        count: B.
        draws: where they are drawn from.

    Returns:
        The earlier and the later ones, B Z h w each, and frames between them, B; -1 of two clips.
    """
    num_clips, frames = latents.shape[0], latents.shape[2]
    clip, gap = draws.integers(num_clips, size=count), draws.integers(frames, size=count)
    first = (draws.random(count) * (frames - gap)).astype(np.int64)
    apart = draws.random(count) < _APART
    other = (clip + draws.integers(1, num_clips, size=count)) % num_clips

    def at(clips: np.ndarray, places: np.ndarray) -> Tensor:
        return latents[torch.from_numpy(clips), :, torch.from_numpy(places)]  # B Z h w

    now, then = at(clip, first), at(np.where(apart, other, clip), first + gap)
    return noised(now, draws), then, torch.from_numpy(np.where(apart, -1, gap))


def latent_distance(now: Tensor, then: Tensor) -> Tensor:
    """Mean squared difference of latents, B Z h w and 1 Z h w: B. What the learned distance is to be better than."""
    return (now - then).square().flatten(1).mean(1)


def distance_of(
    kept: Path, dream: Dream, clips: Path | None, steps: int, progress: Progress | None = None
) -> TemporalDistance:
    """The distance that lies in KEPT/distance; where there is none, it is learned and put there.

    Args:
        kept: see `minisora.worlds.world_folder.learned_beside`.
        dream: whose latents it is of.
        clips: folder that it is learned from; None: it has to be there.
        steps: of the optimizer.
        progress: called with (clips or steps done, in all).

    Raises:
        UserError: there is none and no clips either, it is damaged, or it cannot be written.
    """
    folder = kept / "distance"
    height, width = dream.size
    if not (folder / "config.json").is_file():
        if clips is None:
            raise UserError(
                f"{kept} has no distance yet: give --clips, the folder that the world was learned from, or --cost "
                "latents"
            )
        model = learn_distance(
            encode_clips(dream.vae, clips_of(dream, clips), progress), steps, progress=progress
        )
        try:
            replace_folder(folder, model.save_pretrained)
        except OSError as error:
            raise UserError(f"cannot write {folder}: {error.strerror}; free space") from error
    model = read_model(TemporalDistance, folder, "delete that folder and give --clips").eval()
    config = model.config
    own, shape = (config.channels, config.height, config.width), dream.vae.latent_size(1, height, width)
    if own != (dream.vae.config.latent_channels, *shape[1:]):
        raise UserError(f"the distance in {folder} is of another world's latents: delete it and give --clips")
    return model.requires_grad_(False)
