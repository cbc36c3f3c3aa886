"""The two things that are trained, each as data, model and loss; the loop knows nothing else of them.

Letters: B batch, Z latent channels, T' H' W' latent grid.
"""

import copy
import hashlib
import math
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from minisora.config import BucketConfig, ClipConfig, Config, TrainConfig
from minisora.data.batches import (
    BatchSource,
    ClipMemory,
    CropBatches,
    DiTBatch,
    LatentBatches,
    LatentSource,
    MixedBatches,
    PackedBatch,
    PackedBatches,
    PairBatches,
    VAEBatch,
    from_bytes,
    to_bytes,
)
from minisora.data.clip import ClipDataset
from minisora.errors import UserError
from minisora.flow.conditioning import FrameCondition
from minisora.flow.path import FlowSample, flow_loss, interpolate, logit_normal
from minisora.flow.vae_loss import vae_loss
from minisora.models.build import build_dit, build_text_encoder, build_vae
from minisora.models.dit import VideoDiT
from minisora.models.packing import pack
from minisora.models.patchify import check_clip, token_grid
from minisora.models.text import PretrainedTextEncoder, TextEncoder
from minisora.models.vae import VideoVAE
from minisora.pipelines.pipeline import MiniSoraPipeline

NUM_SIGMA_BUCKETS = 8  # validation noise levels: the middles of eighths of [0, 1]
_STATISTICS_CLIPS = 256


class Task(Protocol):
    """What the loop needs: a name, settings, the module to optimise, batches, a loss and a validation."""

    @property
    def name(self) -> str:
        """ "vae" or "dit"."""
        ...

    @property
    def block(self) -> str:
        """Class of the repeated layer, the unit in which FSDP2 shards."""
        ...

    @property
    def settings(self) -> TrainConfig:
        """Of the stage."""
        ...

    @property
    def model(self) -> nn.Module:
        """What is optimised."""
        ...

    @property
    def source(self) -> BatchSource[Any]:
        """Where batches come from."""
        ...

    def loss(self, model: nn.Module, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of a batch on the model's device, and parts of it to report."""
        ...

    def validate(self, model: nn.Module, rank: int, world_size: int) -> dict[str, Tensor]:
        """Sums over this rank's share of the fixed validation clips, with their number as "count"."""
        ...

    def describe(self) -> dict[str, str]:
        """Facts to print before step 0."""
        ...


def fingerprint(module: nn.Module) -> str:
    """Hex hash of a module's weights and buffers."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:32]


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
        self.validation = validation
        self.source = CropBatches(self.memory, self.crop, latent_shape, config.seed)

    def loss(self, model: nn.Module, batch: VAEBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Reconstruction and KL; "psnr" is of the batch's mean error, in dB."""
        reconstruction, posterior = model(batch.video, batch.noise)
        parts = vae_loss(
            reconstruction,
            batch.video,
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
        indices = range(rank, len(self.validation), world_size)
        for start in range(0, len(indices), 8):
            part = indices[start : start + 8]
            video = from_bytes(to_bytes(self.validation.clips(part))).to(device)
            reconstruction, _ = model(video, torch.zeros(self._noise_shape(len(part)), device=device))
            mse = (reconstruction.clamp(-1, 1).float() - video).square().flatten(1).mean(1)
            total += (10 * torch.log10(4 / mse.clamp_min(1e-12))).sum()
        return {"psnr": total, "count": torch.tensor(float(len(indices)), device=device)}

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
            raw.append(vae.to_latents(from_bytes(torch.stack(clips)).to(vae.device)).cpu())
        values = torch.cat(raw).transpose(0, 1).flatten(1)  # Z (B T' H' W')
        vae.latent_mean.copy_(values.mean(1))
        vae.latent_std.copy_(values.std(1).clamp_min(1e-4))

    def describe(self) -> dict[str, str]:
        """Facts to print before step 0."""
        clip = self.config.clip
        shape = self._noise_shape(1)[1:]
        values = 3 * clip.frames * clip.height * clip.width
        kept = shape[0] * shape[1] * shape[2] * shape[3]
        return {
            "clip": f"{clip.frames} frames of {clip.height}x{clip.width}, trained on crops of {_size(self.crop)}",
            "latents": f"{shape[0]} x {_size(shape[1:])} ({values / kept:.0f} times fewer values)",
        }


class Denoiser(nn.Module):
    """The DiT with the text encoder that learns beside it, as one module to optimise."""

    def __init__(self, dit: VideoDiT, text_encoder: TextEncoder | PretrainedTextEncoder | None):
        super().__init__()
        self.dit = dit
        self.text_encoder = text_encoder

    def forward(
        self,
        noisy: Tensor | Sequence[Tensor],
        sigma: Tensor | Sequence[Tensor],
        ids: Tensor | None,
        mask: Tensor | None,
        capacity: int = 0,
    ) -> Tensor | list[Tensor]:
        """Velocity B Z T' H' W' of noisy latents under the token ids and mask (B M) of their captions.

        With a `capacity`, sequences of clips' latents and noise levels are packed (`VideoDiT.forward_packed`).
        """
        said: tuple[Tensor, ...] = ()
        if self.text_encoder is not None and ids is not None and mask is not None:
            text = self.text_encoder(ids, mask)
            said = (text.tokens, text.mask, text.pooled)
        if capacity:
            return self.dit.forward_packed(list(noisy), list(sigma), capacity, *said)
        return self.dit(noisy, sigma, *said)


class DiTTask:
    """Stage two: predict the velocity of noisy latents under their captions."""

    name = "dit"
    block = "DiTBlock"

    def __init__(
        self,
        config: Config,
        vae: VideoVAE,
        train: LatentSource,
        validation: LatentSource,
        buckets: Sequence[LatentSource] = (),
    ):
        if config.dit.num_classes is not None:
            raise UserError(
                "dit.num_classes is for the FLOP tables of the DiT paper; training conditions on captions: "
                "set dit.num_classes=null dit.text_conditioning=true"
            )
        self.config, self.settings, self.vae = config, config.train_dit, vae
        flow, factors = config.flow, config.vae
        sizes: list[ClipConfig | BucketConfig] = [config.clip, *config.data.buckets]
        lengths = []
        for size in sizes:
            latent = check_clip(
                size.frames,
                size.height,
                size.width,
                temporal_factor=factors.temporal_factor,
                spatial_factor=factors.spatial_factor,
                patch=config.dit.patch,
            )
            lengths.append(math.prod(token_grid(latent, config.dit.patch)))
        if config.data.packing is not None:
            pack(lengths, config.data.packing)  # says which clip is too long for a row
        if config.dit.patch[0] > 1 and (flow.known_share or flow.image_share):
            raise UserError(
                f"dit.patch spans {config.dit.patch[0]} latent frames, so no single one can be known or an image: "
                "set dit.patch=[1,2,2], or flow.known_share=0 flow.image_share=0"
            )
        self.source: LatentBatches | MixedBatches | PackedBatches | PairBatches
        self._validation: LatentBatches | PairBatches
        parts = [LatentBatches(source, flow, config.seed) for source in (train, *buckets)]
        self.source = parts[0]
        shares = [1.0, *(bucket.share for bucket in config.data.buckets)]
        if config.data.packing is not None:
            self.source = PackedBatches(parts, shares, image_share=flow.image_share, seed=config.seed)
        elif buckets or flow.image_share:
            self.source = MixedBatches(
                parts,
                shares,
                image_share=flow.image_share,
                batch_size=self.settings.batch_size,
                seed=config.seed,
            )
        self.model = self.fresh_model()
        # Validation draws its noise from a seed of its own and always from the same positions.
        plain = flow.model_copy(update={"caption_dropout": 0.0, "known_share": 0.0})
        self._validation = LatentBatches(validation, plain, config.seed + 1)
        self._num_validation = len(validation)

    def fresh_model(self) -> Denoiser:
        """The model as it is before training; always the same for the same config and captions."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.config.seed)
            text = None
            if self.config.dit.text_conditioning:
                text = build_text_encoder(self.config, self.source.all_captions)
            return Denoiser(build_dit(self.config, text.width if text else None), text)

    def loss(self, model: nn.Module, batch: DiTBatch | PackedBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean squared error of the velocity."""
        if isinstance(batch, PackedBatch):
            return self._packed_errors(model, batch).mean(), {}
        return self._velocity_errors(model, batch, self._levels(batch)).mean(), {}

    def _levels(self, batch: DiTBatch) -> Tensor:
        """The noise level of every clip, B."""
        flow = self.config.flow
        return logit_normal(batch.normal, flow.sigma_mean, flow.sigma_std, flow.shift)

    def _velocity_errors(self, model: nn.Module, batch: DiTBatch, sigma: Tensor) -> Tensor:
        """Squared error of the velocity per clip, over the frames that are not known: B."""
        sample = _on_the_path(batch, sigma)
        ids, mask = self._tokens(batch.captions, sample.noisy.device)
        return flow_loss(model(sample.noisy, sample.sigma, ids, mask), sample, batch.known)

    def _packed_errors(self, model: nn.Module, batch: PackedBatch) -> Tensor:
        """As `_velocity_errors`, of clips of all sizes in common rows of tokens."""
        samples = [_on_the_path(part, self._levels(part)) for part in batch.parts]
        noisy = [clip for sample in samples for clip in sample.noisy]
        sigma = [level.reshape(-1) for sample in samples for level in sample.sigma]
        captions = [caption for part in batch.parts for caption in part.captions]
        ids, mask = self._tokens(captions, noisy[0].device)
        velocities = iter(model(noisy, sigma, ids, mask, self.config.data.packing))
        errors = []
        for part, sample in zip(batch.parts, samples, strict=True):
            predicted = torch.stack([next(velocities) for _ in part.indices])
            errors.append(flow_loss(predicted, sample, part.known))
        return torch.cat(errors)

    def _tokens(self, captions: Sequence[str], device: torch.device) -> tuple[Tensor | None, Tensor | None]:
        """Token ids and mask of captions, B M each; none for a model without text."""
        if self.model.text_encoder is None:
            return None, None
        ids, mask = self.model.text_encoder.tokenize(list(captions))
        return ids.to(device), mask.to(device)

    @torch.no_grad()
    def validate(self, model: nn.Module, rank: int, world_size: int) -> dict[str, Tensor]:
        """Loss on unseen clips at fixed noise and fixed noise levels, the same at every validation."""
        device = next(model.parameters()).device
        total = torch.zeros((), device=device)
        positions = range(rank, self._num_validation, world_size)
        for start in range(0, len(positions), 16):
            part = positions[start : start + 16]
            batch = self._validation.at(part).to(device)
            sigma = torch.tensor(
                [(p % NUM_SIGMA_BUCKETS + 0.5) / NUM_SIGMA_BUCKETS for p in part], device=device
            )
            total += self._velocity_errors(model, batch, sigma).sum()
        return {"loss": total, "count": torch.tensor(float(len(positions)), device=device)}

    def describe(self) -> dict[str, str]:
        """Facts to print before step 0."""
        clip, dit = self.config.clip, self.config.dit
        latent = self.vae.latent_size(clip.frames, clip.height, clip.width)
        grid = token_grid(latent, dit.patch)
        return {
            "latents": f"{self.config.vae.latent_channels} x {_size(latent)}",
            "tokens per clip": f"{grid[0] * grid[1] * grid[2]} ({_size(grid)}), {dit.attention} attention",
        }


class StudentTask(DiTTask):
    """Distillation: velocities of the straight lines between a teacher's noise and its samples."""

    def __init__(self, config: Config, teacher: MiniSoraPipeline, pairs: PairBatches):
        self.config, self.settings, self.vae, self.teacher = config, config.train_dit, teacher.vae, teacher
        held_out = min(config.data.num_validation_clips, len(pairs.noise) // 4)
        self.source, self._validation = pairs.split(held_out)
        self._num_validation = held_out
        self.model = self.fresh_model()

    def fresh_model(self) -> Denoiser:
        """A copy of the teacher."""
        teacher = Denoiser(self.teacher.dit, self.teacher.text_encoder)
        return copy.deepcopy(teacher).float().requires_grad_(True)


def _on_the_path(batch: DiTBatch, sigma: Tensor) -> FlowSample:
    """The clips of a batch at noise level sigma (B), known frames at their own."""
    if batch.known is not None and batch.known_sigma is not None:
        sigma = FrameCondition(batch.known, batch.known_sigma).sigmas(sigma)  # B T'
    return interpolate(batch.latents, batch.noise, sigma)


def _fit_crop(crop: Sequence[int] | None, clip: tuple[int, int, int]) -> tuple[int, int, int]:
    """The crop, no larger than the clip on any axis; the whole clip if there is none."""
    if crop is None:
        return clip
    return min(crop[0], clip[0]), min(crop[1], clip[1]), min(crop[2], clip[2])


def _size(numbers: Sequence[int]) -> str:
    return "x".join(str(n) for n in numbers)
