"""Make the video of a recipe, and write it with the recipe inside: the same bytes each time on one machine."""

from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from minisora.data.video.write_video import write_video
from minisora.errors import UserError
from minisora.flow.denoise import SampleSettings
from minisora.flow.schedules import make_scheduler
from minisora.pipelines.model_folder import load_pipeline, weights_digest
from minisora.pipelines.pipeline import MiniSoraPipeline
from minisora.pipelines.recipe import Recipe, read_recipe
from minisora.pipelines.shipped_models import shipped


def make(
    pipeline: MiniSoraPipeline,
    recipe: Recipe,
    *,
    progress: bool = True,
    on_step: Callable[[int, float, Tensor], None] | None = None,
) -> Tensor:
    """The video of a recipe, 3 T H W in [-1, 1].

    It is sampled alone: in a batch with others its last bits could differ.

    Args:
        pipeline: of the recipe's model; gets the recipe's scheduler.
        recipe: of the video.
        progress, on_step: as of `SampleSettings`.

    Raises:
        UserError: the recipe does not fit the model, or memory is short.
    """
    pipeline.scheduler = make_scheduler(recipe.scheduler, pipeline.config.sigma_shift)
    settings = SampleSettings(
        steps=recipe.steps, guidance=recipe.guidance, seed=recipe.seed, progress=progress, on_step=on_step
    )
    return pipeline.videos(recipe.prompt, recipe.size, settings)[0]


def write(out: Path, video: Tensor, recipe: Recipe, fps: float) -> None:
    """Write the video of a recipe, 3 T H W, with the recipe inside.

    Raises:
        UserError: the file cannot be written.
    """
    write_video(out, video, fps, comment=recipe.to_text())


def remake(file: Path, out: Path, model: Path | None = None) -> Recipe:
    """Make the video of an mp4 again from the recipe inside it; returns the recipe.

    Args:
        file: an mp4 of `minisora studio`.
        out: the new mp4.
        model: the folder of the recipe's model; None: the shipped one of its name.

    Raises:
        UserError: there is no recipe, or the model is not the one that made the video.
    """
    recipe = read_recipe(file)
    if model is None and recipe.model not in shipped():
        raise UserError(f"{file} was made by the model '{recipe.model}': pass its folder by --model")
    place = recipe.model if model is None else model
    pipeline = load_pipeline(place)
    if weights_digest(place) != recipe.weights:
        raise UserError(
            f"{place} is not the model '{recipe.model}' that made {file} (its weights differ): pass that one by --model"
        )
    write(out, make(pipeline, recipe), recipe, float(pipeline.config.fps))
    return recipe
