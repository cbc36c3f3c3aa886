"""Training batches of worlds: steps to find codes in, and windows of frames with the codes that lead to each.

As `minisora.data.batches`, every sample follows from (seed, position): a killed run goes on with the same ones.

Letters: B samples, T frames, H W pixels, Z channels of latents, T' H' W' latent grid.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from minisora.data.batches import LatentSource, SizedBatch
from minisora.data.clips import ClipMemory
from minisora.data.draws import rng, sample_indices

# Key of random draws, as those of `minisora.data.batches`.
_DRAWS = 1
# Of the steps that do nothing and are learned under another code, those under the code held before.
_HELD = 0.5


@dataclass(frozen=True)
class StepBatch(SizedBatch):
    """Steps from one frame to the next.

    Args:
        frames: before, now and next, B 3 3 H W uint8 (three channels of three frames).
        hidden: B bool, whether the frame before is not to be seen.
        shift: B 2, standard normal: by how much an encoder sees the frames moved.
        done: of the training, the share before each sample, B in [0, 1].
    """

    frames: Tensor
    hidden: Tensor
    shift: Tensor
    done: Tensor

    @property
    def samples(self) -> Tensor:
        """As `SizedBatch`."""
        return self.frames


class StepBatches:
    """Steps drawn from clips.

    Args:
        clips: of two frames or more.
        history_dropout: share of the samples whose frame before is hidden.
        seed: decides the draws.
        num_samples: of the whole training, for `StepBatch.done`.
    """

    def __init__(self, clips: ClipMemory, history_dropout: float, seed: int, num_samples: int):
        self.clips, self.history_dropout, self.seed, self.num_samples = (
            clips,
            history_dropout,
            seed,
            num_samples,
        )

    def at(self, positions: Sequence[int]) -> StepBatch:
        """The batch of these positions."""
        indices = sample_indices(self.clips.num_clips, positions, self.seed)
        draws = [rng(self.seed, _DRAWS, p) for p in positions]
        steps, hidden = [], []
        for clip, draw in zip(self.clips.clips(indices), draws, strict=True):
            now = int(draw.integers(clip.shape[1] - 1))
            hidden.append(bool(draw.random() < self.history_dropout))
            steps.append(clip[:, [max(0, now - 1), now, now + 1]])
        shift = np.stack([draw.standard_normal(2, dtype=np.float32) for draw in draws])
        done = torch.tensor([min(1.0, p / self.num_samples) for p in positions])
        return StepBatch(indices, torch.stack(steps), torch.tensor(hidden), torch.from_numpy(shift), done)


@dataclass(frozen=True)
class WindowBatch(SizedBatch):
    """Windows of T frames to be made, each with the frame before it and the code that leads to it.

    Args:
        latents: B Z T H' W', normalised.
        before: of the frame before each, the same shape.
        codes: B T; the code of a hidden one is that of "not told".
        noise, before_noise: as the latents, standard normal.
        normal: B T, standard normal draws that become noise levels.
        context: B T in [0, 1), draws that say which frames stand as those before others do, a little noisy.
        before_level: B T in [0, 1), of the greatest noise level of a frame before.
        at_play: B T in [0, 1), draws that say which frames have a noise level of play, and which.
        own: B in [0, 1), draws that say in which windows the past is the model's own.
        done: of the training, the share before each window, B in [0, 1].
    """

    latents: Tensor
    before: Tensor
    codes: Tensor
    noise: Tensor
    before_noise: Tensor
    normal: Tensor
    context: Tensor
    before_level: Tensor
    at_play: Tensor
    own: Tensor
    done: Tensor

    def rows(self, chosen: Tensor) -> "WindowBatch":
        """The windows of a mask, B bool."""
        (numbers,) = chosen.nonzero(as_tuple=True)
        tensors = {name: value[chosen] for name, value in vars(self).items() if name != "indices"}
        return WindowBatch([self.indices[number] for number in numbers.tolist()], **tensors)

    @property
    def samples(self) -> Tensor:
        """As `SizedBatch`."""
        return self.latents


class WindowBatches:
    """Windows drawn from the latents of clips.

    Args:
        source: latents of one frame each.
        codes: N T'-1 of all clips; `codes[:, t]` leads from frame t to frame t + 1.
        frames: T of a window; clips that are no longer give fewer.
        code_dropout: share of the codes that are hidden.
        hidden: the code of "not told", one more than there are codes.
        seed: decides the draws.
        idle: which codes are those of doing nothing, K bool; None: none are known.
        idle_share: share of the runs of steps with such codes that get another one: half of them that of the last step
            before that did something, as buttons are held, the others any.
        num_samples: of the whole training, for `WindowBatch.done`.
    """

    def __init__(
        self,
        source: LatentSource,
        codes: Tensor,
        frames: int,
        code_dropout: float,
        hidden: int,
        seed: int,
        idle: Tensor | None = None,
        idle_share: float = 0.0,
        num_samples: int = 1,
    ):
        self.source, self.codes, self.seed = source, codes, seed
        self.frames = min(frames, codes.shape[1])
        self.code_dropout, self.hidden, self.idle_share = code_dropout, hidden, idle_share
        self.num_samples = num_samples
        self.idle = torch.zeros(hidden, dtype=torch.bool) if idle is None else idle
        # What an idle step may be learned under.
        self._others = (~self.idle).nonzero()[:, 0]

    def at(self, positions: Sequence[int]) -> WindowBatch:
        """The batch of these positions."""
        indices = sample_indices(len(self.codes), positions, self.seed)
        clips = self.source.latents(indices)  # B Z T' H' W'
        latents, before, codes, noise, levels, own = [], [], [], [], [], []
        for clip, led, p in zip(clips, self.codes[indices], positions, strict=True):
            draw = rng(self.seed, _DRAWS, p)
            first = int(draw.integers(self.codes.shape[1] - self.frames + 1))
            # The code of the step from frame t leads to frame t + 1, beside which it stands here.
            before.append(clip[:, first : first + self.frames])
            latents.append(clip[:, first + 1 : first + 1 + self.frames])
            told = torch.from_numpy(draw.random(self.frames) >= self.code_dropout)
            noise.append(draw.standard_normal((2, *latents[-1].shape), dtype=np.float32))
            drawn = [draw.standard_normal(self.frames), *draw.random((2, self.frames))]
            levels.append(np.stack([*drawn, draw.random(self.frames)]))
            own.append(draw.random())
            pressed = self._pressed(led, draw)[first : first + self.frames]
            codes.append(torch.where(told, pressed, self.hidden))
        both = torch.from_numpy(np.stack(noise))  # B 2 Z T H' W'
        normal, context, level, at_play = torch.from_numpy(np.stack(levels)).float().unbind(1)  # each B T
        return WindowBatch(
            indices,
            torch.stack(latents),
            torch.stack(before),
            torch.stack(codes),
            both[:, 0],
            both[:, 1],
            normal,
            context,
            level,
            at_play,
            torch.tensor(own),
            torch.tensor([min(1.0, p / self.num_samples) for p in positions]),
        )

    def _pressed(self, codes: Tensor, draw: np.random.Generator) -> Tensor:
        """The codes of a clip's steps as they are learned: some runs of those that do nothing have another code.

        A run has one as a whole, as a button that is held at a wall goes on doing nothing. If each step had its own, a
        button pressed after a rest would be learned to do nothing about as often as to do something.
        """
        if not self.idle_share or not len(self._others) or not self.idle.any():
            return codes
        idle, count = self.idle[codes], len(codes)
        # Steps that do nothing are of one run where as many came before them that do something.
        run = (~idle).long().cumsum(0)
        tried = torch.from_numpy(draw.random(count + 1) < self.idle_share)[run] & idle
        other = self._others[torch.from_numpy(draw.integers(len(self._others), size=count + 1))][run]
        held = torch.from_numpy(draw.random(count + 1) < _HELD)[run]
        # Of each step, the last one up to it that did something; -1 before there is one.
        last = torch.where(idle, -1, torch.arange(count)).cummax(0).values
        other = torch.where(held & (last >= 0), codes[last], other)
        return torch.where(tried, other, codes)
