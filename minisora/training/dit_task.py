"""Stage two as tasks: the DiT on noisy latents under their captions, and a student on what its teacher makes.

Letters: B batch, Z latent channels, T' H' W' latent grid.
"""

import copy
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from minisora.config import BucketConfig, ClipConfig, Config, DiTTrainConfig
from minisora.data.batches import (
    Batch,
    BatchSource,
    DiTBatch,
    LatentBatches,
    LatentSource,
    MixedBatches,
    PackedBatch,
    PackedBatches,
    TrajectoryBatches,
    check_batch_size,
)
from minisora.errors import UserError
from minisora.flow.known_frames import FrameCondition
from minisora.flow.path import FlowSample, flow_loss, interpolate, logit_normal
from minisora.limits import seed_after
from minisora.models.build import build_dit, build_text_encoder, latent_grid, set_training
from minisora.models.clip_grid import token_grid
from minisora.models.dit import VideoDiT
from minisora.models.packed import PACKED_NEEDS_FULL, pack, packed_velocities
from minisora.models.text import PretrainedTextEncoder, TextEncoder
from minisora.models.vae import VideoVAE
from minisora.pipelines.pipeline import MiniSoraPipeline
from minisora.training.tasks import Task, shape_text, validation_sums

# Noise levels of the DiT's validation: the middles of eighths of [0, 1].
NUM_SIGMA_BUCKETS = 8


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
        self._last_source, self._last_steps = self.source, 0
        augment = config.data.augment
        if augment.views > 1 and augment.plain_epochs:
            # The first views of all clips are the clips as they are.
            plain = [
                LatentBatches(source, flow, config.seed, num_clips=len(source) // augment.views)
                for source in (train, *buckets)
            ]
            clips = sum(source.num_clips for source in plain)
            self._last_source = self._joined(plain)
            self._last_steps = math.ceil(augment.plain_epochs * clips / self.settings.batch_size)
        self.model = self.fresh_model()
        # Validation draws its noise from a seed of its own and always from the same positions.
        given = flow.replace(caption_dropout=0.0, known_share=0.0)
        seed = config.data.validation_seed
        self._validation = LatentBatches(
            validation, given, seed_after(config.seed, 1) if seed is None else seed
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
    def last_source(self) -> BatchSource[Any]:
        """Clips as they are, where views are learned before: samples should look like the clips."""
        return self._last_source

    @property
    def last_steps(self) -> int:
        """Steps in which each clip is seen `data.augment.plain_epochs` times."""
        return self._last_steps

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
            "latents": f"{self.config.vae.latent_channels} x {shape_text(latent)}",
            "tokens per clip": f"{grid[0] * grid[1] * grid[2]} ({shape_text(grid)}), {dit.attention} attention",
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
    last_source, last_steps = Task.last_source, Task.last_steps

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
