"""The clips that an evaluation of a run is of, each read or sampled once: held-out clips, samples, training clips.

What they say of the model is in `minisora.evaluate.own_clips`.

Letters: B clips of a batch, T frames, H W pixels, Z T' H' W' latents.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from minisora.data.clip_views import num_unaltered
from minisora.data.clips import ClipDataset, to_float
from minisora.data.latent_cache import LatentCache, cache_keys
from minisora.errors import UserError
from minisora.evaluate.advice import FEW
from minisora.evaluate.clip_sets import (
    SeenClips,
    TrainingClips,
    VAECopies,
    batches,
    captions_read,
    frame_similarity,
    is_known,
    matching,
    prompts_of,
)
from minisora.evaluate.compare import Bar
from minisora.evaluate.likeness import psnr, psnr_moving
from minisora.evaluate.memorisation import Nearest, find_cache, nearest_clips, sample_latents
from minisora.evaluate.video_network import VideoNetwork
from minisora.limits import seed_after
from minisora.pipelines.pipeline import MiniSoraPipeline

NUM_SAMPLES = 48
# Held-out clips that are looked at, the first of the data set's.
MOST_HELD_OUT = 64
# Captions on the sheet, at most.
SHEET = 6
# Draws of training clips that say how far the floor varies.
DRAWS = 16
# dB of clips that are equal, which have no finite PSNR.
_EQUAL = 100.0
# Pixels per side that the window of SSIM needs.
_SSIM_SIDE = 16

# Rows of the sheet: of each caption on it, words and a video 3 T H W in [-1, 1] a row.
SheetRows: TypeAlias = dict[str, list[tuple[str, Tensor]]]


@dataclass(frozen=True)
class OwnClips:
    """What to evaluate, and how it is sampled.

    Args:
        run: the --out of minisora train.
        model: that it trained; None: RUN/model.
        samples: to make, at least.
        features: a network of torchvision or a file of its weights, as in `VideoNetwork`; None: of latents alone.
        seed: sample i starts from the noise of seed + i; also of the draws of training clips.
        steps: sampling steps; None: the model's own.
        guidance: guidance scale; None: the model's own.
        batch_size: clips in a forward pass.
    """

    run: Path
    model: Path | None = None
    samples: int = NUM_SAMPLES
    features: str | None = None
    seed: int = 0
    steps: int | None = None
    guidance: float | None = None
    batch_size: int = 8


@dataclass(frozen=True)
class HeldOut:
    """Held-out clips, and how the VAE copies them.

    Args:
        captions: of the clips.
        real: the clips.
        copies: of them by the VAE, in the same order.
        quality: how good each copy is.
        nearest: of each clip, the training clip whose latents are nearest to its own.
        rows: the first clip of each caption on the sheet, and its copy.
    """

    captions: list[str]
    real: SeenClips
    copies: SeenClips
    quality: VAECopies
    nearest: list[Nearest]
    rows: SheetRows


@dataclass(frozen=True)
class Sampled:
    """Samples for the captions of held-out clips, looked at as videos.

    Args:
        prompts: of the samples.
        one_round: as many of the first prompts as there are held-out clips whose captions the model knows, or fewer.
        clips: the samples.
        nearest: of each, the training clip whose latents are nearest to those that were sampled.
        rows: the first sample of each caption on the sheet, and the training clip nearest to it.
    """

    prompts: list[str]
    one_round: list[str]
    clips: SeenClips
    nearest: list[Nearest]
    rows: SheetRows


@dataclass(frozen=True)
class Matched:
    """Training clips with the captions of one round of samples.

    Args:
        draws: `DRAWS` choices of them by index, each as many as the round has captions and in its order.
        captions: of the first draw.
        real: those of the first draw.
        copies: of these by the VAE.
        stills: of these, their median frames repeated.
    """

    draws: list[list[int]]
    captions: list[str]
    real: SeenClips
    copies: SeenClips
    stills: SeenClips


@dataclass(frozen=True)
class GatheredClips:
    """All sets of clips of an evaluation.

    Args:
        training: the training clips as far as there are latents of them.
        num_training: how many the run has, without altered views.
        views: how often each of them stands in the set.
        held_out: first clips that were not trained on.
        sampled: for their captions.
        matched: training clips to compare with.
        not_told: what cannot be told of them, a line each.
    """

    training: TrainingClips
    num_training: int
    views: int
    held_out: HeldOut
    sampled: Sampled
    matched: Matched
    not_told: list[str]

    @property
    def few(self) -> bool:
        """Whether sets of clips are too small to be compared."""
        return min(len(self.held_out.captions), len(self.sampled.one_round)) < FEW

    @property
    def sheet(self) -> list[tuple[str, Tensor]]:
        """Words and videos 3 T H W in [-1, 1] of the sheet, caption after caption."""
        both = (self.held_out.rows, self.sampled.rows)
        return [row for caption in self.held_out.rows for rows in both for row in rows.get(caption, [])]


def gather(
    options: OwnClips,
    pipeline: MiniSoraPipeline,
    network: VideoNetwork | None,
    training: ClipDataset,
    held_out: ClipDataset,
    bar: Bar,
) -> GatheredClips:
    """Look at every clip of an evaluation.

    Args:
        options: the run and how it is sampled.
        pipeline: the model, on its device.
        network: gives features of videos; None: there are none.
        training, held_out: clips of the run.
        bar: shows progress.

    Raises:
        UserError: the model knows no word of the held-out captions, or a file cannot be read any more.
    """
    look = _Look(options, pipeline, network, bar)
    keys = list(cache_keys(pipeline.vae).values())
    cache = find_cache(options.run, training, keys)
    trained_on = TrainingClips(
        training, cache, look.encode, options.batch_size, bar("encoding training clips")
    )
    not_told = []
    if len(trained_on) < len(training):
        not_told.append(
            f"the run keeps no latents of this VAE: compared with {len(trained_on)} of "
            f"{len(training)} training clips"
        )
    unseen = look.at_held_out(held_out, find_cache(options.run, held_out, keys), trained_on)
    known = [caption for caption in unseen.captions if is_known(pipeline, caption)]
    if not known:
        raise UserError(
            "the model knows no word of the held-out captions: pass the model that this run trained"
        )
    if len(known) < len(unseen.captions):
        not_told.append(
            f"{len(unseen.captions) - len(known)} held-out captions have no word that the model knows: not sampled"
        )
    sampled = look.at_samples(known, set(unseen.rows), trained_on)
    if len(sampled.one_round) < FEW <= len(unseen.captions):
        not_told.append(
            f"{len(sampled.one_round)} samples: how far they lie from real clips cannot be told below {FEW}"
        )
    matched = look.at_training(sampled.one_round, trained_on)
    own = num_unaltered(training)
    return GatheredClips(trained_on, own, len(training) // own, unseen, sampled, matched, not_told)


@dataclass(frozen=True)
class _Look:
    """What it takes to look at clips: the model, a network for features if there is one, and progress."""

    options: OwnClips
    pipeline: MiniSoraPipeline
    network: VideoNetwork | None
    bar: Bar

    def encode(self, videos: Tensor) -> Tensor:
        """Latents B Z T' H' W' of clips B 3 T H W in [-1, 1], on the CPU."""
        vae = self.pipeline.vae
        return vae.to_latents(videos.to(vae.device)).float().cpu()

    def decode(self, latents: Tensor) -> Tensor:
        """Clips B 3 T H W in [-1, 1] of latents B Z T' H' W', on the CPU."""
        vae = self.pipeline.vae
        return vae.to_video(latents.to(vae.device)).float().cpu()

    def at_held_out(
        self, dataset: ClipDataset, cache: LatentCache | None, training: TrainingClips
    ) -> HeldOut:
        """The first held-out clips, and the VAE's copies of them.

        Args:
            dataset: all of the held-out clips.
            cache: latents of them; None: they are encoded now.
            training: to find the nearest of.
        """
        count = min(len(dataset), MOST_HELD_OUT)
        progress = self.bar("held-out clips")
        real, copied, quality = SeenClips(), SeenClips(), VAECopies()
        rows: SheetRows = {}
        similarity = frame_similarity()
        captions = [] if cache is None else cache.captions()[:count]
        for indices in batches(range(count), self.options.batch_size):
            videos = to_float(dataset.clips(indices))
            if cache is None:
                captions += captions_read(dataset, indices)
            latents = self.encode(videos) if cache is None else cache.latents(indices)
            copies = self.decode(latents)
            real.add(videos, latents, self.network)
            copied.add(copies, self.encode(copies), None, moves=False)
            quality.psnr += psnr(copies, videos).clamp_max(_EQUAL).tolist()
            quality.moving += psnr_moving(copies, videos).clamp_max(_EQUAL).tolist()
            quality.still += psnr_moving(_stills(videos), videos).clamp_max(_EQUAL).tolist()
            if similarity is not None and min(videos.shape[-2:]) >= _SSIM_SIDE:
                quality.ssim += [similarity(copy, video) for copy, video in zip(copies, videos, strict=True)]
            for index, video, copy in zip(indices, videos, copies, strict=True):
                caption = captions[index]
                if caption not in rows and len(rows) < SHEET:
                    rows[caption] = [
                        (f"{caption} | held out", video),
                        (f"{caption} | its copy by the VAE", copy),
                    ]
            progress(indices[-1] + 1, count)
        nearest = nearest_clips(real.all_latents, training.blocks())
        return HeldOut(captions, real, copied, quality, nearest, rows)

    def at_samples(self, captions: Sequence[str], on_sheet: set[str], training: TrainingClips) -> Sampled:
        """Samples for captions of held-out clips that the model knows.

        Args:
            captions: at least one.
            on_sheet: those of which a sample is kept for the sheet.
            training: to find the nearest of.
        """
        options = self.options
        prompts = prompts_of(captions, options.samples)
        seen = SeenClips()
        made: list[Tensor] = []
        shown: dict[str, tuple[int, Tensor]] = {}
        progress = self.bar("sampling")
        for indices, latents in sample_latents(
            self.pipeline, prompts, options.seed, options.batch_size, options.steps, options.guidance
        ):
            videos = self.decode(latents)
            made.append(latents.float().cpu())
            seen.add(videos, self.encode(videos), self.network)
            for index, video in zip(indices, videos, strict=True):
                if prompts[index] in on_sheet and prompts[index] not in shown:
                    shown[prompts[index]] = (index, video.clone())
            progress(indices[-1] + 1, len(prompts))
        nearest = nearest_clips(torch.cat(made), training.blocks())
        rows: SheetRows = {}
        for text, (index, video) in shown.items():
            near = nearest[index]
            clip = to_float(training.dataset.clips([near.index]))[0]
            rows[text] = [
                (f"{text} | sample, seed {seed_after(options.seed, index)}", video),
                (f"{text} | training clip nearest to it, {near.distance:.2f} away", clip),
            ]
        # As many samples as there are held-out clips have their captions, again and again.
        return Sampled(prompts, list(captions[: options.samples]), seen, nearest, rows)

    def at_training(self, captions: Sequence[str], training: TrainingClips) -> Matched:
        """Training clips with these captions, the VAE's copies and the stills of them."""
        rng = np.random.default_rng(self.options.seed)
        # Real against real: not of altered views.
        own = training.captions[: training.unaltered]
        draws = [matching(captions, own, rng) for _ in range(DRAWS)]
        real, copied, still = SeenClips(), SeenClips(), SeenClips()
        progress = self.bar("training clips")
        for indices in batches(draws[0], self.options.batch_size):
            videos, latents = to_float(training.dataset.clips(indices)), training.latents(indices)
            copies, stills = self.decode(latents), _stills(videos)
            real.add(videos, latents, self.network)
            copied.add(copies, self.encode(copies), self.network, moves=False)
            still.add(stills, self.encode(stills), self.network, moves=False)
            progress(len(real.activity), len(draws[0]))
        return Matched(draws, [training.captions[index] for index in draws[0]], real, copied, still)


def _stills(videos: Tensor) -> Tensor:
    """Clips without motion, of the same size: the median frame of each, repeated."""
    return videos.median(dim=2, keepdim=True).values.expand_as(videos).contiguous()
