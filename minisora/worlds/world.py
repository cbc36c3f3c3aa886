"""What a world is to those who play it, a person or a planner: a first frame, then a frame for each code pressed.

The true arena (`TrueWorld`) and one that a model dreams are played alike, so that they can be shown beside each other.
A world is played by codes 0 to `num_codes - 1`. Of the true arena they are its buttons; of a dream they are what the
model found by looking alone, and names come from a few labelled steps.

Letters: B worlds that are played at once, H height, W width. Frames are uint8.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from minisora.errors import UserError
from minisora.worlds.arena import BUTTONS, Arena, ArenaSettings, ArenaState


class World(Protocol):
    """A world that is played."""

    @property
    def size(self) -> tuple[int, int]:
        """Of a frame, (height, width), pixels."""
        ...

    @property
    def fps(self) -> float:
        """Frames per second of the recordings that it was learned from; the pace at which it is played."""
        ...

    @property
    def num_codes(self) -> int:
        """How many codes can be pressed."""
        ...

    @property
    def names(self) -> tuple[str, ...]:
        """What each code does, in a word; "code 3" where nobody named it. Several may have the same name."""
        ...

    @property
    def buttons(self) -> Mapping[str, int]:
        """The code to press for each name: of several with one name the one that means it most often."""
        ...

    def start(self, frames: Tensor | None = None, seed: int = 0) -> Tensor:
        """Begin to play, or begin again.

        Args:
            frames: what was seen so far, `B 3 H W`, or `B 3 T H W` with the last one now; None: a first frame of
                the world's own, by the seed, of one world.
            seed: the same frames, seed and codes give the same frames.

        Returns:
            The frame now, `B 3 H W`.

        Raises:
            UserError: the frames are of another size, or this world cannot begin with a frame.
        """
        ...

    def step(self, codes: Sequence[int] | np.ndarray) -> Tensor:
        """Press a code in each world: the next frame, `B 3 H W`.

        Raises:
            UserError: there is no such code, or not one for each world.
        """
        ...

    def keep(self) -> Any:
        """The moment, to come back to; playing on does not change it."""
        ...

    def go_back(self, moment: Any, rows: Sequence[int] | np.ndarray | None = None) -> None:
        """Play on from a moment that `keep` gave: all its worlds, or those of these rows (repeated or not)."""
        ...


class TrueWorld:
    """The arena as a `World`: a code is a button, and what follows is exact.

    Args:
        settings: the kind of arena.
        state: where `start` begins, such as a moment of a recording; None: the arena number `seed` of this kind.
        fps: frames per second.
    """

    def __init__(
        self, settings: ArenaSettings | None = None, state: ArenaState | None = None, fps: float = 10.0
    ) -> None:
        self.arena = Arena(settings)
        self.fps = fps
        self._first = state
        self._state = state

    @property
    def size(self) -> tuple[int, int]:
        """As `World`."""
        return self.arena.settings.height, self.arena.settings.width

    @property
    def num_codes(self) -> int:
        """As `World`."""
        return len(BUTTONS)

    @property
    def names(self) -> tuple[str, ...]:
        """As `World`."""
        return BUTTONS

    @property
    def buttons(self) -> Mapping[str, int]:
        """As `World`."""
        return {name: code for code, name in enumerate(BUTTONS)}

    @property
    def state(self) -> ArenaState:
        """All there is to know of the moment; raises UserError before the start."""
        if self._state is None:
            raise UserError("the world is not begun: call start() first")
        return self._state

    def start(self, frames: Tensor | None = None, seed: int = 0) -> Tensor:
        """As `World`; it cannot begin with a frame, as its state is more than can be seen."""
        if frames is not None:
            raise UserError(
                "the true arena cannot begin with a frame: give it a state, or start it by a seed"
            )
        self._state = self.arena.start(seed, [0]) if self._first is None else self._first
        return self.arena.render(self._state)

    def step(self, codes: Sequence[int] | np.ndarray) -> Tensor:
        """As `World`."""
        self._state = self.arena.step(self.state, codes)
        return self.arena.render(self._state)

    def keep(self) -> ArenaState:
        """As `World`."""
        return self.state

    def go_back(self, moment: ArenaState, rows: Sequence[int] | np.ndarray | None = None) -> None:
        """As `World`."""
        self._state = moment if rows is None else moment.take(rows)
