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

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from minisora.data.clips import HasNames
from minisora.data.latent_cache import fingerprint
from minisora.evaluate.advice import Amounts, Facts, conclude
from minisora.evaluate.caption_following import CaptionJudge
from minisora.evaluate.clip_sets import SeenClips, mean
from minisora.evaluate.compare import Bar, Experiment
from minisora.evaluate.evaluation_table import evaluation_table, verdict_lines
from minisora.evaluate.gathered_clips import GatheredClips, OwnClips, gather
from minisora.evaluate.likeness import FeatureSpace, LatentSpace, frechet_distance, motion_distance
from minisora.evaluate.memorisation import (
    Curves,
    LossCurve,
    Nearest,
    diagnose,
    finite,
    loss_by_sigma,
    moments,
    run_clips,
    velocity_of,
)
from minisora.evaluate.video_network import VideoNetwork
from minisora.limits import MAX_COUNT, check_number, check_seed, seed_after
from minisora.models.tokenizer import words
from minisora.pipelines.model_folder import load_pipeline
from minisora.pipelines.pipeline import MiniSoraPipeline
from minisora.run_metrics import place_of_best

# Training clips that the judge of captions and the space of features are learned from, evenly over all.
MOST_LEARNED = 2048
# Captions that get a row of their own, at most.
ROWS = 12
# The real clips that samples' motion is read beside, in words: those held out alone are few for each caption.
REAL = "held-out and training clips"


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
    training, held_out = run_clips(options.run)
    pipeline = load_pipeline(options.model or options.run / "model")
    clips = gather(options, pipeline, network, training, held_out, bar)
    return _Evaluation(options, pipeline, clips, bar).experiment()


@dataclass(frozen=True)
class _Evaluation:
    """What the clips of an evaluation say of a model.

    Args:
        options: of the evaluation.
        pipeline: the model, on its device.
        clips: held-out clips, samples and training clips.
        bar: shows progress.
    """

    options: OwnClips
    pipeline: MiniSoraPipeline
    clips: GatheredClips
    bar: Bar

    def experiment(self) -> Experiment:
        """All of it, as JSON, a table, a sheet and a verdict."""
        clips = self.clips
        held_out, sampled = clips.held_out, clips.sampled
        curves, overfit = self.memorisation()
        judge = self.judge()
        frechet, moved = self.frechet(), self.moved()
        copies, samples = self.amounts()
        vae = self.vae(copies)
        facts = Facts(
            training=clips.num_training,
            held_out=len(held_out.captions),
            same=sum(each.distance == 0 for each in held_out.nearest),
            captions=len(set(clips.training.captions)),
            moving=None if vae["psnr_moving"] is None else (vae["psnr_moving"], vae["psnr_moving_still"]),
            copies=copies,
            flicker=(vae["flicker"]["real"], vae["flicker"]["copies"]),
            finding=curves.finding,
            overfit=overfit,
            best_at=self.best_at,
            views=clips.views,
            cell=self.pipeline.vae.config.spatial_factor,
            guidance=self.pipeline.config.default_guidance
            if self.options.guidance is None
            else self.options.guidance,
            judge=None if judge is None else (judge["real"], judge["chance"]),
            followed=None if judge is None else judge["samples"],
            samples=samples,
            real=REAL,
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
        verdict.not_told.extend(clips.not_told)
        points = {
            "verdict": verdict.to_dict(),
            "advice": verdict.advice,
            "vae": vae,
            "samples": self.samples(judge),
            "motion": {
                "distance": moved,
                # Of these real clips are the numbers below.
                "beside": REAL,
                "activity": {"real": mean(samples[""].real), "samples": mean(sampled.clips.activity)},
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
            "memorisation": curves.to_dict()
            | {"held_out_over_training_loss": overfit, "best_validation_at": self.best_at},
            "settings": self.settings(),
        }
        table = evaluation_table(points, copies, samples)
        return Experiment(
            "evaluation", points, table, clips.sheet, "evaluation", lines=verdict_lines(verdict)
        )

    def rows(self) -> list[str]:
        """Captions that get a row of their own: all, where they are several and few."""
        distinct = sorted(set(self.clips.held_out.captions))
        return distinct if 1 < len(distinct) <= ROWS else []

    def learned(self) -> list[int]:
        """Training clips that the judge and the space of features are of."""
        total = self.clips.training.unaltered
        return np.unique(np.linspace(0, total - 1, min(total, MOST_LEARNED)).round().astype(int)).tolist()

    @cached_property
    def best_at(self) -> float | None:
        """As `place_of_best`, of the run that trained the model; None for a model of another run."""
        return place_of_best(self.options.run) if self.options.model is None else None

    def memorisation(self) -> tuple[Curves, float]:
        """The curves of `minisora.evaluate.memorisation`, and the loss on held-out over that on training clips."""
        held_out, matched = self.clips.held_out, self.clips.matched
        velocity, statistics = velocity_of(self.pipeline), moments(self.clips.training.blocks())

        def loss(name: str, clips: SeenClips, captions: list[str]) -> LossCurve:
            return loss_by_sigma(
                velocity,
                clips.all_latents.to(self.pipeline.device),
                captions,
                statistics,
                self.options.seed,
                self.options.batch_size,
                self.bar(f"loss on {name} clips"),
            )

        of_held_out = loss("held-out", held_out.real, held_out.captions)
        of_training = loss("training", matched.real, matched.captions)
        samples = [each.distance for each in self.clips.sampled.nearest]
        unseen = [each.distance for each in held_out.nearest]
        curves = Curves(of_held_out, samples, unseen, diagnose(of_held_out, samples, unseen, self.best_at))
        return curves, sum(of_held_out.loss) / max(sum(of_training.loss), 1e-12)

    def frechet(self) -> dict[str, Any]:
        """Distances to held-out clips in each space; {} where clips are too few."""
        if self.clips.few:
            return {}
        training, held_out, sampled, matched = (
            self.clips.training,
            self.clips.held_out,
            self.clips.sampled,
            self.clips.matched,
        )
        size = len(sampled.one_round)
        rounds = [slice(start, start + size) for start in range(0, len(sampled.prompts) - size + 1, size)]
        # Held-out clips whose captions were sampled, in the same order.
        known = set(sampled.one_round)
        held = [index for index, caption in enumerate(held_out.captions) if caption in known][:size]
        space = LatentSpace.of(training.latents(self.learned()), max(2, size // 3))
        # Each takes a set of clips to its coordinates.
        spaces: dict[str, Callable[[SeenClips], Tensor]] = {"latents": lambda seen: space(seen.all_latents)}
        if self.options.features is not None:
            # Of both sets of real clips: of one alone, it would make the other look strange.
            both = torch.cat([*matched.real.features, *held_out.real.features])
            own = FeatureSpace.of(both, max(1, size // 3))
            spaces[Path(self.options.features).name] = lambda seen: own(torch.cat(seen.features))
        result = {}
        for name, coordinates in spaces.items():
            real, samples = coordinates(held_out.real)[held], coordinates(sampled.clips)
            floor = frechet_distance(coordinates(matched.real), real)
            floors = [floor]
            if name == "latents":
                floors += [
                    frechet_distance(space(training.latents(draw)), real) for draw in matched.draws[1:]
                ]
            result[name] = {
                "samples": float(np.mean([frechet_distance(samples[indices], real) for indices in rounds])),
                "floor": floor,
                "floor_range": [min(floors), max(floors)],
                "copies": frechet_distance(coordinates(matched.copies), real),
                "still": frechet_distance(coordinates(matched.stills), real),
                "clips": size,
                "dimensions": real.shape[1],
            }
        return result

    def moved(self) -> dict[str, Any] | None:
        """How differently samples move, beside how differently training clips do; None for images, or few clips."""
        real = self.clips.held_out.real
        if real.all_latents.shape[2] < 2 or self.clips.few:
            return None
        others = {"samples": self.clips.sampled.clips, "floor": self.clips.matched.real}
        distances = {name: motion_distance(other.motion, real.motion) for name, other in others.items()}
        return {
            measure: {name: finite(getattr(distance, measure)) for name, distance in distances.items()}
            for measure in ("amount", "speed", "direction")
        }

    def amounts(self) -> tuple[dict[str, Amounts], dict[str, Amounts]]:
        """Motion of copies beside held-out clips', and of samples beside that of more real clips, `REAL`.

        By caption where there are few; "" is all.
        """
        held_out, sampled, matched = self.clips.held_out, self.clips.sampled, self.clips.matched
        copies, samples = {}, {}
        for caption in ("", *self.rows()):
            which = caption or None
            real = _of(which, held_out.captions, held_out.real.activity)
            copied = _of(which, held_out.captions, held_out.copies.activity)
            copies[caption] = Amounts(real, copied, paired=True)
            if seen := _of(which, sampled.prompts, sampled.clips.activity):
                trained_on = _of(which, matched.captions, matched.real.activity)
                samples[caption] = Amounts([*real, *trained_on], seen)
        return copies, samples

    def judge(self) -> dict[str, Any] | None:
        """Shares that follow their captions: real clips, their copies, samples, by chance; None if none can be told."""
        held_out, sampled, training = self.clips.held_out, self.clips.sampled, self.clips.training
        if self.pipeline.text_encoder is None:
            return None
        learned = self.learned()
        captions = [training.captions[index] for index in learned]
        names = training.dataset.names() if isinstance(training.dataset, HasNames) else []
        files = [names[index] for index in learned] if names else []
        judge = CaptionJudge.learn(training.latents(learned), captions, words, files)
        if judge is None:
            return None
        real = judge.follows(held_out.real.all_latents, held_out.captions)
        copies = judge.follows(held_out.copies.all_latents, held_out.captions)
        samples = judge.follows(sampled.clips.all_latents, sampled.prompts)
        return {
            "samples": mean(samples),
            "real": mean(real),
            "copies": mean(copies),
            "chance": judge.chance(sampled.prompts),
            "candidates": len(judge.captions),
            "words": list(judge.words),
            "by_caption": {
                caption: {
                    "samples": mean(_of(caption, sampled.prompts, samples)),
                    "real": mean(_of(caption, held_out.captions, real)),
                }
                for caption in self.rows()
            },
            "each": samples,
        }

    def vae(self, copies: dict[str, Amounts]) -> dict[str, Any]:
        """The VAE on held-out clips; null for what cannot be told of them."""
        held_out = self.clips.held_out
        quality = held_out.quality
        return {
            "clips": len(held_out.captions),
            "psnr": mean(quality.psnr),
            "worst_psnr": min(quality.psnr),
            "ssim": mean(quality.ssim),
            "psnr_moving": mean(quality.moving),
            "psnr_moving_still": mean(quality.still),
            "activity": {"real": mean(held_out.real.activity), "copies": mean(held_out.copies.activity)},
            "activity_ratio": copies[""].ratio,
            "flicker": {"real": mean(held_out.real.flicker), "copies": mean(held_out.copies.flicker)},
            "by_caption": {
                caption: {
                    "clips": len(amounts.real),
                    "psnr_moving": mean(_of(caption, held_out.captions, quality.moving)),
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
        training, sampled = self.clips.training, self.clips.sampled
        names = training.dataset.names() if isinstance(training.dataset, HasNames) else []
        follows = judge["each"] if judge else [None] * len(sampled.prompts)

        def row(index: int, near: Nearest) -> dict[str, Any]:
            about = {
                "index": near.index,
                "distance": near.distance,
                "caption": training.captions[near.index],
            }
            return {
                "caption": sampled.prompts[index],
                "seed": seed_after(self.options.seed, index),
                "activity": sampled.clips.activity[index],
                "follows": follows[index],
                "nearest": about | ({"file": names[near.index]} if names else {}),
            }

        clips = [row(index, near) for index, near in enumerate(sampled.nearest)]
        return {"count": len(clips), "captions": len(set(sampled.prompts)), "clips": clips}

    def settings(self) -> dict[str, Any]:
        """What it takes to repeat the evaluation."""
        options = self.options
        return {
            "run": str(options.run),
            "model": str(options.model or options.run / "model"),
            "fingerprint": f"{fingerprint(self.pipeline.dit)}-{fingerprint(self.pipeline.vae)}",
            "samples": options.samples,
            "features": options.features,
            "seed": options.seed,
            "num_inference_steps": options.steps,
            "guidance_scale": options.guidance,
            "batch_size": options.batch_size,
            "size": list(self.pipeline.config.default_size),
            "fps": self.pipeline.config.fps,
            "held_out_clips": len(self.clips.held_out.captions),
            "training_clips": self.clips.num_training,
        }


def _of(caption: str | None, captions: Sequence[str], values: Sequence[float]) -> list[float]:
    """Of one value a clip those of clips with this caption; None: of all clips."""
    return [value for text, value in zip(captions, values, strict=True) if caption in (None, text)]
