"""Clips seen again at other places: what a few labelled ones are worth is in what a coder makes of them anew.

A VAE codes the same object quite differently as it lies on the grid of its strides, so a clip moved by less than one
cell and coded again is another example, and no caption says where things are.
"""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from minisora.data.clip import Clip, ClipDataset, StandsIn
from minisora.data.clip_memory import ClipMemory, from_bytes
from minisora.data.draws import uniforms


def move(videos: Tensor, by: Tensor) -> Tensor:
    """Every video moved up and left by so many pixels, its border repeated.

    Args:
        videos: B C T H W.
        by: B 2, whole (y, x).
    """
    height, width = videos.shape[-2:]
    rows = (torch.arange(height, device=videos.device) + by[:, :1]).clamp(0, height - 1)  # B H
    columns = (torch.arange(width, device=videos.device) + by[:, 1:]).clamp(0, width - 1)  # B W
    which = torch.arange(len(videos), device=videos.device)[:, None, None]
    moved = videos.permute(0, 3, 4, 1, 2)[which, rows[:, :, None], columns[:, None, :]]  # B H W C T
    return moved.permute(0, 3, 4, 1, 2)


class MovedClips:
    """A `ClipDataset` of some clips of another, each at `views` places, the first its own.

    Args:
        dataset: where the clips are.
        places: of the clips in it.
        views: of each.
        reach: pixels that a clip is moved by at most, up, down and sideways.
        seed: of the places.
    """

    def __init__(self, dataset: ClipDataset, places: Sequence[int], views: int, reach: int, seed: int = 0):
        self.dataset, self.places = dataset, list(places)
        self._memory = ClipMemory(dataset)
        self.views, self.reach, self.seed = views, reach, seed

    def __len__(self) -> int:
        return len(self.places) * self.views

    def __getitem__(self, index: int) -> Clip:
        """View `index % views` of clip `index // views`; raises IndexError beyond the end."""
        index = range(len(self))[index]
        return Clip(self.clips([index])[0], self.captions_of([index])[0])

    def clips(self, indices: Sequence[int]) -> Tensor:
        """The videos of these views, `B C T H W`."""
        videos = from_bytes(
            torch.stack(self._memory.clips([self.places[index // self.views] for index in indices]))
        )
        drawn = torch.from_numpy(uniforms(self.seed, indices, 2))  # B 2
        by = (drawn * (2 * self.reach + 1)).floor().long() - self.reach
        own = torch.tensor([index % self.views == 0 for index in indices])
        return move(videos, torch.where(own[:, None], 0, by))

    def captions(self) -> list[str]:
        """The caption of every view: its clip's."""
        said = self.dataset.captions()
        return [said[place] for place in self.places for _ in range(self.views)]

    def captions_of(self, indices: Sequence[int]) -> list[str]:
        """The captions of the videos that `clips` gave for these views."""
        if not isinstance(self.dataset, StandsIn):
            said = self.captions()
            return [said[index] for index in indices]
        return self.dataset.captions_of([self.places[index // self.views] for index in indices])

    def fingerprint(self) -> str:
        """Hex digits of the clips and of where they are moved."""
        facts = [self.dataset.fingerprint(), self.places, self.views, self.reach, self.seed]
        return hashlib.sha256(repr(facts).encode()).hexdigest()[:32]
