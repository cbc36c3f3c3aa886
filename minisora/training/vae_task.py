"""Stage one as a task: the VAE on random spacetime crops.

Letters: B batch, Z latent channels, T' H' W' latent grid.
"""

import math
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from minisora.config import Config, VAETrainConfig
from minisora.data.batches import (
    CropBatches,
    VAEBatch,
)
from minisora.data.clips import ClipDataset, ClipMemory, to_float
from minisora.errors import UserError
from minisora.memory import available_memory
from minisora.models.build import build_vae
from minisora.models.vae import VideoVAE, halve, vae_loss
from minisora.pipelines.model_folder import load_pipeline
from minisora.training.tasks import Task, shape_text, validation_parts

# Clips that the statistics of the latents are measured on.
_STATISTICS_CLIPS = 256
# Bytes of activations that a validation of the VAE may take.
_VALIDATION_BYTES = 2 << 30


class VAETask(Task):
    """Stage one: reconstruct random spacetime crops."""

    name = "vae"
    block = "ResBlock"

    def __init__(self, config: Config, train: ClipDataset, validation: ClipDataset):
        self.config = config
        self.settings: VAETrainConfig = config.train_vae
        torch.manual_seed(config.seed)
        self.model: VideoVAE = build_vae(config)
        # In words, what of another VAE this one begins with.
        self.begun = _begin_with(self.model, config.train_vae.init) if config.train_vae.init else ""
        clip = config.clip
        # The whole clip must fit the strides too.
        self.model.latent_size(clip.frames, clip.height, clip.width)
        self.crop = _fit_crop(config.train_vae.crop, (clip.frames, clip.height, clip.width))
        latent_shape = (config.vae.latent_channels, *self.model.latent_size(*self.crop))
        if self.settings.scale_equivariance and min(latent_shape[2:]) < 2:
            raise UserError(
                f"train_vae.scale_equivariance halves latents, but a crop of {shape_text(self.crop)} has "
                f"{shape_text(latent_shape[1:])} of them: set train_vae.scale_equivariance=0, or larger crops and clips"
            )
        self.memory = ClipMemory(train, config.train_vae.max_clips)
        if config.train_vae.workers:
            self.memory.fill()
        self.validation = ClipMemory(validation, limit=available_memory() // 8)
        self.source = CropBatches(
            self.memory,
            self.crop,
            latent_shape,
            config.seed,
            moving=self.settings.moving_weight > 1,
            moving_crops=self.settings.moving_crops,
        )

    def loss(self, model: nn.Module, batch: VAEBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Reconstruction, KL and what halved latents show; "psnr" is of the batch's mean error, in dB."""
        settings, video = self.settings, to_float(batch.video)
        weight = settings.scale_equivariance
        reconstruction, posterior, half = model(video, batch.noise, settings.latent_noise, halved=weight > 0)
        errors = partial(vae_loss, l2_share=settings.l2_share, moving_weight=settings.moving_weight)
        kl = posterior.kl()
        parts = errors(reconstruction, video, kl, kl_weight=settings.kl_weight, moving=batch.moving)
        total = parts.total
        if half is not None:
            cell = self.config.vae.spatial_factor
            moving = None if batch.moving is None else halve(batch.moving.float(), cell).gt(0)
            total = total + weight * errors(half, halve(video, cell), kl, kl_weight=0, moving=moving).total
        return total, {"l1": parts.l1, "kl": parts.kl, "psnr": 10 * torch.log10(4 / parts.mse)}

    @torch.no_grad()
    def validate(self, model: nn.Module, rank: int, world_size: int) -> dict[str, Tensor]:
        """PSNR in dB, mean over clips, of whole clips coded through the posterior mean; of what moves if weighted."""
        device = next(model.parameters()).device
        total, count, total_moving, count_moving = torch.zeros(4, device=device)
        for part, weight in validation_parts(self.validation.num_clips, rank, world_size, self._at_once):
            video = to_float(torch.stack(self.validation.clips(part)).to(device))
            reconstruction, _, _ = model(video, torch.zeros(self._noise_shape(len(part)), device=device))
            error = (reconstruction.clamp(-1, 1).float() - video).square()
            total += weight * _decibels(error.flatten(1).mean(1)).sum()
            count += weight * len(part)
            if self.settings.moving_weight > 1:
                moves = torch.stack(self.validation.moving(part)).to(device).unsqueeze(1)  # B 1 T H W
                pixels = moves.flatten(1).sum(1)
                errors = (error.mean(1, keepdim=True) * moves).flatten(1).sum(1)[pixels > 0]
                total_moving += weight * _decibels(errors / pixels[pixels > 0]).sum()
                count_moving += weight * (pixels > 0).sum()
        sums = {"psnr": total, "count": count}
        if self.settings.moving_weight > 1:
            sums |= {"psnr_moving": total_moving, "count_psnr_moving": count_moving}
        return sums

    @property
    def _at_once(self) -> int:
        """Clips validated at a time: 8, or as many as a pass over whole clips has room for."""
        clip = self.config.clip
        pixels = clip.frames * clip.height * clip.width
        return max(1, min(8, int(_VALIDATION_BYTES / (pixels * self.model.pixel_bytes()))))

    def _noise_shape(self, batch: int) -> tuple[int, ...]:
        clip = self.config.clip
        grid = self.model.latent_size(clip.frames, clip.height, clip.width)
        return (batch, self.config.vae.latent_channels, *grid)

    @torch.no_grad()
    def set_statistics(self, vae: VideoVAE) -> None:
        """Measure mean and deviation of the latents per channel, so that the DiT sees unit variance."""
        vae.latent_mean.zero_()
        vae.latent_std.fill_(1)
        raw = []
        count = min(self.memory.num_clips, _STATISTICS_CLIPS)
        for start in range(0, count, 16):
            clips = self.memory.clips(range(start, min(start + 16, count)))
            raw.append(vae.to_latents(to_float(torch.stack(clips).to(vae.device))).cpu())
        values = torch.cat(raw).transpose(0, 1).flatten(1)  # Z (B T' H' W')
        vae.latent_mean.copy_(values.mean(1))
        spread = values.std(1) if values.shape[1] > 1 else torch.ones(len(values))
        vae.latent_std.copy_(spread.clamp_min(1e-4))

    def describe(self) -> dict[str, str]:
        """Facts to print before step 0."""
        clip = self.config.clip
        shape = self._noise_shape(1)[1:]
        values = 3 * clip.frames * clip.height * clip.width
        pixels = (3, clip.frames, clip.height, clip.width)
        return {
            "memory": self.memory.describe(pixels, "lower train_vae.max_clips or the size of clip"),
            "clip": f"{clip.frames} frames of {clip.height}x{clip.width}, trained on crops of {shape_text(self.crop)}",
            "latents": f"{shape[0]} x {shape_text(shape[1:])} ({values / math.prod(shape):.0f} times fewer values)",
            **({"begins with": self.begun} if self.begun else {}),
        }


def _begin_with(vae: VideoVAE, model: str) -> str:
    """Take over the weights of another VAE that have the same name and shape; returns what was taken, in words.

    Raises:
        UserError: there is no such model, or less than half of its weights fit.
    """
    have = load_pipeline(model, "cpu").vae.state_dict()
    own = dict(vae.named_parameters())
    fitting = [name for name, value in own.items() if name in have and have[name].shape == value.shape]
    if 2 * len(fitting) < len(own):
        raise UserError(
            f"train_vae.init={model}: only {len(fitting)} of {len(own)} tensors have the shape of this config's: leave "
            "it out, or take its widths and blocks"
        )
    with torch.no_grad():
        for name in fitting:
            own[name].copy_(have[name])
    return f"{len(fitting)} of {len(own)} tensors of {model}"


def _decibels(errors: Tensor) -> Tensor:
    """PSNR of mean squared errors on the [-1, 1] scale."""
    return 10 * torch.log10(4 / errors.clamp_min(1e-12))


def _fit_crop(crop: Sequence[int] | None, clip: tuple[int, int, int]) -> tuple[int, int, int]:
    """The crop, no larger than the clip on any axis; the whole clip if there is none."""
    if crop is None:
        return clip
    return min(crop[0], clip[0]), min(crop[1], clip[1]), min(crop[2], clip[2])
