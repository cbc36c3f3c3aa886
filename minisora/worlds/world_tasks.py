"""What the training loop trains of a world beside the VAE: the finding of codes, and the dynamics."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from minisora.config import ActionTrainConfig, Config, DynamicsTrainConfig
from minisora.data.batches import LatentSource
from minisora.data.clip_views import move
from minisora.data.clips import ClipDataset, ClipMemory, to_float
from minisora.errors import UserError
from minisora.limits import seed_after
from minisora.memory import available_memory
from minisora.models.clip_grid import token_grid
from minisora.models.dit import VideoDiT
from minisora.training.tasks import Task, validation_sums
from minisora.worlds.actions import ActionModel
from minisora.worlds.dynamics import build_dynamics, idle_codes, window_errors
from minisora.worlds.step_batches import StepBatch, StepBatches, WindowBatch, WindowBatches

# Part of the mean over all guesses in the loss: much at first, so that each learns something, then little.
_MEAN_SHARE = (0.3, 0.02)
# Of the training, when it has become little.
_MEAN_UNTIL = 0.7
# Of a side: standard deviation of how far an encoder sees frames moved.
_SHIFT = 0.1
# Clips that codes are found in, at most: a step shows little of a clip, and all of them are held.
MOST_CLIPS = 1000
# Steps of the validation for each of its clips.
_STEPS_OF_A_CLIP = 8


class ActionTask(Task):
    """Guess the next frame by each code; the best guess learns."""

    name = "actions"
    block = "ResBlock"
    settings: ActionTrainConfig
    model: ActionModel
    source: StepBatches

    def __init__(self, config: Config, train: ClipDataset, validation: ClipDataset):
        self.config, self.settings = config, config.train_actions
        if config.clip.frames < 2:
            raise UserError("a world is learned from clips of two frames or more: set clip.frames=32")
        self.model = self.fresh_model()
        self.memory = ClipMemory(train, MOST_CLIPS)
        seen = ClipMemory(validation, limit=available_memory() // 8)
        samples = self.settings.steps * self.settings.batch_size
        self.source = StepBatches(self.memory, config.world.history_dropout, config.seed, samples)
        self._validation = StepBatches(seen, 0.0, seed_after(config.seed, 1), 1)
        self._num_validation = _STEPS_OF_A_CLIP * seen.num_clips

    def fresh_model(self) -> ActionModel:
        """The model before training; always the same for the same config."""
        world = self.config.world
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.config.seed)
            return ActionModel(
                world.codes,
                world.discovery,
                world.action_side,
                world.action_width,
                world.action_depth,
                world.changing_weight,
            )

    def loss(self, model: nn.Module, batch: StepBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """The error of the guess by each step's code, and a falling part of the mean over the guesses made.

        "codes" is how many codes the steps of the batch have.
        """
        frames = to_float(batch.frames)
        before = torch.where(batch.hidden[:, None, None, None], frames[:, :, 1], frames[:, :, 0])
        frames = torch.stack([before, frames[:, :, 1], frames[:, :, 2]], dim=2)  # B 3 3 H W
        shown = frames
        if self.config.world.discovery == "fsq":
            sides = torch.tensor(frames.shape[-2:], device=frames.device)
            shown = move(frames, (_SHIFT * sides * batch.shift).round().long())
        found = model(frames, shown)
        first, last = _MEAN_SHARE
        share = first + (last - first) * (batch.done / _MEAN_UNTIL).clamp_max(1)  # B
        loss = (found.error + share * found.mean_error).mean()
        used = torch.tensor(float(len(found.codes.unique())))
        return loss, {"best": found.error.mean(), "codes": used}

    @torch.no_grad()
    def validate(self, model: nn.Module, rank: int, world_size: int) -> dict[str, Tensor]:
        """Error on unseen clips of the guess by the code that a step has, and "loss_any_code" beside it.

        That is the mean error over the guesses by all codes under "winner": how much codes tell. Under "fsq", which
        guesses by the encoder's code alone, it is the same guess's, and "loss" is more by what pushes codes apart.
        """
        device = next(model.parameters()).device
        any_code = torch.zeros((), device=device)

        def summed_loss(part: range, batch: StepBatch) -> Tensor:
            nonlocal any_code
            found = model(to_float(batch.frames))
            any_code = any_code + found.mean_error.sum()
            return found.error.sum()

        clips = self._num_validation
        sums = validation_sums(self._validation, clips, rank, world_size, device, summed_loss)
        return {**sums, "loss_any_code": any_code}

    def describe(self) -> dict[str, str]:
        """Facts to print before step 0."""
        clip, world = self.config.clip, self.config.world
        shape = (3, clip.frames, clip.height, clip.width)
        found = "the best of as many guesses" if world.discovery == "winner" else "a quantised encoder"
        return {
            "memory": self.memory.describe(shape, "lower the number of clips or the size of clip"),
            "codes": f"{world.codes}, by {found}",
        }


class DynamicsTask(Task):
    """Predict the clean frames of windows from noisy ones, the frame before each and the code that leads to it."""

    name = "dynamics"
    block = "DiTBlock"
    settings: DynamicsTrainConfig
    model: VideoDiT
    source: WindowBatches

    def __init__(
        self,
        config: Config,
        train: LatentSource,
        train_codes: Tensor,
        validation: LatentSource,
        validation_codes: Tensor,
    ):
        self.config, self.settings = config, config.train_dynamics
        world = config.world
        self.model = self.fresh_model()
        # Of codes without a meaning, in a trial, as well.
        idle = idle_codes(train, train_codes, world.codes) if world.idle_share else None
        self.source = WindowBatches(
            train,
            train_codes,
            world.frames,
            world.code_dropout,
            world.codes,
            config.seed,
            idle,
            world.idle_share,
            self.settings.steps * self.settings.batch_size,
        )
        self._validation = WindowBatches(
            validation, validation_codes, world.frames, 0.0, world.codes, seed_after(config.seed, 1)
        )
        self._num_validation = len(validation_codes)

    def fresh_model(self) -> VideoDiT:
        """The model before training; always the same for the same config."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.config.seed)
            return build_dynamics(self.config)

    def loss(self, model: nn.Module, batch: WindowBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Weighted squared error of the clean frames."""
        return window_errors(model, batch, self.config).mean(), {}

    @torch.no_grad()
    def validate(self, model: nn.Module, rank: int, world_size: int) -> dict[str, Tensor]:
        """Loss on unseen clips at fixed noise, and the same with another code in the place of each."""
        device = next(model.parameters()).device
        other = torch.zeros((), device=device)

        def summed_loss(part: range, batch: WindowBatch) -> Tensor:
            nonlocal other
            codes = self.config.world.codes
            further = 1 + torch.arange(len(batch.codes), device=device)[:, None] % (codes - 1)
            others = replace(batch, codes=(batch.codes + further) % codes)
            other = other + window_errors(model, others, self.config, own=False).sum()
            return window_errors(model, batch, self.config, own=False).sum()

        clips = self._num_validation
        sums = validation_sums(self._validation, clips, rank, world_size, device, summed_loss)
        return {**sums, "loss_other_codes": other}

    def describe(self) -> dict[str, str]:
        """Facts to print before step 0."""
        batch, world = self.source.at([0]), self.config.world
        channels, frames, height, width = batch.latents.shape[1:]
        grid = token_grid((frames, height, width), self.model.patch)
        return {
            "latents": f"{channels} x {height}x{width} a frame, {grid[1] * grid[2]} tokens",
            "windows": f"{frames} frames, each follows from {world.window - 1} before it and a code of {world.codes}",
        }
