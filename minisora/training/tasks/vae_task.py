"""Stage one as a task: the VAE on random crops.

Letters: B batch, Z latent channels, T' H' W' latent grid.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from minisora.config import Config
from minisora.data.batches import CropBatches, VAEBatch
from minisora.data.clips import ClipDataset, ClipMemory, to_float
from minisora.flow.vae_loss import vae_loss
from minisora.memory import available_memory
from minisora.models.build import build_vae
from minisora.models.vae import VideoVAE
from minisora.training.tasks.task import size_text, validation_parts

_STATISTICS_CLIPS = 256
_VALIDATION_BYTES = 2 << 30  # of activations


class VAETask:
    """Stage one: reconstruct random spacetime crops."""

    name = "vae"
    block = "ResBlock"

    def __init__(self, config: Config, train: ClipDataset, validation: ClipDataset):
        self.config, self.settings = config, config.train_vae
        torch.manual_seed(config.seed)
        self.model: VideoVAE = build_vae(config)
        clip = config.clip
        self.model.latent_size(
            clip.frames, clip.height, clip.width
        )  # the whole clip must fit the strides too
        self.crop = _fit_crop(config.train_vae.crop, (clip.frames, clip.height, clip.width))
        latent_shape = (config.vae.latent_channels, *self.model.latent_size(*self.crop))
        self.memory = ClipMemory(train, config.train_vae.max_clips)
        if config.train_vae.workers:
            self.memory.fill()
        self.validation = ClipMemory(validation, limit=available_memory() // 8)
        self.source = CropBatches(self.memory, self.crop, latent_shape, config.seed)

    def loss(self, model: nn.Module, batch: VAEBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Reconstruction and KL; "psnr" is of the batch's mean error, in dB."""
        video = to_float(batch.video)
        reconstruction, posterior = model(video, batch.noise)
        parts = vae_loss(
            reconstruction,
            video,
            posterior.kl(),
            kl_weight=self.settings.kl_weight,
            l2_share=self.settings.l2_share,
        )
        return parts.total, {"l1": parts.l1, "kl": parts.kl, "psnr": 10 * torch.log10(4 / parts.mse)}

    @torch.no_grad()
    def validate(self, model: nn.Module, rank: int, world_size: int) -> dict[str, Tensor]:
        """PSNR in dB (mean over clips) of whole clips coded through the posterior mean."""
        device = next(model.parameters()).device
        total = torch.zeros((), device=device)
        count = 0.0
        for part, weight in validation_parts(self.validation.num_clips, rank, world_size, self._at_once):
            video = to_float(torch.stack(self.validation.clips(part)).to(device))
            reconstruction, _ = model(video, torch.zeros(self._noise_shape(len(part)), device=device))
            mse = (reconstruction.clamp(-1, 1).float() - video).square().flatten(1).mean(1)
            total += weight * (10 * torch.log10(4 / mse.clamp_min(1e-12))).sum()
            count += weight * len(part)
        return {"psnr": total, "count": torch.tensor(count, device=device)}

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
        kept = shape[0] * shape[1] * shape[2] * shape[3]
        pixels = (3, clip.frames, clip.height, clip.width)
        return {
            "memory": self.memory.describe(pixels, "lower train_vae.max_clips or the size of clip"),
            "clip": f"{clip.frames} frames of {clip.height}x{clip.width}, trained on crops of {size_text(self.crop)}",
            "latents": f"{shape[0]} x {size_text(shape[1:])} ({values / kept:.0f} times fewer values)",
        }


def _fit_crop(crop: Sequence[int] | None, clip: tuple[int, int, int]) -> tuple[int, int, int]:
    """The crop, no larger than the clip on any axis; the whole clip if there is none."""
    if crop is None:
        return clip
    return min(crop[0], clip[0]), min(crop[1], clip[1]), min(crop[2], clip[2])
