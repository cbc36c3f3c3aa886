"""How good the model of a run is on the clips it was trained for, whatever they show: `minisora evaluate run RUN`.

No judge knows a person's own footage, so every number is read beside what clips of the run that were never trained on
give: the *floor* is real against real (training against held-out clips), the *ceilings* are what a perfect model
could reach through this VAE (its copies of training clips), and what one without motion would (their median frames).
Sets that are compared are of equally many clips with the same captions, as far as there are such.

Samples are judged as videos: what the VAE's decoder loses is lost. Only memorisation looks at the latents themselves.

    RUN/evaluation.json   all of it
       /evaluation.png    held-out clips, their copies, samples and the training clips nearest to them

Letters: B clips of a batch, N clips of a set, T frames, H W pixels, Z T' H' W' latents.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from minisora.data.clips import ClipDataset, to_float
from minisora.data.folder.folder_dataset import FolderDataset
from minisora.data.latent_cache import LatentCache, cache_keys
from minisora.errors import UserError
from minisora.evaluate.advice import FEW, Amounts, Facts, conclude
from minisora.evaluate.caption_following import CaptionJudge
from minisora.evaluate.clip_sets import (
    SeenClips,
    TrainingClips,
    VAECopies,
    batches,
    captions_read,
    frame_similarity,
    matching,
    mean,
    prompts_of,
)
from minisora.evaluate.compare import Bar, Experiment
from minisora.evaluate.evaluation_table import evaluation_table, verdict_lines
from minisora.evaluate.likeness import (
    FeatureSpace,
    LatentSpace,
    frechet_distance,
    motion_distance,
    psnr,
    psnr_moving,
)
from minisora.evaluate.memorisation import (
    Curves,
    Nearest,
    diagnose,
    find_cache,
    loss_by_sigma,
    moments,
    nearest_clips,
    run_clips,
    velocity_of,
)
from minisora.evaluate.video_network import VideoNetwork
from minisora.limits import MAX_COUNT, check_number, check_seed, seed_after
from minisora.models.tokenizer import words
from minisora.pipelines.model_folder import load_pipeline
from minisora.pipelines.pipeline import MiniSoraPipeline

NUM_SAMPLES = 48
# Held-out clips that are looked at, the first of the data set's.
MOST_HELD_OUT = 64
# Training clips that the judge of captions and the space of features are learned from, evenly over all.
MOST_LEARNED = 2048
# Captions that get a row of their own, at most, and those on the sheet.
ROWS, SHEET = 12, 6
# Draws of training clips that say how far the floor varies.
DRAWS = 16
# dB of clips that are equal, which have no finite PSNR.
_EQUAL = 100.0
# Pixels per side that the window of SSIM needs.
_SSIM_SIDE = 16


@dataclass(frozen=True)
class OwnClips:
    """What to evaluate, and how it is sampled."""

    run: Path  # the --out of minisora train
    model: Path | None = None  # that it trained; None: RUN/model
    samples: int = NUM_SAMPLES
    features: str | None = None  # a network of torchvision or a file of its weights, as in `VideoNetwork`
    seed: int = 0
    steps: int | None = None  # None: the model's own
    guidance: float | None = None  # None: the model's own
    batch_size: int = 8  # clips in a forward pass


def evaluate_own_clips(options: OwnClips, bar: Bar) -> Experiment:
    """The model of a run on the run's own clips: its VAE, what it samples, and whether that is learned by heart.

    Args:
        options: the run and how it is sampled.
        bar: shows progress.

    Raises:
        UserError: no such run, model or weights of a network, its data are gone, or a number is out of its range.
    """
    check_seed(options.seed)
    check_number("samples", options.samples, 1, MAX_COUNT)
    check_number("batch_size", options.batch_size, 1, MAX_COUNT)
    # Before the long part, as it may be refused.
    network = None if options.features is None else VideoNetwork(options.features)
    training_clips, held_out_clips = run_clips(options.run)
    pipeline = load_pipeline(options.model or options.run / "model")
    return _Evaluation(options, pipeline, network, training_clips, held_out_clips, bar).experiment()


class _Evaluation:
    """One evaluation: first every set of clips is looked at, then sets are compared."""

    def __init__(
        self,
        options: OwnClips,
        pipeline: MiniSoraPipeline,
        network: VideoNetwork | None,
        training: ClipDataset,
        held_out: ClipDataset,
        bar: Bar,
    ) -> None:
        self.options, self.pipeline, self.network, self.bar = options, pipeline, network, bar
        keys = list(cache_keys(pipeline.vae).values())
        cache = find_cache(options.run, training, keys)
        self.training = TrainingClips(
            training, cache, self.encode, options.batch_size, bar("encoding training clips")
        )
        self.num_training = len(training)
        self.sheet: dict[str, list[tuple[str, Tensor]]] = {}
        self.not_told: list[str] = []
        if len(self.training) < self.num_training:
            self.not_told.append(
                f"the run keeps no latents of this VAE: compared with {len(self.training)} of "
                f"{self.num_training} training clips"
            )
        self.look_at_held_out(held_out, find_cache(options.run, held_out, keys))
        self.sample()
        self.look_at_training()

    def encode(self, videos: Tensor) -> Tensor:
        """Latents B Z T' H' W' of clips B 3 T H W in [-1, 1], on the CPU."""
        vae = self.pipeline.vae
        return vae.to_latents(videos.to(vae.device)).float().cpu()

    def decode(self, latents: Tensor) -> Tensor:
        """Clips B 3 T H W in [-1, 1] of latents, on the CPU."""
        vae = self.pipeline.vae
        return vae.to_video(latents.to(vae.device)).float().cpu()

    def look_at_held_out(self, dataset: ClipDataset, cache: LatentCache | None) -> None:
        """Held-out clips and the VAE's copies of them."""
        count = min(len(dataset), MOST_HELD_OUT)
        progress = self.bar("held-out clips")
        self.held, self.copied, self.copies = SeenClips(), SeenClips(), VAECopies()
        similarity = frame_similarity()
        captions = [] if cache is None else cache.captions()[:count]
        for indices in batches(range(count), self.options.batch_size):
            videos = to_float(dataset.clips(indices))
            if cache is None:
                captions += captions_read(dataset, indices)
            latents = self.encode(videos) if cache is None else cache.latents(indices)
            copies = self.decode(latents)
            still = videos.median(dim=2, keepdim=True).values.expand_as(videos)
            self.held.add(videos, latents, self.network)
            self.copied.add(copies, self.encode(copies), None, moves=False)
            self.copies.psnr += psnr(copies, videos).clamp_max(_EQUAL).tolist()
            self.copies.moving += psnr_moving(copies, videos).clamp_max(_EQUAL).tolist()
            self.copies.still += psnr_moving(still, videos).clamp_max(_EQUAL).tolist()
            if similarity is not None and min(videos.shape[-2:]) >= _SSIM_SIDE:
                self.copies.ssim += [
                    similarity(copy, video) for copy, video in zip(copies, videos, strict=True)
                ]
            for index, video, copy in zip(indices, videos, copies, strict=True):
                self.show(captions[index], [("held out", video), ("its copy by the VAE", copy)])
            progress(len(captions), count)
        self.captions = captions

    def show(self, caption: str, rows: list[tuple[str, Tensor]]) -> None:
        """Keep the first clips of a caption for the sheet, of so many captions."""
        if caption not in self.sheet and len(self.sheet) < SHEET:
            self.sheet[caption] = [(f"{caption} | {what}", video) for what, video in rows]

    def sample(self) -> None:
        """Samples for the captions of held-out clips, each looked at as a video."""
        options = self.options
        known = [caption for caption in self.captions if self._knows(caption)]
        if not known:
            raise UserError(
                "the model knows no word of the held-out captions: pass the model that this run trained"
            )
        if len(known) < len(self.captions):
            self.not_told.append(
                f"{len(self.captions) - len(known)} held-out captions have no word that the model knows: not sampled"
            )
        self.prompts = prompts_of(known, options.samples)
        # As many samples as there are held-out clips have their captions, again and again.
        self.round = known if len(known) <= options.samples else known[: options.samples]
        if len(self.round) < FEW <= len(self.captions):
            self.not_told.append(
                f"{len(self.round)} samples: how far they lie from real clips cannot be told below {FEW}"
            )
        self.sampled = SeenClips()
        made: list[Tensor] = []
        shown: dict[str, int] = {}
        videos_shown: dict[str, Tensor] = {}
        progress = self.bar("sampling")
        for indices in batches(range(len(self.prompts)), options.batch_size):
            texts = [self.prompts[index] for index in indices]
            latents = self.pipeline(
                texts,
                seed=seed_after(options.seed, indices[0]),
                num_inference_steps=options.steps,
                guidance_scale=options.guidance,
                output_type="latent",
                progress=False,
            ).videos
            videos = self.decode(latents)
            made.append(latents.float().cpu())
            self.sampled.add(videos, self.encode(videos), self.network)
            for index, text, video in zip(indices, texts, videos, strict=True):
                if text in self.sheet and text not in shown:
                    shown[text], videos_shown[text] = index, video.clone()
            progress(indices[-1] + 1, len(self.prompts))
        self.made = torch.cat(made)
        self.nearest = nearest_clips(self.made, self.training.blocks())
        for text, index in shown.items():
            near = self.nearest[index]
            clip = to_float(self.training.dataset.clips([near.index]))[0]
            self.sheet[text] += [
                (f"{text} | sample, seed {seed_after(options.seed, index)}", videos_shown[text]),
                (f"{text} | training clip nearest to it, {near.distance:.2f} away", clip),
            ]

    def _knows(self, caption: str) -> bool:
        try:
            self.pipeline.check_prompt(caption)
        except UserError:
            return False
        return True

    def look_at_training(self) -> None:
        """Training clips with the captions of one round of samples, the VAE's copies and the stills of them."""
        rng = np.random.default_rng(self.options.seed)
        self.draws = [matching(self.round, self.training.captions, rng) for _ in range(DRAWS)]
        self.real, self.real_copies, self.real_stills = SeenClips(), SeenClips(), SeenClips()
        progress = self.bar("training clips")
        for indices in batches(self.draws[0], self.options.batch_size):
            videos, latents = to_float(self.training.dataset.clips(indices)), self.training.latents(indices)
            copies = self.decode(latents)
            stills = videos.median(dim=2, keepdim=True).values.expand_as(videos).contiguous()
            self.real.add(videos, latents, self.network)
            self.real_copies.add(copies, self.encode(copies), self.network, moves=False)
            self.real_stills.add(stills, self.encode(stills), self.network, moves=False)
            progress(len(self.real.activity), len(self.draws[0]))

    # What the sets say.

    @property
    def few(self) -> bool:
        """Whether sets of clips are too small to be compared."""
        return min(len(self.captions), len(self.round)) < FEW

    def learned(self) -> list[int]:
        """Training clips that the judge and the space of features are of."""
        count = min(len(self.training), MOST_LEARNED)
        return np.unique(np.linspace(0, len(self.training) - 1, count).round().astype(int)).tolist()

    def memorisation(self) -> tuple[Curves, float]:
        """The curves of `minisora.evaluate.memorisation`, and the loss on held-out over that on training clips."""
        velocity, statistics = velocity_of(self.pipeline), moments(self.training.blocks())
        options, device = self.options, self.pipeline.device
        losses = []
        sets = (
            ("loss on held-out clips", self.held.all_latents, self.captions),
            (
                "loss on training clips",
                self.real.all_latents,
                [self.training.captions[index] for index in self.draws[0]],
            ),
        )
        for name, latents, captions in sets:
            losses.append(
                loss_by_sigma(
                    velocity,
                    latents.to(device),
                    captions,
                    statistics,
                    options.seed,
                    options.batch_size,
                    self.bar(name),
                )
            )
        of_samples = [each.distance for each in self.nearest]
        self.unseen = nearest_clips(self.held.all_latents, self.training.blocks())
        of_unseen = [each.distance for each in self.unseen]
        curves = Curves(losses[0], of_samples, of_unseen, diagnose(losses[0], of_samples, of_unseen))
        return curves, sum(losses[0].loss) / max(sum(losses[1].loss), 1e-12)

    def frechet(self) -> dict[str, Any]:
        """Distances to held-out clips in each space; {} where clips are too few."""
        if self.few:
            return {}
        size = len(self.round)
        rounds = [slice(start, start + size) for start in range(0, len(self.prompts) - size + 1, size)]
        # Held-out clips whose captions were sampled, in the same order.
        held = [index for index, caption in enumerate(self.captions) if caption in set(self.round)][:size]
        space = LatentSpace.of(self.training.latents(self.learned()), max(2, size // 3))
        # Each takes a set of clips to its coordinates.
        spaces: dict[str, Callable[[SeenClips], Tensor]] = {"latents": lambda seen: space(seen.all_latents)}
        if self.network is not None:
            # Of both sets of real clips: of one alone, it would make the other look strange.
            both = torch.cat([*self.real.features, *self.held.features])
            own = FeatureSpace.of(both, max(1, size // 3))
            spaces[Path(str(self.options.features)).name] = lambda seen: own(torch.cat(seen.features))
        result = {}
        for name, coordinates in spaces.items():
            real, samples = coordinates(self.held)[held], coordinates(self.sampled)
            floor = frechet_distance(coordinates(self.real), real)
            floors = [floor]
            if name == "latents":
                floors += [
                    frechet_distance(space(self.training.latents(draw)), real) for draw in self.draws[1:]
                ]
            result[name] = {
                "samples": float(np.mean([frechet_distance(samples[indices], real) for indices in rounds])),
                "floor": floor,
                "floor_range": [min(floors), max(floors)],
                "copies": frechet_distance(coordinates(self.real_copies), real),
                "still": frechet_distance(coordinates(self.real_stills), real),
                "clips": size,
                "dimensions": real.shape[1],
            }
        return result

    def moved(self) -> dict[str, Any] | None:
        """How differently samples move, beside how differently training clips do; None for images, or few clips."""
        if self.held.all_latents.shape[2] < 2 or self.few:
            return None
        pairs = {"samples": (self.sampled, self.held), "floor": (self.real, self.held)}
        distances = {name: motion_distance(one.motion, other.motion) for name, (one, other) in pairs.items()}
        return {
            measure: {name: _number(getattr(distance, measure)) for name, distance in distances.items()}
            for measure in ("amount", "speed", "direction")
        }

    def amounts(self) -> tuple[dict[str, Amounts], dict[str, Amounts]]:
        """Motion of copies and of samples beside real clips', by caption where there are few; "" is all."""
        training = [self.training.captions[index] for index in self.draws[0]]
        real = [
            *zip(self.captions, self.held.activity, strict=True),
            *zip(training, self.real.activity, strict=True),
        ]
        copies, samples = {}, {}
        for caption in ("", *self.rows):
            within = [i for i, text in enumerate(self.captions) if caption in ("", text)]
            copies[caption] = Amounts(
                [self.held.activity[i] for i in within],
                [self.copied.activity[i] for i in within],
                paired=True,
            )
            made = [
                amount
                for text, amount in zip(self.prompts, self.sampled.activity, strict=True)
                if caption in ("", text)
            ]
            if made:
                samples[caption] = Amounts([amount for text, amount in real if caption in ("", text)], made)
        return copies, samples

    def experiment(self) -> Experiment:
        """All of it, as JSON, a table, a sheet and a verdict."""
        distinct = sorted(set(self.captions))
        self.rows = distinct if 1 < len(distinct) <= ROWS else []
        curves, overfit = self.memorisation()
        judge = self.judge()
        frechet, moved = self.frechet(), self.moved()
        copies, samples = self.amounts()
        vae = self.vae(copies)
        facts = Facts(
            training=self.num_training,
            held_out=len(self.captions),
            same=sum(each.distance == 0 for each in self.unseen),
            captions=len(set(self.training.captions)),
            moving=None if vae["psnr_moving"] is None else (vae["psnr_moving"], vae["psnr_moving_still"]),
            copies=copies,
            flicker=(vae["flicker"]["real"], vae["flicker"]["copies"]),
            finding=curves.finding,
            overfit=overfit,
            judge=None if judge is None else (judge["real"], judge["chance"]),
            followed=None if judge is None else judge["samples"],
            samples=samples,
            frechet=(
                (
                    frechet["latents"]["samples"],
                    frechet["latents"]["floor_range"][1],
                    frechet["latents"]["still"],
                )
                if frechet
                else None
            ),
        )
        verdict = conclude(facts)
        verdict.not_told.extend(self.not_told)
        points = {
            "verdict": verdict.to_dict(),
            "advice": verdict.advice,
            "vae": vae,
            "samples": self.samples(judge),
            "motion": {
                "distance": moved,
                "activity": {"real": mean(self.held.activity), "samples": mean(self.sampled.activity)},
                "ratio": samples[""].ratio,
                "by_caption": {
                    caption: {
                        "real": mean(amounts.real),
                        "samples": mean(amounts.seen),
                        "ratio": amounts.ratio,
                        "real_clips": len(amounts.real),
                        "samples_count": len(amounts.seen),
                    }
                    for caption, amounts in samples.items()
                    if caption
                },
            },
            "captions": None if judge is None else {k: v for k, v in judge.items() if k != "each"},
            "frechet": frechet or None,
            "memorisation": curves.to_dict() | {"held_out_over_training_loss": overfit},
            "settings": self.settings(),
        }
        table = evaluation_table(points, copies, samples)
        sheet = [row for rows in self.sheet.values() for row in rows]
        return Experiment("evaluation", points, table, sheet, "evaluation", lines=verdict_lines(verdict))

    def judge(self) -> dict[str, Any] | None:
        """Shares that follow their captions: real clips, their copies, samples, by chance; None if none can be told."""
        encoder = self.pipeline.text_encoder
        if encoder is None:
            return None
        learned = self.learned()
        captions = [self.training.captions[index] for index in learned]
        judge = CaptionJudge.learn(self.training.latents(learned), captions, words)
        if judge is None:
            return None
        real = judge.follows(self.held.all_latents, self.captions)
        copies = judge.follows(self.copied.all_latents, self.captions)
        samples = judge.follows(self.sampled.all_latents, self.prompts)
        return {
            "samples": mean(samples),
            "real": mean(real),
            "copies": mean(copies),
            "chance": judge.chance(self.prompts),
            "candidates": len(judge.captions),
            "words": list(judge.words),
            "by_caption": {
                caption: {
                    "samples": mean(
                        [right for right, text in zip(samples, self.prompts, strict=True) if text == caption]
                    ),
                    "real": mean(
                        [right for right, text in zip(real, self.captions, strict=True) if text == caption]
                    ),
                }
                for caption in self.rows
            },
            "each": samples,
        }

    def vae(self, copies: dict[str, Amounts]) -> dict[str, Any]:
        """The VAE on held-out clips; null for what cannot be told of them."""
        found = self.copies
        return {
            "clips": len(self.captions),
            "psnr": mean(found.psnr),
            "worst_psnr": min(found.psnr),
            "ssim": mean(found.ssim),
            "psnr_moving": mean(found.moving),
            "psnr_moving_still": mean(found.still),
            "activity": {"real": mean(self.held.activity), "copies": mean(self.copied.activity)},
            "activity_ratio": copies[""].ratio,
            "flicker": {"real": mean(self.held.flicker), "copies": mean(self.copied.flicker)},
            "by_caption": {
                caption: {
                    "clips": len(amounts.real),
                    "psnr_moving": mean(
                        [db for db, text in zip(found.moving, self.captions, strict=True) if text == caption]
                    ),
                    "real": mean(amounts.real),
                    "copies": mean(amounts.seen),
                    "ratio": amounts.ratio,
                }
                for caption, amounts in copies.items()
                if caption
            },
        }

    def samples(self, judge: dict[str, Any] | None) -> dict[str, Any]:
        """Every sample with the training clip that is nearest to it; caption and seed make it again."""
        dataset = self.training.dataset
        names = dataset.names() if isinstance(dataset, FolderDataset) else []
        follows = judge["each"] if judge else [None] * len(self.prompts)

        def row(index: int, near: Nearest) -> dict[str, Any]:
            about = {
                "index": near.index,
                "distance": near.distance,
                "caption": self.training.captions[near.index],
            }
            return {
                "caption": self.prompts[index],
                "seed": seed_after(self.options.seed, index),
                "activity": self.sampled.activity[index],
                "follows": follows[index],
                "nearest": about | ({"file": names[near.index]} if names else {}),
            }

        clips = [row(index, near) for index, near in enumerate(self.nearest)]
        return {"count": len(clips), "captions": len(set(self.prompts)), "clips": clips}

    def settings(self) -> dict[str, Any]:
        """What it takes to repeat the evaluation."""
        options = self.options
        return {
            "run": str(options.run),
            "model": str(options.model or options.run / "model"),
            "samples": options.samples,
            "features": options.features,
            "seed": options.seed,
            "num_inference_steps": options.steps,
            "guidance_scale": options.guidance,
            "batch_size": options.batch_size,
            "size": list(self.pipeline.config.default_size),
            "fps": self.pipeline.config.fps,
            "held_out_clips": len(self.captions),
            "training_clips": self.num_training,
        }


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
