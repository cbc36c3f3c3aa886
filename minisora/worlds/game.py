"""A world under way that a person plays: where it began, what was pressed since, and the true world beside it.

Letters: H height, W width, T frames. Frames are uint8.
"""

import math
import threading
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from minisora.errors import UserError
from minisora.limits import check_seed
from minisora.worlds.world import TrueWorld, World

# The button that is pressed while no key is held. A world without it waits for a key.
IDLE = "noop"
# Steps that a game keeps for its recording: at 10 a second ten minutes, of 64x64 with the true world 150 MB.
MAX_KEPT = 6000


@dataclass(frozen=True)
class Beginning:
    """Where a game begins.

    Args:
        seed: of the world's chance, and of its first frame where none is given.
        frames: `3 T H W`, what was seen so far, the last one now; None: the first frame of the true world, and without
            one a first frame of the world's own.
        truth: a true world that begins at that last frame; None: the game's own, which begins by the seed, where no
            frames are given.
        words: what it is, for people, such as "the picture photo.png".
    """

    seed: int = 0
    frames: Tensor | None = None
    truth: World | None = None
    words: str = ""

    def __post_init__(self) -> None:
        check_seed(self.seed)


class Game:
    """A world that a person plays, and what was played since its beginning.

    Args:
        world: to play.
        truth: the true world that it is a model of: it begins by the same seed and takes the same buttons.

    `steps` counts since the beginning, `off` is the distance in pixels of the player from where the true arena has it:
    infinite where none is seen, None without the arena.

    Raises:
        UserError: the true world lacks one of the buttons, or shows frames of another size.
    """

    def __init__(self, world: World, truth: World | None = None) -> None:
        self.world, self.truth = world, truth
        if truth is not None:
            _check_alike(world, truth)
        self.beginning = Beginning()
        self.steps = 0
        self.off: float | None = None
        self._beside: World | None = None
        self._now: tuple[Tensor, Tensor | None] | None = None
        self._lock = threading.Lock()
        self._played: Played | None = None

    @property
    def idle(self) -> str | None:
        """What is pressed while no key is held; None: the world waits."""
        return IDLE if IDLE in self.world.buttons else None

    @property
    def now(self) -> tuple[Tensor, Tensor | None]:
        """The frame `3 H W`, and that of the true world; raises UserError before the beginning."""
        if self._now is None:
            raise UserError("the game is not begun: call begin() first")
        return self._now

    def begin(self, beginning: Beginning) -> None:
        """Begin, or begin again; where that fails, the game that was goes on.

        Raises:
            UserError: the frames do not fit the world, or the true world given does not.
        """
        truth = beginning.truth or (self.truth if beginning.frames is None else None)
        if truth is not None:
            _check_alike(self.world, truth)
        before = [(each, each.keep()) for each in (self.world, self._beside) if each and self._now]
        seen = None if beginning.frames is None else beginning.frames[None]  # 1 3 T H W
        try:
            beside = None if truth is None else truth.start(seed=beginning.seed)  # 1 3 H W
            frame = self.world.start(beside if seen is None else seen, beginning.seed)  # 1 3 H W
        except UserError:
            for world, moment in before:
                world.go_back(moment)
            raise
        now = frame[0], None if beside is None else beside[0]
        arena = next((each for each in (truth, self.world) if isinstance(each, TrueWorld)), None)
        self.beginning, self._beside, self._now, self.steps = beginning, truth, now, 0
        self.off = self._distance()
        with self._lock:
            self._played = Played(
                beginning,
                None if arena is None else TrueWorld(arena.arena.settings, arena.state, arena.fps),
                [],
                [now[0]],
                [] if now[1] is None else [now[1]],
                [self.off],
            )

    def step(self, button: str) -> None:
        """Press a button: `now` is a frame later. What the true world alone has is to the dream as no button pressed.

        Raises:
            UserError: there is no such button, or the dream has none for doing nothing.
        """
        known = self.world.buttons
        beside = self._beside.buttons if self._beside is not None else {}
        code = known.get(button, known.get(IDLE) if button in beside else None)
        if code is None:
            raise UserError(f"there is no button '{button}': the world has {', '.join(known)}")
        frame = self.world.step([code])[0]
        truth = None
        if self._beside is not None:
            truth = self._beside.step([self._beside.buttons[button]])[0]
        self._now = frame, truth
        self.steps += 1
        self.off = self._distance()
        assert self._played is not None
        if self.steps <= MAX_KEPT:
            with self._lock:
                self._played.buttons.append(button)
                self._played.frames.append(frame)
                if truth is not None:
                    self._played.true_frames.append(truth)
                self._played.off.append(self.off)

    def played(self) -> "Played":
        """What was played since the beginning, as it is now; from any thread."""
        with self._lock:
            kept = self._played
            if kept is None:
                raise UserError("nothing was played: call begin() first")
            return replace(
                kept,
                buttons=[*kept.buttons],
                frames=[*kept.frames],
                true_frames=[*kept.true_frames],
                off=[*kept.off],
            )

    def _distance(self) -> float | None:
        """`off`, now."""
        if self._now is None or not isinstance(self._beside, TrueWorld):
            return None
        # What measures a world knows what trains it, which is long to load; the arena alone needs neither.
        from minisora.worlds.measure_world import locate

        state = self._beside.state
        place = locate(self._now[0][None], state, self._beside.arena.settings)[0]
        apart = float(np.sqrt(((place - state.player[0]) ** 2).sum()))
        return math.inf if math.isnan(apart) else apart


@dataclass(frozen=True)
class Played:
    """What was played: T frames, of at most `MAX_KEPT` steps.

    Args:
        beginning: where it began.
        arena: the true arena that begins there, where it was played or stood beside; else None.
        buttons: T - 1 names.
        frames: T of `3 H W`.
        true_frames: as many of the true world beside it, or none.
        off: T of `Game.off`.
    """

    beginning: Beginning
    arena: TrueWorld | None
    buttons: list[str]
    frames: list[Tensor]
    true_frames: list[Tensor]
    off: list[float | None]

    def video(self) -> Tensor:
        """`3 T H W`, the true world at the right where there is one."""
        video = torch.stack(self.frames, dim=1)
        return torch.cat([video, torch.stack(self.true_frames, dim=1)], dim=3) if self.true_frames else video

    def drift(self) -> list[float]:
        """PSNR of each frame against the true world's, dB; empty without one."""
        return [drift(*pair) for pair in zip(self.frames, self.true_frames, strict=False)]


def drift(frame: Tensor, truth: Tensor) -> float:
    """PSNR of a frame against the true world's, `3 H W` each, dB; infinite where they are equal."""
    error = (frame.double() - truth.double()).square().mean()
    return float(10 * torch.log10(255**2 / error))


def _check_alike(world: World, truth: World) -> None:
    if world.size != truth.size:
        sizes = ["x".join(str(side) for side in each.size) for each in (world, truth)]
        raise UserError(f"the world shows {sizes[0]}, the true one {sizes[1]}: leave --beside out")
    if missing := [name for name in world.buttons if name not in truth.buttons]:
        raise UserError(
            f"the true world has no button for {', '.join(missing)}: name the codes (minisora world name), or leave "
            "--beside out"
        )
