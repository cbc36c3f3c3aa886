"""A world that a model dreams: how it is played, and read from its folder.

Letters: B worlds played at once, Z channels, H W pixels, h w latent grid.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_args

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from minisora.data.clips import to_float, to_uint8
from minisora.data.draws import rng
from minisora.errors import UserError
from minisora.files import changed_file, read_json, write_json
from minisora.flow.path import interpolate
from minisora.limits import MAX_STEPS, check_number, check_seed
from minisora.models.dit import VideoDiT
from minisora.models.frame_memory import FrameMemory
from minisora.models.precision import sampling_context
from minisora.models.vae import VideoVAE
from minisora.training.stages import read_model
from minisora.worlds.actions import ActionModel
from minisora.worlds.dynamics import Objective, beside, next_frame, sampling_sigmas
from minisora.worlds.naming import CodeNames, read_names
from minisora.worlds.world_folder import ABOUT, NAMES, STARTS, find_world, shipped_worlds

_FORMAT = 1


@dataclass(frozen=True)
class DreamSettings:
    """What a dream is, beside its models.

    Args:
        height, width: of a frame, pixels.
        fps: frames per second.
        steps: sampling steps of a frame.
        context_sigma: noise level at which frames before are seen.
        objective: what the dynamics say, as in the config.
        told: whether the codes are buttons that training was told, and not found: a baseline. Such a world cannot tell
            what was done in frames that it is shown, and begins with the last one.
    """

    height: int
    width: int
    fps: float
    steps: int
    context_sigma: float
    objective: Objective = "composite"
    told: bool = False


@dataclass(frozen=True)
class DreamMoment:
    """A moment of B dreams: what was seen, the frame now (B Z 1 h w), frames since the start, and the seed."""

    memory: FrameMemory
    now: Tensor
    frames: int
    seed: int


class Dream:
    """A `World` that is learned. Frames follow from (first frames, seed, codes) alone; rows do not see each other.

    Args:
        vae: of single frames, with one latent frame for each.
        dit: of `minisora.worlds.dynamics`.
        actions: what found the codes.
        settings: see there.
        starts: first frames that it may begin with, N 3 H W uint8.
        code_names: of the codes, if they were named.
    """

    def __init__(
        self,
        vae: VideoVAE,
        dit: VideoDiT,
        actions: ActionModel,
        settings: DreamSettings,
        starts: Tensor,
        code_names: CodeNames | None = None,
    ):
        self.vae, self.dit, self.actions = (
            model.eval().requires_grad_(False) for model in (vae, dit, actions)
        )
        self.settings, self.starts, self.code_names = settings, starts, code_names
        # Sampling steps of a frame, and what keeps the frames seen; may be set.
        self.steps = settings.steps
        self.memory_of: Callable[[VideoDiT], FrameMemory] = FrameMemory
        self._moment: DreamMoment | None = None

    @property
    def size(self) -> tuple[int, int]:
        """As `World`."""
        return self.settings.height, self.settings.width

    @property
    def fps(self) -> float:
        """As `World`."""
        return self.settings.fps

    @property
    def num_codes(self) -> int:
        """As `World`."""
        return int(self.actions.config.codes)

    @property
    def names(self) -> tuple[str, ...]:
        """As `World`."""
        if self.code_names is None:
            return tuple(f"code {code}" for code in range(self.num_codes))
        return self.code_names.names

    @property
    def buttons(self) -> Mapping[str, int]:
        """As `World`."""
        if self.code_names is None:
            return MappingProxyType({name: code for code, name in enumerate(self.names)})
        return MappingProxyType(self.code_names.pressed)

    def to(self, device: str | torch.device) -> "Dream":
        """The dream on a device; to be started again."""
        for model in (self.vae, self.dit, self.actions):
            model.to(device)
        self._moment = None
        return self

    def half(self) -> "Dream":
        """The dream in half precision, to be written down; it is played in float32."""
        for model in (self.vae, self.dit, self.actions):
            # By torch's own `to`: that of diffusers warns of a precaution it has no reason for.
            torch.nn.Module.to(model, torch.float16)
        return self

    @torch.no_grad()
    def start(self, frames: Tensor | None = None, seed: int = 0) -> Tensor:
        """As `World`; of several frames the codes between them are found, so that it goes on as they do."""
        check_seed(seed)
        if frames is None:
            frames = self.starts[seed % len(self.starts)][None]  # 1 3 H W
        video = frames[:, :, None] if frames.ndim == 4 else frames  # B 3 T H W
        if video.ndim != 5 or video.shape[1] != 3 or video.shape[-2:] != self.size or not video.shape[2]:
            height, width = self.size
            raise UserError(
                f"frames of this world are B 3 {height} {width}, not {tuple(frames.shape)}: scale them to that"
            )
        if video.dtype != torch.uint8:
            raise UserError(f"frames are bytes (uint8), not {video.dtype}: convert them with to_uint8")
        video = to_float(video.to(self.vae.device))
        with self._context():
            latents = self.vae.to_latents(video).float()  # B Z T h w
            memory = self.memory_of(self.dit)
            if video.shape[2] > 1 and not self.settings.told:
                codes = torch.stack([self.actions.codes_of(clip) for clip in video])  # B T-1
                self._recall(memory, latents, codes, seed)
        self._moment = DreamMoment(memory, latents[:, :, -1:], 0, seed)
        return frames if frames.ndim == 4 else frames[:, :, -1]

    def _recall(self, memory: FrameMemory, latents: Tensor, codes: Tensor, seed: int) -> None:
        """Let a memory see what was: latents B Z T h w, and the codes between them, B T-1."""
        level = torch.full((len(latents),), self.settings.context_sigma, device=latents.device)
        for frame in range(1, latents.shape[2]):
            # Before the start, so counted down.
            noise = self._noise(latents[:, :, :1], seed, frame - latents.shape[2])
            before, now = (latents[:, :, at : at + 1] for at in (frame - 1, frame))
            seen = interpolate(before, noise[1], level).noisy
            noisy = interpolate(now, noise[2], level).noisy
            memory.see(beside(noisy, seen, level), level, codes[:, frame - 1])

    @torch.no_grad()
    def step(self, codes: Sequence[int] | np.ndarray) -> Tensor:
        """As `World`."""
        latents = self.step_latents(codes)
        with self._context():
            return to_uint8(self.vae.to_video(latents).float()[:, :, 0]).cpu()

    @torch.no_grad()
    def step_latents(self, codes: Sequence[int] | np.ndarray) -> Tensor:
        """As `step`, but the new frame as latents, B Z 1 h w: no picture is drawn."""
        now, pressed = self.moment, np.asarray(codes)
        if pressed.shape != (len(now.now),) or not np.issubdtype(pressed.dtype, np.integer):
            raise UserError(f"{len(now.now)} worlds need {len(now.now)} codes, whole numbers, not {codes!r}")
        if pressed.size and not 0 <= pressed.min() <= pressed.max() < self.num_codes:
            raise UserError(f"codes are 0 to {self.num_codes - 1}, not {pressed.tolist()}")
        check_number("steps", self.steps, 1, MAX_STEPS)
        memory = now.memory.copied()
        noise = self._noise(now.now, now.seed, now.frames)
        with self._context():
            latents = next_frame(
                memory,
                now.now,
                torch.from_numpy(pressed.astype(np.int64)).to(now.now.device),
                noise,
                sampling_sigmas(self.steps),
                self.settings.context_sigma,
                self.settings.objective,
            )
        self._moment = DreamMoment(memory, latents, now.frames + 1, now.seed)
        return latents

    @property
    def moment(self) -> DreamMoment:
        """The moment; raises UserError before the start."""
        if self._moment is None:
            raise UserError("the world is not begun: call start() first")
        return self._moment

    def keep(self) -> DreamMoment:
        """As `World`; a moment is never changed."""
        return self.moment

    def go_back(self, moment: DreamMoment, rows: Sequence[int] | np.ndarray | None = None) -> None:
        """As `World`."""
        if rows is not None:
            index = torch.as_tensor(np.asarray(rows))
            memory = moment.memory.take(index, len(moment.now))
            moment = DreamMoment(memory, moment.now[index], moment.frames, moment.seed)
        self._moment = moment

    def _noise(self, like: Tensor, seed: int, frame: int) -> list[Tensor]:
        """Three noises of a frame's shape, the same for every row: worlds differ by what is done in them."""
        # Keys are not negative.
        draws = rng(seed, 0 if frame < 0 else 1, abs(frame))
        noise = torch.from_numpy(draws.standard_normal((3, *like.shape[1:]), dtype=np.float32))
        return [each.to(like.device).expand_as(like) for each in noise]

    def _context(self) -> AbstractContextManager[Any]:
        return sampling_context(self.dit.device, self.dit.config.width, torch.float32)

    def save_pretrained(self, folder: Path, /) -> None:
        """Write the folder; raises OSError or SafetensorError where that cannot be."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, model in (("vae", self.vae), ("dit", self.dit), ("actions", self.actions)):
            model.save_pretrained(folder / name)
        save_file({"starts": self.starts.contiguous()}, folder / STARTS)
        write_json(folder / ABOUT, {"format": _FORMAT, **asdict(self.settings)})


def load_dream(folder: Path, device: str | torch.device | None = None) -> Dream:
    """The dream in a folder, as `minisora world train` writes RUN/world, in float32.

    Args:
        folder: its place, or the name of a shipped world.
        device: where to put it; None: the GPU if there is one.

    Raises:
        UserError: the folder is no whole world; the message says what to do.
    """
    again = "copy it again, or run 'minisora world train' again"
    folder = find_world(folder)
    if not (folder / ABOUT).is_file():
        inside = folder / "world"
        also = f", or name a shipped one: {', '.join(shipped_worlds())}" if shipped_worlds() else ""
        hint = (
            f"; did you mean {inside}?"
            if (inside / ABOUT).is_file()
            else ": run 'minisora world train' first" + also
        )
        raise UserError(f"{folder} is no world: it has no {ABOUT}{hint}")
    if (changed := changed_file(folder)) is not None:
        raise UserError(f"world {folder} is damaged ({changed}): {again}")
    try:
        about = read_json(folder / ABOUT)
        if about.pop("format") != _FORMAT:
            raise UserError(f"world {folder} is of a newer minisora: install that")
        # Where it is not named yet, the clean frame alone was said.
        settings = DreamSettings(**{"objective": "clean", **about})
        check_number("steps", settings.steps, 1, MAX_STEPS)
        if settings.objective not in get_args(Objective):
            raise ValueError(f"objective {settings.objective!r}")
        with safe_open(str(folder / STARTS), framework="pt") as file:
            starts = file.get_tensor("starts")
    except (OSError, SafetensorError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"world {folder} cannot be read ({error}): {again}") from error
    vae, dit, actions = (
        read_model(kind, folder / name, again).float()
        for kind, name in ((VideoVAE, "vae"), (VideoDiT, "dit"), (ActionModel, "actions"))
    )
    dream = Dream(vae, dit, actions, settings, starts, read_names(folder / NAMES))
    return dream.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
