"""What the loop trains: a task is data, model, loss and validation. Here are the VAE, the DiT and a student of it.

Letters: B batch, Z latent channels, T' H' W' latent grid.
"""

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from minisora.config import BucketConfig, ClipConfig, Config, DiTTrainConfig, TrainConfig, VAETrainConfig
from minisora.data.batches import (
    Batch,
    BatchSource,
    CropBatches,
    DiTBatch,
    LatentBatches,
    LatentSource,
    MixedBatches,
    PackedBatch,
    PackedBatches,
    TrajectoryBatches,
    VAEBatch,
    check_batch_size,
)
from minisora.data.clips import ClipDataset, ClipMemory, to_float
from minisora.errors import UserError
from minisora.flow.known_frames import FrameCondition
from minisora.flow.path import FlowSample, flow_loss, interpolate, logit_normal
from minisora.limits import seed_after
from minisora.memory import available_memory
from minisora.models.build import build_dit, build_text_encoder, build_vae, latent_grid, set_training
from minisora.models.clip_grid import token_grid
from minisora.models.dit import VideoDiT
from minisora.models.packed import PACKED_NEEDS_FULL, pack, packed_velocities
from minisora.models.text import PretrainedTextEncoder, TextEncoder
from minisora.models.vae import VideoVAE, vae_loss
from minisora.pipelines.model_folder import load_pipeline
from minisora.pipelines.pipeline import MiniSoraPipeline

# Clips that the statistics of the latents are measured on.
_STATISTICS_CLIPS = 256
# Bytes of activations that a validation of the VAE may take.
_VALIDATION_BYTES = 2 << 30
# Latents validated at a time.
_VALIDATION_BATCH = 16
# Noise levels of the DiT's validation: the middles of eighths of [0, 1].
NUM_SIGMA_BUCKETS = 8


class Task(ABC):
    """What the loop needs: a name, settings, the module to optimise, batches, a loss and a validation."""

    # "vae", "dit" or "caption", as in the config's train_NAME.
    name: str
    # Class of the repeated layer, the unit in which FSDP2 shards and blocks are compiled.
    block: str
    settings: TrainConfig
    model: nn.Module
    source: BatchSource[Any]

    @abstractmethod
    def loss(self, model: nn.Module, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of a batch on the model's device, and parts of it to report."""

    @abstractmethod
    def validate(self, model: nn.Module, rank: int, world_size: int) -> dict[str, Tensor]:
        """Sums over this rank's share of the fixed validation clips, with their number as "count".

        A sum over others than these has its own number, as "count_" and its name.
        """

    def cost_batches(self, clips: int) -> Sequence[Batch]:
        """A batch of so many clips of every shape that steps may have, by which the costs are counted and timed."""
        return [self.source.at(range(clips))]

    @abstractmethod
    def describe(self) -> dict[str, str]:
        """Facts to print before step 0."""

    @property
    def source_of_fall(self) -> BatchSource[Any]:
        """Where the batches come from while the learning rate falls."""
        return self.source

    @property
    def keeps_best(self) -> bool:
        """Whether the model is the averaged weights of the least validation "loss", not those of the last step."""
        return False

    @property
    def patience(self) -> int:
        """So many validations in a row without a lesser "loss" end the stage; 0: none do."""
        return 0


def validation_parts(count: int, rank: int, world_size: int, size: int) -> Iterator[tuple[range, float]]:
    """This process's share of the first `count` positions, at most `size` at a time, each part with its weight.

    Every process gets as many parts: FSDP2 gathers weights in every forward pass and would wait for a process
    that makes none. One that has no position left repeats one, with weight 0.
    """
    positions = range(rank, count, world_size)
    for start in range(0, -(-count // world_size), size):
        part = positions[start : start + size]
        yield (part, 1.0) if part else (range(rank % count, rank % count + 1), 0.0)


def validation_sums(
    source: BatchSource[Any],
    clips: int,
    rank: int,
    world_size: int,
    device: torch.device,
    summed_loss: Callable[[range, Any], Tensor],
) -> dict[str, Tensor]:
    """Sums for `Task.validate` over the first `clips` positions of a source.

    Args:
        source: of the batches.
        clips: how many there are to validate on.
        rank: of this process.
        world_size: number of processes.
        device: of the model.
        summed_loss: of the positions of a batch and the batch: the sum over its clips, a scalar.
    """
    total, count = torch.zeros((), device=device), torch.zeros((), device=device)
    for part, weight in validation_parts(clips, rank, world_size, _VALIDATION_BATCH):
        total += weight * summed_loss(part, source.at(part).to(device))
        count += weight * len(part)
    return {"loss": total, "count": count}


def _shape_text(numbers: Sequence[int]) -> str:
    """Such as "17x64x64"."""
    return "x".join(str(n) for n in numbers)


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
        """Reconstruction and KL; "psnr" is of the batch's mean error, in dB."""
        video = to_float(batch.video)
        reconstruction, posterior = model(video, batch.noise, self.settings.latent_noise)
        parts = vae_loss(
            reconstruction,
            video,
            posterior.kl(),
            kl_weight=self.settings.kl_weight,
            l2_share=self.settings.l2_share,
            moving=batch.moving,
            moving_weight=self.settings.moving_weight,
        )
        return parts.total, {"l1": parts.l1, "kl": parts.kl, "psnr": 10 * torch.log10(4 / parts.mse)}

    @torch.no_grad()
    def validate(self, model: nn.Module, rank: int, world_size: int) -> dict[str, Tensor]:
        """PSNR in dB, mean over clips, of whole clips coded through the posterior mean; of what moves if weighted."""
        device = next(model.parameters()).device
        total, count, total_moving, count_moving = torch.zeros(4, device=device)
        for part, weight in validation_parts(self.validation.num_clips, rank, world_size, self._at_once):
            video = to_float(torch.stack(self.validation.clips(part)).to(device))
            reconstruction, _ = model(video, torch.zeros(self._noise_shape(len(part)), device=device))
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
            "clip": f"{clip.frames} frames of {clip.height}x{clip.width}, trained on crops of {_shape_text(self.crop)}",
            "latents": f"{shape[0]} x {_shape_text(shape[1:])} ({values / math.prod(shape):.0f} times fewer values)",
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


def check_dit(config: Config) -> None:
    """Refuse a config whose DiT cannot be trained; to be called before the time of a VAE is spent.

    Raises:
        UserError: the message says what does not fit and how to mend it.
    """
    dit, flow = config.dit, config.flow
    if dit.num_classes is not None:
        raise UserError(
            "dit.num_classes is for the FLOP tables of the DiT paper; training conditions on captions: "
            "set dit.num_classes=null dit.text_conditioning=true"
        )
    if dit.patch[0] > 1 and (flow.known_share or flow.image_share):
        raise UserError(
            f"dit.patch spans {dit.patch[0]} latent frames, so no single one can be known or an image: "
            "set dit.patch=[1,2,2], or flow.known_share=0 flow.image_share=0"
        )
    with torch.device("meta"):
        # Says which widths do not fit.
        build_dit(config, config.text.width)
    sizes: list[ClipConfig | BucketConfig] = [config.clip, *config.data.buckets]
    lengths = [math.prod(token_grid(latent_grid(config, size), dit.patch)) for size in sizes]
    if config.data.packing is not None:
        # Says which clip is too long for a row.
        pack(lengths, config.data.packing)
        if dit.attention != "full":
            raise UserError(PACKED_NEEDS_FULL)
    check_batch_size(config.train_dit.batch_size, config.train_dit.accumulation, 1)


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

        With a `capacity`, sequences of clips' latents and noise levels are packed (`minisora.models.packed`).
        """
        caption: tuple[Tensor, ...] = ()
        if self.text_encoder is not None and ids is not None and mask is not None:
            text = self.text_encoder(ids, mask)
            caption = (text.tokens, text.mask, text.pooled)
        if capacity:
            return packed_velocities(self.dit, list(noisy), list(sigma), capacity, *caption)
        return self.dit(noisy, sigma, *caption)


class DiTTask(Task):
    """Stage two: predict the velocity of noisy latents under their captions."""

    name = "dit"
    block = "DiTBlock"
    settings: DiTTrainConfig
    model: Denoiser
    source: LatentBatches | MixedBatches | PackedBatches | TrajectoryBatches
    _validation: LatentBatches | TrajectoryBatches

    def __init__(
        self,
        config: Config,
        vae: VideoVAE,
        train: LatentSource,
        validation: LatentSource,
        buckets: Sequence[LatentSource] = (),
    ):
        self.config, self.settings, self.vae = config, config.train_dit, vae
        flow = config.flow
        self._sizes = [LatentBatches(source, flow, config.seed) for source in (train, *buckets)]
        self.source = self._joined(self._sizes)
        self._of_fall = self.source
        augment = config.data.augment
        if augment.views > 1 and augment.until_fall:
            # The first views of all clips are the clips as they are.
            as_they_are = [
                LatentBatches(source, flow, config.seed, num_clips=len(source) // augment.views)
                for source in (train, *buckets)
            ]
            self._of_fall = self._joined(as_they_are)
        self.model = self.fresh_model()
        # Validation draws its noise from a seed of its own and always from the same positions.
        plain = flow.replace(caption_dropout=0.0, known_share=0.0)
        seed = config.data.validation_seed
        self._validation = LatentBatches(
            validation, plain, seed_after(config.seed, 1) if seed is None else seed
        )
        self._num_validation = len(validation)

    def _joined(self, parts: Sequence[LatentBatches]) -> LatentBatches | MixedBatches | PackedBatches:
        """One source of the clips of every size, the first that of `clip`."""
        config, flow = self.config, self.config.flow
        shares = [1.0, *(bucket.share for bucket in config.data.buckets)]
        if config.data.packing is not None:
            return PackedBatches(parts, shares, image_share=flow.image_share, seed=config.seed)
        if len(parts) > 1 or flow.image_share:
            size = self.settings.batch_size
            return MixedBatches(
                parts, shares, image_share=flow.image_share, batch_size=size, seed=config.seed
            )
        return parts[0]

    @property
    def source_of_fall(self) -> BatchSource[Any]:
        """Clips as they are, where altered views are learned `until_fall`: samples should look like the clips."""
        return self._of_fall

    def fresh_model(self) -> Denoiser:
        """The model as it is before training; always the same for the same config and captions."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.config.seed)
            text = None
            if self.config.dit.text_conditioning:
                text = build_text_encoder(self.config, self.source.all_captions)
            return Denoiser(build_dit(self.config, text.width if text else None), text)

    @property
    def keeps_best(self) -> bool:
        """As `train_dit.keep` says."""
        return self.settings.keep == "best"

    @property
    def patience(self) -> int:
        """As `train_dit.patience` says."""
        return self.settings.patience

    def cost_batches(self, clips: int) -> Sequence[Batch]:
        """A batch of every size, and of the images of every size if there are any; packed clips cost as these do."""
        batches = [size.at(range(clips)) for size in self._sizes]
        return batches + [batch.images() for batch in batches if self.config.flow.image_share > 0]

    def loss(self, model: nn.Module, batch: DiTBatch | PackedBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean squared error of the velocity."""
        if isinstance(batch, PackedBatch):
            return self._packed_errors(model, batch).mean(), {}
        return self._velocity_errors(model, batch, self._levels(batch)).mean(), {}

    def _levels(self, batch: DiTBatch) -> Tensor:
        """The noise level of every clip, B."""
        if batch.sigma is not None:
            return batch.sigma
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

        def summed_loss(part: range, batch: DiTBatch) -> Tensor:
            sigma = batch.sigma
            if sigma is None:
                levels = [(p % NUM_SIGMA_BUCKETS + 0.5) / NUM_SIGMA_BUCKETS for p in part]
                sigma = torch.tensor(levels, device=device)
            return self._velocity_errors(model, batch, sigma).sum()

        clips = self._num_validation
        return validation_sums(self._validation, clips, rank, world_size, device, summed_loss)

    def describe(self) -> dict[str, str]:
        """Facts to print before step 0."""
        clip, dit = self.config.clip, self.config.dit
        latent = self.vae.latent_size(clip.frames, clip.height, clip.width)
        grid = token_grid(latent, dit.patch)
        return {
            "latents": f"{self.config.vae.latent_channels} x {_shape_text(latent)}",
            "tokens per clip": f"{grid[0] * grid[1] * grid[2]} ({_shape_text(grid)}), {dit.attention} attention",
        }


class StudentTask(DiTTask):
    """Distillation: at the start of each of its steps, the velocity that leads to where the teacher gets."""

    def __init__(self, config: Config, teacher: MiniSoraPipeline, samples: TrajectoryBatches):
        self.config, self.settings, self.vae, self.teacher = config, config.train_dit, teacher.vae, teacher
        held_out = min(config.data.num_validation_clips, len(samples) // 4)
        self.source, self._validation = samples.split(held_out)
        self._num_validation = held_out
        self.model = self.fresh_model()

    # All samples are of one shape.
    cost_batches = Task.cost_batches
    source_of_fall = Task.source_of_fall

    def fresh_model(self) -> Denoiser:
        """A copy of the teacher."""
        student = copy.deepcopy(Denoiser(self.teacher.dit, self.teacher.text_encoder)).float()
        student.dit.requires_grad_(True)
        set_training(student.dit, self.config.dit)
        # A pretrained one stays frozen.
        if isinstance(student.text_encoder, TextEncoder):
            student.text_encoder.requires_grad_(True)
        return student


def _on_the_path(batch: DiTBatch, sigma: Tensor) -> FlowSample:
    """The clips of a batch at noise level sigma (B), known frames at their own."""
    if batch.known is not None and batch.known_sigma is not None:
        sigma = FrameCondition(batch.known, batch.known_sigma).sigmas(sigma)  # B T'
    return interpolate(batch.latents, batch.noise, sigma)
