"""The models of a studio: what they can make, and making it. Lives in the worker alone."""

import time
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from minisora.data.clips import to_uint8
from minisora.data.video.read_upload import read_upload
from minisora.data.video.write_video import shown_frames
from minisora.files import whole
from minisora.flow.denoise import RESAMPLE_ABOVE
from minisora.models.text import TextEncoder
from minisora.pipelines import remake, restyle
from minisora.pipelines.model_folder import load_pipeline, weights_digest
from minisora.pipelines.pipeline import MiniSoraPipeline
from minisora.pipelines.recipe import VERSION, Recipe, recipe_of
from minisora.studio.job_cost import costs, lengths_and_sizes
from minisora.studio.job_plan import plan
from minisora.studio.run_facts import shown_captions
from minisora.studio.worker import OnStep, Parent

# Of a file that was sent; its start is taken.
MOST_FRAMES = 128
# Of a forming video: frames side by side.
_SHOWN = 4
# One that works in the shapes world, and letters of one at most.
_EXAMPLE, _MOST_LETTERS = "a red circle moving left", 80


class PipelineEngine:
    """Videos of minisora's models.

    Args:
        models: folders by the name that people see, or names of shipped models.
    """

    def __init__(self, models: Mapping[str, str | Path]):
        self._folders = dict(models)
        self._loaded: dict[str, tuple[MiniSoraPipeline, str]] = {}
        self._facts: dict[str, dict[str, Any]] = {}

    @property
    def names(self) -> list[str]:
        """Of the models."""
        return list(self._folders)

    def add(self, name: str, model: Path) -> None:
        """One more model, or what it has become."""
        self._folders[name] = model
        self._loaded.pop(name, None)
        self._facts.pop(name, None)

    def facts(self, name: str) -> dict[str, Any]:
        """What the page has to know of a model: its words, what fits it, and what that costs."""
        if name in self._facts:
            return self._facts[name]
        pipeline, _ = self._model(name)
        lengths, sizes = lengths_and_sizes(pipeline)
        encoder = pipeline.text_encoder
        words = list(encoder.config.vocabulary) if isinstance(encoder, TextEncoder) else []
        self._facts[name] = {
            "default_size": list(pipeline.config.default_size),
            "fps": float(pipeline.config.fps),
            "steps": int(pipeline.config.default_steps),
            "guidance": float(pipeline.config.default_guidance),
            "parameters": sum(p.numel() for part in (pipeline.vae, pipeline.dit) for p in part.parameters()),
            "text": encoder is not None,
            "words": words,
            "example": _example(encoder, Path(self._folders[name])),
            "sigma_shift": float(pipeline.config.sigma_shift),
            "modes": _modes(pipeline),
            "lengths": lengths,
            "sizes": [list(size) for size in sizes],
            "costs": {
                f"{frames}x{height}x{width}": costs(pipeline, frames, height, width)
                for frames in lengths
                for height, width in sizes
            },
        }
        return self._facts[name]

    def make(
        self, request: dict[str, Any], parents: Sequence[Parent], video: Path, picture: Path, on_step: OnStep
    ) -> dict[str, Any]:
        """Make the video that a job asks for, and its picture.

        Args:
            request: what a recipe holds, less the weights and the parents.
            parents: recipe and file of what it is made from.
            video, picture: files to write.
            on_step: called after each step; what it raises ends the sampling.

        Raises:
            UserError: the request does not fit the model, or memory or the disk is full.
        """
        pipeline, weights = self._model(request["model"])
        recipes = [recipe for recipe, _ in parents if recipe is not None]
        files = [file for _, file in parents]
        begin = time.monotonic()
        common = {"weights": weights, "parents": recipes, "minisora": VERSION}
        if request["mode"] == "upload":
            made = self._fitted(request, files[0], on_step)
            recipe = recipe_of({**request, **common, "size": list(made.shape[1:])})
        else:
            recipe = recipe_of({**request, **common})
            forming = _Forming(pipeline, recipe, on_step)
            made = remake.make(pipeline, recipe, files, progress=False, on_step=forming)
        remake.write(video, made, recipe, float(pipeline.config.fps))
        seconds = time.monotonic() - begin
        with whole(picture) as partial:
            Image.fromarray(_pixels(made[:, made.shape[1] // 2])).save(partial, format="PNG")
        return {
            "recipe": recipe.to_dict(),
            "words": f"{recipe.prompt} {recipe.name or ''} {recipe.model} {recipe.mode} {recipe.seed}",
            "width": made.shape[3], "height": made.shape[2], "frames": made.shape[1],
            "fps": float(pipeline.config.fps),
            "seconds": seconds,
            "flops": plan(self.facts(recipe.model), recipe.to_dict())[1],
        }  # fmt: skip

    def _fitted(self, request: dict[str, Any], file: Path, on_step: OnStep) -> Tensor:
        """A file that was sent, 3 T H W: of the size on offer that is nearest in shape."""
        pipeline, _ = self._model(request["model"])
        sizes = [(height, width) for height, width in self.facts(request["model"])["sizes"]]
        return read_upload(
            file,
            request["name"],
            sizes,
            most_frames=MOST_FRAMES,
            fps=float(pipeline.config.fps),
            on_frames=lambda: on_step(0, lambda: None),
        )

    def _model(self, name: str) -> tuple[MiniSoraPipeline, str]:
        """A model and the digest of its weights, read once."""
        if name not in self._loaded:
            folder = self._folders[name]
            self._loaded[name] = (load_pipeline(folder), weights_digest(folder))
        return self._loaded[name]


class _Forming:
    """Shows what a video becomes while it is sampled.

    After a step of Euler's from noise level s to t, latents x became y = x + (t - s) v; the model's guess of the video
    is y - t v. It is far clearer than y, which is still noise for most of the way. Where steps are not such ones
    (resampling puts noise back, FlowEdit moves what is a video already), y itself is shown.
    """

    def __init__(self, pipeline: MiniSoraPipeline, recipe: Recipe, on_step: OnStep):
        self._pipeline, self._on_step = pipeline, on_step
        self._before: Tensor | None = None
        self._sigma = 1.0
        self._guesses = recipe.mode != "inpaint" and recipe.source is None
        if recipe.mode in ("sample", "long"):
            self._before = pipeline.noise(1, pipeline.latent_shape(*recipe.size), recipe.seed)

    def __call__(self, step: int, sigma: float, latents: Tensor) -> None:
        """As `SampleSettings.on_step`."""
        shown = latents
        if self._guesses:
            sigmas = self._pipeline.scheduler.sigmas
            # Of several segments each begins with noise again.
            then = float(sigmas[step % (len(sigmas) - 1) + 1])
            if sigma > self._sigma:
                self._before = None
            self._sigma = sigma
            if self._before is not None and then < sigma:
                shown = latents - then * (latents - self._before.to(latents.device)) / (then - sigma)
            self._before = latents.clone()
        self._on_step(step + 1, lambda: self._picture(shown))

    def _picture(self, latents: Tensor) -> bytes:
        """Some frames side by side, as a PNG."""
        video = self._pipeline.decode(latents.clamp(-8, 8))[0]  # 3 T H W
        chosen = video[:, torch.from_numpy(shown_frames(video.shape[1], _SHOWN))]
        file = BytesIO()
        Image.fromarray(_pixels(torch.cat(list(chosen.unbind(1)), dim=2))).save(file, format="PNG")
        return file.getvalue()


def _pixels(image: Tensor) -> np.ndarray:
    """H W 3 uint8 of an image 3 H W."""
    return to_uint8(image.cpu()).permute(1, 2, 0).numpy()


def _example(encoder: object, model: Path) -> str:
    """A prompt of words that a model knows: a caption that its run shows, or one of the shapes world; else empty."""
    if not isinstance(encoder, TextEncoder):
        return ""
    captions = shown_captions(model.parent) if model.name == "model" else []
    tokenizer = encoder.tokenizer
    for prompt in [*captions, _EXAMPLE]:
        if len(prompt) <= _MOST_LETTERS and all(word in tokenizer.ids for word in tokenizer.words(prompt)):
            return prompt
    return ""


def _modes(pipeline: MiniSoraPipeline) -> dict[str, dict[str, Any]]:
    """How each mode samples where nothing else is asked for."""
    steps, guidance = int(pipeline.config.default_steps), float(pipeline.config.default_guidance)
    usual = {"steps": steps, "guidance": guidance}
    # What is there says most of what a prompt would: see `minisora.pipelines.modes.extend`.
    going_on = {"steps": steps, "guidance": 1.0}
    flow_edit = {
        "steps": restyle.FLOW_EDIT_STEPS, "guidance": restyle.FLOW_EDIT_GUIDANCE,
        "strength": restyle.FLOW_EDIT_STRENGTH, "noises": restyle.FLOW_EDIT_NOISES,
        "interval": list(restyle.FLOW_EDIT_INTERVAL), "plain_strength": restyle.SDEDIT_STRENGTH,
    }  # fmt: skip
    inpaint = {**usual, "resample": restyle.RESAMPLE, "resample_above": RESAMPLE_ABOVE}
    return {
        "animate": usual, "extend": going_on, "prepend": going_on, "loop": usual, "connect": usual,
        "keyframes": usual, "long": usual, "restyle": flow_edit, "inpaint": inpaint,
    }  # fmt: skip
