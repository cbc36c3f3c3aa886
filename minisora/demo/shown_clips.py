"""What the page of a run shows of clips: held-out ones beside their copies, samples beside the training clips nearest.

It is measured once for a model and kept beside the page:

    RUN/page/shown.json                 captions and numbers of the clips below, and of which model they are
            /reconstructions/NN.mp4     a held-out clip, its copy by the VAE, and where what moves is lost
            /samples/NN.mp4             a sample for a held-out caption, and the training clip nearest to it
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from minisora.config import Config
from minisora.data.clips import ClipDataset, to_float
from minisora.data.dataset import open_dataset
from minisora.data.folder.record import DataRecord
from minisora.data.latent_cache import LatentCache, cache_keys, fingerprint
from minisora.data.video.write_video import write_video
from minisora.demo.page_pieces import side_by_side
from minisora.errors import UserError
from minisora.evaluate.clip_sets import is_known
from minisora.evaluate.likeness import moving, psnr, psnr_moving
from minisora.evaluate.memorisation import blocks, find_cache, finite, nearest_clips, sample_latents
from minisora.evaluate.sample_and_judge import reconstruct
from minisora.files import read_object, write_json
from minisora.models.vae import VideoVAE
from minisora.pipelines.model_folder import load_pipeline
from minisora.pipelines.pipeline import MiniSoraPipeline
from minisora.screen import say
from minisora.training.stages import load_vae

# Held-out clips shown beside their copies, and held-out captions sampled; fewer while a stage trains.
NUM_CLIPS, NUM_CAPTIONS, NUM_LIVE = 6, 12, 4
# Videos sampled at a time.
_BATCH = 4
# Pixels per side below which a clip is shown enlarged: half as many colours as pixels are stored of a video.
_SMALL = 128
# Of the range of values: an error that is shown as wholly lost.
_LOST = 0.25
# Where what moves is kept, and where it is lost; in [-1, 1], told apart by colour-blind readers too.
_KEPT, _GONE = (-0.33, 0.41, 0.83), (0.9, 0.25, -1.0)


@dataclass
class Shown:
    """What lies in RUN/page: for "reconstructions" and "samples" their model, its step and their clips."""

    folder: Path
    values: dict[str, Any]

    @classmethod
    def open(cls, run: Path) -> "Shown":
        """As it is; empty where there is none, or none that can be read: it can always be made again."""
        return cls(run / "page", read_object(run / "page" / "shown.json"))

    def part(self, name: str) -> dict[str, Any]:
        """A part that is whole: its clips are all there; else empty."""
        part = self.values.get(name)
        if not isinstance(part, dict) or not isinstance(part.get("clips"), list):
            return {}
        clips = [clip for clip in part["clips"] if isinstance(clip, dict)]
        if not all(self.file(name, number).is_file() for number in range(len(clips))):
            return {}
        return part | {"clips": clips}

    def file(self, name: str, number: int) -> Path:
        """Of a clip."""
        return self.folder / name / f"{number:02d}.mp4"

    def keep(self, name: str, part: dict[str, Any]) -> None:
        """Write a part down, once its clips are written."""
        self.values[name] = part
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.folder / "shown.json", self.values)


def chosen(captions: Sequence[str], count: int) -> list[int]:
    """Places of clips to show: of as many different captions as there are, evenly spread over them; none is picked."""
    first: dict[str, int] = {}
    for place, caption in enumerate(captions):
        first.setdefault(caption, place)
    firsts = list(first.values())
    others = [place for place in range(len(captions)) if place not in set(firsts)]
    if len(firsts) >= count:
        return [firsts[i * len(firsts) // count] for i in range(count)]
    return firsts + others[: count - len(firsts)]


def show_reconstructions(
    shown: Shown, vae: VideoVAE, held_out: ClipDataset, fps: float, count: int, *, step: int | None, key: str
) -> None:
    """Held-out clips beside their copies, and where what moves in them is lost.

    Args:
        shown: where they are kept.
        vae: on its device.
        held_out: the clips.
        fps: frames per second.
        count: of clips.
        step: of the stage; None: the finished model.
        key: of the model and the clips.
    """
    captions = held_out.captions()
    clips = []
    for number, place in enumerate(chosen(captions, count)):
        video = to_float(held_out.clips([place]))
        copy = reconstruct(vae, video)
        panels = [_enlarged(each[0]) for each in (video, copy, error_map(copy, video))]
        write_video(shown.file("reconstructions", number), side_by_side(*panels), fps)
        numbers = {
            "psnr": finite(float(psnr(copy, video))),
            "psnr_moving": finite(float(psnr_moving(copy, video))),
        }
        clips.append({"caption": captions[place], **numbers})
    shown.keep("reconstructions", {"key": key, "step": step, "clips": clips})


def error_map(copy: Tensor, video: Tensor) -> Tensor:
    """What moves in a clip, blue where its copy has it and orange where it is lost, over the clip in dark grey.

    Args:
        copy, video: B 3 T H W in [-1, 1].

    Returns:
        B 3 T H W in [-1, 1].
    """
    ground = -1 + (video.mean(dim=1, keepdim=True) + 1) * 0.2
    lost = ((copy - video).abs().amax(dim=1, keepdim=True) / (2 * _LOST)).clamp(0, 1)
    kept, gone = (torch.tensor(color).view(1, 3, 1, 1, 1) for color in (_KEPT, _GONE))
    return torch.where(moving(video), kept + (gone - kept) * lost, ground.expand_as(video))


def show_samples(
    shown: Shown,
    pipeline: MiniSoraPipeline,
    held_out: ClipDataset,
    training: tuple[LatentCache, ClipDataset] | None,
    count: int,
    *,
    step: int | None,
    key: str,
    seed: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
) -> None:
    """A sample for each of some held-out captions, beside the training clip that is nearest to it.

    Args:
        shown: where they are kept.
        pipeline: the model, on its device.
        held_out: whose captions are sampled.
        training: latents and videos of the training clips; None: the samples stand alone.
        count: of captions at most; each is sampled once.
        step: of the stage; None: the finished model.
        key: of the model and the clips.
        seed: sample i starts from the noise of seed + i.
        on_progress: called with (samples done, samples in all).
    """
    captions = held_out.captions()
    places = [
        place
        for place in chosen(captions, min(count, len(set(captions))))
        if is_known(pipeline, captions[place])
    ]
    if not places:
        return
    clips: list[dict[str, Any]] = [{"caption": captions[place]} for place in places]
    parts = []
    for indices, latents in sample_latents(pipeline, [clip["caption"] for clip in clips], seed, _BATCH):
        parts.append(latents.float().cpu())
        if on_progress:
            on_progress(indices[-1] + 1, len(places))
    sampled = torch.cat(parts)  # N Z T' H' W'
    beside: list[list[Tensor]] = [[] for _ in places]
    if training is not None:
        cache, videos = training
        real = [
            pipeline.vae.to_latents(to_float(held_out.clips([place])).to(pipeline.device)).float().cpu()
            for place in places
        ]
        near = nearest_clips(torch.cat([sampled, *real]), blocks(cache))
        for number, (of_sample, of_real) in enumerate(
            zip(near[: len(places)], near[len(places) :], strict=True)
        ):
            beside[number] = [_enlarged(to_float(videos.clips([of_sample.index]))[0])]
            clips[number] |= {
                "nearest": cache.captions()[of_sample.index],
                "distance": of_sample.distance,
                "unseen": of_real.distance,
            }
    for number, latents in enumerate(sampled):
        video = _enlarged(pipeline.decode(latents[None].to(pipeline.device))[0].cpu())
        write_video(shown.file("samples", number), side_by_side(video, *beside[number]), pipeline.config.fps)
    shown.keep("samples", {"key": key, "step": step, "clips": clips})


def _enlarged(video: Tensor) -> Tensor:
    """C T H W, each pixel repeated until the shorter side has some `_SMALL` pixels."""
    times = max(1, _SMALL // min(video.shape[-2:]))
    return video.repeat_interleave(times, dim=2).repeat_interleave(times, dim=3)


def measure(run: Path, config: Config, console: Console) -> None:
    """Bring RUN/page up to date with the models of a run; what cannot be measured is told and left as it is."""
    if not any(
        (folder / "config.json").is_file() for folder in (run / "vae" / "model", run / "model" / "vae")
    ):
        return
    shown = Shown.open(run)
    has_model = (run / "model" / "model_index.json").is_file()
    try:
        record = DataRecord(run / ("dit" if has_model else "vae"), begun=True)
        held_out = open_dataset(config, "validation", record)
        has_vae = (run / "vae" / "model" / "config.json").is_file()
        vae = load_vae(run / "vae" / "model" if has_vae else run / "model" / "vae")
        data = held_out.fingerprint()
        own = f"{fingerprint(vae)}-{data}"
        if shown.part("reconstructions").get("key") != own:
            device = "cuda" if torch.cuda.is_available() else "cpu"
            vae = vae.to(device)
            show_reconstructions(shown, vae, held_out, config.clip.fps, NUM_CLIPS, step=None, key=own)
        if not has_model:
            return
        pipeline = load_pipeline(run / "model")
        own = f"{fingerprint(pipeline.dit)}-{fingerprint(pipeline.vae)}-{data}"
        if shown.part("samples").get("key") == own:
            return
        train = open_dataset(config, "train", record)
        cache = find_cache(run, train, cache_keys(pipeline.vae).values())
        training = None if cache is None else (cache, train)
        with console.status("sampling for the page") as status:
            show_samples(
                shown, pipeline, held_out, training, NUM_CAPTIONS, step=None, key=own, seed=config.seed,
                on_progress=lambda done, total: status.update(f"sampling for the page {done}/{total}"),
            )  # fmt: skip
    except UserError as error:
        say(console, f"the page shows what was kept of clips: {error}", style="yellow")
