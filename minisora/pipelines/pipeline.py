"""MiniSoraPipeline: prompts to videos, by the diffusers conventions.

    pipeline = MiniSoraPipeline.from_pretrained("runs/demo/model")
    videos = pipeline("a red circle moving left", seed=0).videos  # 1 3 17 64 64 in [-1, 1]

diffusers' own class reads the folder too:

    pipeline = DiffusionPipeline.from_pretrained("runs/demo/model", trust_remote_code=True)

The code to trust is the folder's pipeline.py, which imports this class.

The module path of this class is written into every saved pipeline: it stays.

Letters: B prompts, Z T' H' W' latents, T H W frames and pixels.
"""

import logging
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline, FlowMatchEulerDiscreteScheduler
from diffusers.utils import BaseOutput
from torch import Tensor

from minisora.config import Config
from minisora.errors import UserError
from minisora.files import read_json, write_json, write_whole
from minisora.flow.denoise import DEFAULTS, SampleSettings, denoise
from minisora.flow.known_frames import KnownLatents
from minisora.flow.schedules import Scheduler, make_scheduler, set_sigmas
from minisora.limits import (
    MAX_FRAMES,
    MAX_SIDE,
    check_number,
    check_seed,
    seed_after,
)
from minisora.memory import available_memory, size_text
from minisora.models.clip_grid import check_clip
from minisora.models.dit import VideoDiT
from minisora.models.precision import sampling_context
from minisora.models.text import PretrainedTextEncoder, TextEncoder, TextFeatures
from minisora.models.tokenizer import cut_captions
from minisora.models.vae import VideoVAE

# Of a model folder; older ones have none.
CODE_FILE = "pipeline.py"
# In model_index.json: CODE_FILE and what it holds.
CLASS_NAME = ["pipeline", "MiniSoraPipeline"]
_CODE = '''"""Where diffusers finds the pipeline of this folder: in the installed package minisora."""

from minisora.pipelines.pipeline import MiniSoraPipeline

__all__ = ["MiniSoraPipeline"]
'''

_log = logging.getLogger(__name__)


@dataclass
class VideoOutput(BaseOutput):
    """Videos B 3 T H W in [-1, 1], or normalised latents B Z T' H' W' for output_type="latent"."""

    videos: Tensor


class MiniSoraPipeline(DiffusionPipeline):
    """Text to video with a VideoVAE, a VideoDiT, a text encoder and a diffusers flow-matching scheduler.

    Args:
        vae, dit, text_encoder, scheduler: the components; `text_encoder` is None for an unconditional model.
        default_size: (frames, height, width) the model was trained at; 17, 64, 64 if None.
        fps: frames per second it was trained at.
        default_steps, default_guidance: of `SampleSettings`, where nothing else is asked for.
        sigma_shift: > 1 spends more of the steps near noise.
    """

    _optional_components = ["text_encoder"]  # noqa: RUF012 - diffusers' own spelling

    vae: VideoVAE
    dit: VideoDiT
    text_encoder: TextEncoder | PretrainedTextEncoder | None
    scheduler: Scheduler

    def __init__(
        self,
        vae: VideoVAE,
        dit: VideoDiT,
        text_encoder: TextEncoder | PretrainedTextEncoder | None,
        scheduler: Scheduler,
        default_size: list[int] | None = None,
        fps: float = 8.0,
        default_steps: int = 32,
        default_guidance: float = 3.0,
        sigma_shift: float = 1.0,
    ):
        super().__init__()
        self.register_modules(vae=vae, dit=dit, text_encoder=text_encoder, scheduler=scheduler)
        self.register_to_config(
            default_size=list(default_size or (17, 64, 64)),
            fps=fps,
            default_steps=default_steps,
            default_guidance=default_guidance,
            sigma_shift=sigma_shift,
        )

    def save_config(self, save_directory: str | os.PathLike[str], *args: Any, **kwargs: Any) -> None:
        """Write model_index.json and the code that it names, as diffusers documents for pipelines from elsewhere.

        `DiffusionPipeline.from_pretrained(folder, trust_remote_code=True)` needs both; `save_pretrained` calls this.
        """
        super().save_config(save_directory, *args, **kwargs)
        folder = Path(save_directory)
        index = read_json(folder / self.config_name)
        write_json(folder / self.config_name, index | {"_class_name": CLASS_NAME})
        write_whole(folder / CODE_FILE, _CODE)

    @classmethod
    def load_config(cls, *args: Any, **kwargs: Any) -> Any:
        """What diffusers reads of model_index.json, less the code that it names: this class needs none of a folder."""
        config = super().load_config(*args, **kwargs)
        (config[0] if isinstance(config, tuple) else config)["_class_name"] = cls.__name__
        return config

    @classmethod
    def build(
        cls,
        config: Config,
        vae: VideoVAE,
        dit: VideoDiT,
        text_encoder: TextEncoder | PretrainedTextEncoder | None,
    ) -> "MiniSoraPipeline":
        """A pipeline of trained components with the defaults of a run's config."""
        clip, sample = config.clip, config.sample
        return cls(
            vae.eval(),
            dit.eval(),
            text_encoder.eval() if text_encoder is not None else None,
            make_scheduler(sample.scheduler, config.flow.shift),
            default_size=[clip.frames, clip.height, clip.width],
            fps=clip.fps,
            default_steps=sample.steps,
            default_guidance=sample.guidance,
            sigma_shift=config.flow.shift,
        )

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | Sequence[str],
        *,
        num_frames: int | None = None,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        seed: int = 0,
        generator: torch.Generator | None = None,
        latents: Tensor | None = None,
        output_type: str = "pt",
        decode_chunk: int | None = None,
        progress: bool = True,
        callback_on_step_end: Callable[[int, float, Tensor], None] | None = None,
        known: KnownLatents | None = None,
        strength: float | None = None,
        guidance_interval: tuple[float, float] | None = None,
        resample: int | None = None,
    ) -> VideoOutput:
        """Sample one video per prompt, by the keywords that diffusers' users know.

        Args:
            prompt: one or several; "" samples without a prompt.
            num_frames, height, width: size of the videos; the training size by default.
            num_inference_steps, guidance_scale, guidance_interval: `steps`, `guidance` and `interval` of
                `SampleSettings`; the model's own by default.
            seed, generator, progress, strength, resample: as of `SampleSettings`.
            latents: start from this noise instead, B Z T' H' W'.
            output_type: "pt" for videos, "latent" to skip the decoder.
            decode_chunk: latent frames decoded at a time; bounds memory for long videos, same result.
            callback_on_step_end: called with (step, sigma, latents).
            known: latent frames or cells that stay as they are.

        Raises:
            UserError: a size that does not fit, an unusable prompt, or a setting out of its range.
        """
        if decode_chunk is not None:
            check_number("decode_chunk", decode_chunk, 1, MAX_FRAMES)
        settings = SampleSettings(
            steps=num_inference_steps,
            guidance=guidance_scale,
            interval=guidance_interval,
            strength=strength,
            resample=resample,
            seed=seed,
            generator=generator,
            progress=progress,
            on_step=callback_on_step_end,
        )
        size = self.size(num_frames, height, width)
        if output_type != "latent":
            self.check_memory(1 if isinstance(prompt, str) else len(prompt), size)
        x = self.sample(prompt, size, settings, known=known, noise=latents)
        return VideoOutput(videos=x if output_type == "latent" else self.decode(x, decode_chunk))

    def videos(
        self,
        prompt: str | Sequence[str],
        size: tuple[int, int, int],
        settings: SampleSettings = DEFAULTS,
        known: KnownLatents | None = None,
    ) -> Tensor:
        """Videos B 3 T H W in [-1, 1], one per prompt; arguments and errors as of `sample`."""
        self.check_memory(1 if isinstance(prompt, str) else len(prompt), size)
        return self.decode(self.sample(prompt, size, settings, known=known))

    @torch.no_grad()
    def sample(
        self,
        prompt: str | Sequence[str],
        size: tuple[int, int, int],
        settings: SampleSettings = DEFAULTS,
        *,
        known: KnownLatents | None = None,
        noise: Tensor | None = None,
    ) -> Tensor:
        """Normalised latents B Z T' H' W', one video per prompt.

        Args:
            prompt: one or several; "" samples without a prompt.
            size: (frames, height, width) of the videos.
            settings: how to sample.
            known: latent frames or cells that stay as they are.
            noise: start from this noise instead of the seed's, B Z T' H' W'.

        Raises:
            UserError: a size that does not fit, an unusable prompt, or settings that need another scheduler or model.
        """
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        if not prompts:
            raise UserError("no prompt given: pass at least one, such as 'a red circle moving left'")
        shape = self.latent_shape(*size)
        settings = settings.otherwise(steps=self.config.default_steps, guidance=self.config.default_guidance)
        steps, guidance = settings.steps, settings.guidance
        assert steps is not None
        assert guidance is not None
        low, high = settings.interval or (0.0, 1.0)
        strength, resample = settings.strength or 1.0, settings.resample or 1
        if strength < 1 and known is None:
            raise UserError(f"strength = {strength} starts from a video: pass one, or strength=1")
        if resample > 1 and not isinstance(self.scheduler, FlowMatchEulerDiscreteScheduler):
            raise UserError(f"resample = {resample} needs the euler scheduler, or resample=1")

        device = self._execution_device
        text = self.encode_prompts(prompts, guidance != 1)
        drawn = self.noises(len(prompts), shape, settings.seed, settings.generator)
        noises = (tensor.to(device, torch.float32) for tensor in drawn)
        noise = next(noises) if noise is None else noise.to(device, torch.float32)
        x = noise
        if known is not None:
            known = known.match(noise)
            if known.frames is not None and self.dit.patch[0] > 1:
                raise UserError(
                    f"this model's patches span {self.dit.patch[0]} latent frames, so no single one can be known: "
                    "train with dit.patch=[1,2,2] and flow.known_share above 0"
                )
            x = known.start(noise, strength)

        sigmas = set_sigmas(self.scheduler, steps, self.config.sigma_shift, device, strength)
        self.set_progress_bar_config(disable=not settings.progress, desc="sampling", leave=False)
        with self.progress_bar(total=len(sigmas)) as bar, self.autocast():

            def velocity(x: Tensor, sigma: Tensor, now: float) -> Tensor:
                return self.guided_velocity(x, sigma, text, guidance if low <= now <= high else 1.0)

            def step_done(step: int, sigma: float, x: Tensor) -> None:
                if settings.on_step is not None:
                    settings.on_step(step, sigma, x)
                bar.update()

            x = denoise(velocity, x, noise, self.scheduler, sigmas, noises, known, resample, step_done)
        if not bool(x.isfinite().all()):
            raise UserError(
                f"sampling left the range of numbers at guidance = {guidance:g}: lower it, or use another model"
            )
        return x

    def autocast(self) -> AbstractContextManager[Any]:
        """Where the DiT samples in the number format its device is fastest in."""
        return sampling_context(self._execution_device, self.dit.config.width, self.dit.dtype)

    @torch.no_grad()
    def decode(self, latents: Tensor, chunk: int | None = None) -> Tensor:
        """Videos B 3 T H W in [-1, 1] of normalised latents B Z T' H' W', in parts where the whole does not fit."""
        return self.vae.to_video(latents.to(self.vae.dtype), chunk=chunk).float()

    def size(self, num_frames: int | None, height: int | None, width: int | None) -> tuple[int, int, int]:
        """(frames, height, width) of videos, those of training where they are None."""
        default = self.config.default_size
        return (
            default[0] if num_frames is None else num_frames,
            default[1] if height is None else height,
            default[2] if width is None else width,
        )

    def video_bytes(self, frames: int, height: int, width: int) -> int:
        """About the most memory that a batch takes per video: the DiT's activations with guidance, or the pixels.

        A block holds up to 16 tensors of its tokens' width (of which the MLP's are 8) for each of the two passes;
        of pixels there are the video and, while it is written, two copies. (What the decoder takes on the way it
        bounds itself.)
        """
        _, *grid = self.latent_shape(frames, height, width)
        tokens = math.prod(grid) // math.prod(self.dit.patch)
        return max(
            2 * 16 * 4 * tokens * int(self.dit.config.width), 3 * self._pixels_bytes(frames, height, width)
        )

    @staticmethod
    def _pixels_bytes(frames: int, height: int, width: int) -> int:
        return 3 * 4 * frames * height * width

    def check_memory(
        self, count: int, size: tuple[int, int, int], device: torch.device | None = None
    ) -> None:
        """Refuse before any work what cannot fit: more pixels than there is memory for.

        Args:
            count: videos that are held at a time.
            size: (frames, height, width).
            device: where; the model's own by default.

        Raises:
            UserError: they do not, or the size does not fit the model.
        """
        self.latent_shape(*size)
        need, free = count * self._pixels_bytes(*size), available_memory(device or self._execution_device)
        if need > free:
            raise UserError(
                f"{count} x {size[0]} frames of {size[1]}x{size[2]} are {size_text(need)} of pixels, and "
                f"{size_text(free)} of memory are free: sample fewer at a time, shorter or smaller"
            )

    def latent_shape(self, frames: int, height: int, width: int) -> tuple[int, int, int, int]:
        """Latent size Z T' H' W' of a video; raises UserError with the nearest sizes if it does not fit."""
        grid = check_clip(
            frames,
            height,
            width,
            temporal_factor=self.vae.config.temporal_factor,
            spatial_factor=self.vae.config.spatial_factor,
            patch=self.dit.patch,
        )
        limits = (
            ("num_frames", frames, MAX_FRAMES),
            ("height", height, MAX_SIDE),
            ("width", width, MAX_SIDE),
        )
        for name, number, most in limits:
            check_number(name, number, 1, most)
        return (self.vae.config.latent_channels, *grid)

    def check_prompt(self, prompt: str) -> list[str]:
        """Words of a prompt that the model never saw; raises UserError when it knows none."""
        return self.text_encoder.check(prompt) if self.text_encoder is not None else []

    def guided_velocity(self, x: Tensor, sigma: Tensor, text: TextFeatures | None, guidance: float) -> Tensor:
        """Velocity at x; with guidance, conditional and unconditional in one pass."""
        dtype = self.dit.dtype
        if text is None:
            return self.dit(x.to(dtype), sigma).float()
        if guidance == 1:
            count = len(x)
            prompted = (text.tokens[:count], text.mask[:count], text.pooled[:count])
            return self.dit(x.to(dtype), sigma, *prompted).float()
        both = torch.cat([x, x]).to(dtype)
        velocity = self.dit(both, torch.cat([sigma, sigma]), text.tokens, text.mask, text.pooled).float()
        conditional, unconditional = velocity.chunk(2)
        return unconditional + guidance * (conditional - unconditional)

    def encode_prompts(self, prompts: list[str], guided: bool) -> TextFeatures | None:
        """Text features of the prompts, followed by as many of the null prompt if guided.

        Prompts that the model does not read to their end are logged as a warning.
        """
        if self.text_encoder is None:
            return None
        for prompt in prompts:
            self.check_prompt(prompt)
        remedy = "shorten what you ask for, or train with"
        if line := cut_captions(self.text_encoder.lengths, prompts, "prompts", remedy):
            _log.warning("%s", line)
        return self.text_encoder.encode(prompts + [""] * len(prompts) if guided else prompts)

    @staticmethod
    def noise(
        count: int,
        shape: tuple[int, int, int, int],
        seed: int,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Standard normal noise B Z T' H' W', row i from seed + i, drawn on the CPU: the same everywhere."""
        return next(MiniSoraPipeline.noises(count, shape, seed, generator))

    @staticmethod
    def noises(
        count: int,
        shape: tuple[int, int, int, int],
        seed: int,
        generator: torch.Generator | None = None,
    ) -> Iterator[Tensor]:
        """What `noise` gives, and ever more of it: B Z T' H' W' each, every row drawn on from its own seed's generator.

        (A seed far from the others would not do: of a CPU generator's seed only the lower 32 bits count.)

        Raises:
            UserError: the seed is outside of 0 to 2^32 - 1.
        """
        check_seed(seed)
        if generator is not None:
            while True:
                yield torch.randn(count, *shape, generator=generator, device=generator.device)
        rows = [torch.Generator().manual_seed(seed_after(seed, i)) for i in range(count)]
        while True:
            yield torch.stack([torch.randn(shape, generator=row) for row in rows])
