"""Make the video of a recipe, and write it with the recipe inside: the same bytes each time on one machine."""

import hashlib
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import count, islice
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from minisora.data.media_kind import MAGIC_BYTES, kind_of
from minisora.data.video.read_upload import read_upload
from minisora.data.video.read_video import probe, read_video
from minisora.data.video.write_video import write_video
from minisora.errors import UserError
from minisora.flow.denoise import SampleSettings
from minisora.flow.schedules import make_scheduler
from minisora.pipelines import modes, restyle
from minisora.pipelines.mask_path import mask_path
from minisora.pipelines.model_folder import load_pipeline, weights_digest
from minisora.pipelines.pipeline import MiniSoraPipeline
from minisora.pipelines.recipe import Recipe, read_recipe
from minisora.pipelines.shipped_models import shipped


def make(
    pipeline: MiniSoraPipeline,
    recipe: Recipe,
    videos: Sequence[Path] = (),
    *,
    progress: bool = True,
    on_step: Callable[[int, float, Tensor], None] | None = None,
) -> Tensor:
    """The video of a recipe, 3 T H W in [-1, 1].

    It is sampled alone: in a batch with others its last bits could differ.

    Args:
        pipeline: of the recipe's model; gets the recipe's scheduler.
        recipe: of the video.
        videos: mp4 files of its parents; of "upload" the file itself.
        progress, on_step: as of `SampleSettings`.

    Raises:
        UserError: the recipe does not fit the model, a file cannot be read, or memory is short.
    """
    pipeline.scheduler = make_scheduler(recipe.scheduler, pipeline.config.sigma_shift)
    settings = SampleSettings(
        steps=recipe.steps,
        guidance=recipe.guidance,
        strength=recipe.strength,
        seed=recipe.seed,
        progress=progress,
        on_step=on_step if on_step is None else _counted(on_step),
    )
    prompt, frames = recipe.prompt, recipe.size[0]
    if recipe.mode == "sample":
        return pipeline.videos(prompt, recipe.size, settings)[0]
    if recipe.mode == "upload":
        assert recipe.name is not None
        sizes, fps = [recipe.size[1:]], float(pipeline.config.fps)
        return read_upload(videos[0], recipe.name, sizes, most_frames=frames, fps=fps)
    if recipe.mode == "long":
        _, height, width = recipe.size
        # Of a clip of few latent frames two would be more than an extension adds.
        context = max(1, min(2, (pipeline.latent_shape(*pipeline.config.default_size)[1] - 1) // 2))
        pieces = modes.long_video_pieces(
            pipeline, prompt, later=recipe.later, context=context, num_frames=frames, height=height, width=width,
            settings=settings,
        )  # fmt: skip
        return torch.cat(list(islice(pieces, len(recipe.prompts))), dim=2)[0]
    clips = [_read(pipeline, file, recipe) for file in videos]
    clip = clips[0]
    match recipe.mode:
        case "trim":
            assert recipe.span is not None
            first, end = recipe.span
            if end > clip.shape[2]:
                raise UserError(f"the video has {clip.shape[2]} frames, not {end}: trim fewer")
            made = clip[:, :, first:end]
        case "keyframes":
            shown = [
                clip[:, :, min(at, clip.shape[2] - 1)]
                for clip, at in zip(clips, recipe.keyframes, strict=True)
            ]
            images = torch.stack(shown, 1)  # 1 K 3 H W
            made = modes.keyframe_segments(pipeline, recipe.prompts, images, frames, settings=settings)
        case "animate":
            image = clip[:, :, min(recipe.frame or 0, clip.shape[2] - 1)]
            made = modes.image_to_video(pipeline, prompt, image, frames, settings=settings)
        case "extend" | "prepend":
            backward = recipe.mode == "prepend"
            made = modes.extend(pipeline, prompt, clip, backward=backward, settings=settings)
        case "loop":
            made = modes.loop(pipeline, prompt, clip, num_frames=frames, settings=settings)
        case "connect":
            made = modes.connect(pipeline, prompt, *clips, num_frames=frames, settings=settings)
        case "restyle":
            cut = clip[:, :, :frames]
            made = restyle.restyle(pipeline, prompt, cut, source=recipe.source, settings=settings)
        case _:
            masks = recipe.masks if recipe.mask is None else ((0, recipe.mask),)
            mask = mask_path(masks, *recipe.size)[None]  # 1 T H W
            made = restyle.inpaint(pipeline, prompt, clip[:, :, :frames], mask, settings=settings)
    return made[0]


def _counted(on_step: Callable[[int, float, Tensor], None]) -> Callable[[int, float, Tensor], None]:
    """`on_step` with the steps of all segments counted on, where each begins at 0."""
    steps = count()
    return lambda _, sigma, latents: on_step(next(steps), sigma, latents)


def _read(pipeline: MiniSoraPipeline, file: Path, recipe: Recipe) -> Tensor:
    """A parent, all of it, as 1 3 T H W of the recipe's size."""
    _, height, width = recipe.size
    fps = float(pipeline.config.fps)
    length = probe(file).frames_at(fps)
    if recipe.mode in ("restyle", "inpaint"):
        # Of a shorter one the last frame is repeated.
        length = recipe.size[0]
    return read_video(file, frames=length, height=height, width=width, fps=fps)[None]


def write(out: Path, video: Tensor, recipe: Recipe, fps: float) -> None:
    """Write the video of a recipe, 3 T H W, with the recipe inside.

    Raises:
        UserError: the file cannot be written.
    """
    write_video(out, video, fps, comment=recipe.to_text())


def remake(file: Path, out: Path, model: Path | None = None, uploads: Sequence[Path] = ()) -> Recipe:
    """Make the video of an mp4 again from the recipe inside it, and before it those that it was made from.

    Args:
        file: an mp4 of `minisora studio`.
        out: the new mp4.
        model: the folder of the recipe's model; None: the shipped one of its name.
        uploads: files that it was made from besides: those that were sent to the studio, or their mp4 of its gallery.

    Returns:
        The recipe.

    Raises:
        UserError: there is no recipe, the model is not the one that made the video, or an upload is missing.
    """
    recipe = read_recipe(file)
    with TemporaryDirectory() as folder:
        _Remaker(file, model, Path(folder), uploads).make(recipe, out)
    return recipe


class _Remaker:
    """Makes a recipe and what is in it, with one model."""

    def __init__(self, file: Path, model: Path | None, folder: Path, uploads: Sequence[Path]):
        self._file, self._model, self._folder = file, model, folder
        self._uploads = uploads
        self._pipelines: dict[str, MiniSoraPipeline] = {}
        # By the text of the recipe: what several were made from is made once.
        self._made: dict[str, Path] = {}

    def make(self, recipe: Recipe, out: Path) -> None:
        pipeline = self._pipeline(recipe)
        if recipe.mode == "upload":
            parents = [self._upload(recipe)]
        else:
            parents = [self._parent(parent) for parent in recipe.parents]
        write(out, make(pipeline, recipe, parents), recipe, float(pipeline.config.fps))

    def _parent(self, recipe: Recipe) -> Path:
        text = recipe.to_text()
        if text not in self._made and recipe.mode == "upload" and (kept := self._of_gallery(recipe)):
            self._made[text] = kept
        if text not in self._made:
            place = self._folder / f"{len(self._made) + 1}.mp4"
            # Its place in the folder is taken before those of its own parents are.
            self._made[text] = place
            self.make(recipe, place)
        return self._made[text]

    def _of_gallery(self, recipe: Recipe) -> Path | None:
        """What the studio made of an upload, if it was passed instead of the file that was sent."""
        for file in self._uploads:
            with suppress(UserError):
                if read_recipe(file) == recipe:
                    return file
        return None

    def _upload(self, recipe: Recipe) -> Path:
        """The file of an upload, under a name of which the suffix fits."""
        for file in self._uploads:
            if not file.is_file():
                raise UserError(f"{file}: no such file")
            with file.open("rb") as opened:
                digest, suffix = hashlib.file_digest(opened, "sha256").hexdigest(), ""
                opened.seek(0)
                suffix = kind_of(opened.read(MAGIC_BYTES)) or ""
            if digest == recipe.digest and suffix:
                place = self._folder / f"upload-{digest}{suffix}"
                shutil.copyfile(file, place)
                return place
        raise UserError(
            f"{self._file} was made from the file '{recipe.name}' (SHA-256 {str(recipe.digest)[:12]}…): pass it by "
            "--upload"
        )

    def _pipeline(self, recipe: Recipe) -> MiniSoraPipeline:
        if recipe.weights in self._pipelines:
            return self._pipelines[recipe.weights]
        if self._model is None and recipe.model not in shipped():
            raise UserError(
                f"{self._file} was made by the model '{recipe.model}': pass its folder by --model"
            )
        place = recipe.model if self._model is None else self._model
        pipeline = load_pipeline(place)
        if weights_digest(place) != recipe.weights:
            raise UserError(
                f"{place} is not the model '{recipe.model}' that made {self._file} (its weights differ): pass that one "
                "by --model"
            )
        self._pipelines[recipe.weights] = pipeline
        return pipeline
