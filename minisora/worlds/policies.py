"""Who presses the buttons of an arena: policies that need no learning, and the way to a place.

`random` draws a button for every frame; `sticky` holds each for four frames on average; neither looks at the world, and
so what a button does can be told from what the world does. `goal` goes to the goal by a shortest way, then to one free
place after another, with a random button now and then: it sees walls and corners that chance seldom leads to. `mixed`
is `sticky`, with `goal` in every fifth clip.

All that is random follows from the arenas' keys and step counts: the same state at the same step, the same button.
"""

from typing import Literal, Protocol

import numpy as np

from minisora.data.draws import uniforms
from minisora.limits import MAX_FRAMES
from minisora.worlds.arena import BUTTONS, PLAYER_STEP, Arena, ArenaLayout, ArenaState

PolicyName = Literal["random", "sticky", "goal", "mixed"]

# Of `sticky`: the chance that a button is let go of after a frame. Then another, or the same, is drawn.
LET_GO = 0.25
# Of `goal`: the share of random buttons.
STRAY = 0.1
# Steps that `towards` tries, with the true world, before each one.
LOOK_AHEAD = 3
# Of `mixed`: the share of clips that `goal` plays.
GOAL_SHARE = 0.2

# Seeds of `uniforms` for each use; the arena has those below 3.
_BUTTON, _TARGET, _WHO = 3, 4, 5
_MOST_TARGETS = 1 << 8


class Policy(Protocol):
    """Presses buttons, of one batch of arenas from their start on."""

    def press(self, state: ArenaState) -> np.ndarray:
        """The button for each arena of the batch, B int64; called once for every frame, in their order."""
        ...


class Random:
    """A button drawn for every frame."""

    def press(self, state: ArenaState) -> np.ndarray:
        """As `Policy`."""
        return _drawn(state)[0]


class Sticky:
    """A button drawn now and then, and held."""

    def __init__(self) -> None:
        self._held: np.ndarray | None = None

    def press(self, state: ArenaState) -> np.ndarray:
        """As `Policy`."""
        buttons, chance = _drawn(state)
        self._held = buttons if self._held is None else np.where(chance < LET_GO, buttons, self._held)
        return self._held


class ToGoal:
    """The shortest way to the goal, then to one free place after another, astray now and then."""

    def __init__(self, arena: Arena) -> None:
        self.arena = arena
        self._targets = self._fields = np.zeros(0)
        self._number = np.zeros(0, np.int64)

    def press(self, state: ArenaState) -> np.ndarray:
        """As `Policy`."""
        if not len(self._targets):
            self._targets = state.layout.goal.copy()  # B 2
            self._number = np.zeros(len(state), np.int64)
            self._fields = ways(self.arena, state.layout, self._targets)  # B H W
        step = PLAYER_STEP * self.arena.settings.side
        (arrived,) = np.nonzero(np.abs(state.player - self._targets).max(axis=1) <= step)
        if len(arrived):
            self._number[arrived] += 1
            part = state.take(arrived)
            self._targets[arrived] = self._next(part.layout, self._number[arrived])
            self._fields[arrived] = ways(self.arena, part.layout, self._targets[arrived])
        buttons, chance = _drawn(state)
        return np.where(chance < STRAY, buttons, towards(self.arena, state, self._fields))

    def _next(self, layout: ArenaLayout, number: np.ndarray) -> np.ndarray:
        """Free places, B 2, the `number`-th (B) of each arena."""
        items = layout.key * MAX_FRAMES + (number % _MOST_TARGETS)
        size = np.array([self.arena.settings.height, self.arena.settings.width])
        body = self.arena.body(layout)
        places = uniforms(_TARGET, items, 2 * _MOST_TARGETS).reshape(len(items), -1, 2) * size  # B N 2
        good = np.stack(
            [self.arena.free(layout, places[:, i], body) for i in range(places.shape[1])], axis=1
        )  # B N
        return places[np.arange(len(items)), good.argmax(axis=1)]


class Mixed:
    """`Sticky`, and `ToGoal` in some clips."""

    def __init__(self, arena: Arena) -> None:
        self._sticky, self._goal = Sticky(), ToGoal(arena)

    def press(self, state: ArenaState) -> np.ndarray:
        """As `Policy`."""
        buttons = self._sticky.press(state).copy()
        (rows,) = np.nonzero(goes(state.layout))
        if len(rows):
            buttons[rows] = self._goal.press(state.take(rows))
        return buttons


def make_policy(name: PolicyName, arena: Arena) -> Policy:
    """A policy for one batch, by its name."""
    if name == "goal":
        return ToGoal(arena)
    if name == "mixed":
        return Mixed(arena)
    return Random() if name == "random" else Sticky()


def goes(layout: ArenaLayout) -> np.ndarray:
    """Which arenas `mixed` plays by `goal`, B bool."""
    return uniforms(_WHO, layout.key, 1)[:, 0] < GOAL_SHARE


def ways(arena: Arena, layout: ArenaLayout, targets: np.ndarray) -> np.ndarray:
    """How far the player is from a place, up, down and sideways around the walls, pixels.

    Args:
        arena: the rules.
        layout: of B arenas.
        targets: B 2.

    Returns:
        B H W, by the pixel of the player's centre; infinite where it cannot be.
    """
    height, width = arena.settings.height, arena.settings.width
    body = arena.body(layout)
    free = np.ones((len(targets), height, width), bool)
    blocked = np.ones((len(targets), layout.walls.shape[1], height, width), bool)
    for axis, size in enumerate((height, width)):
        # Of a pixel's half before and behind: where there is a free place within a pixel, the pixel is free.
        first = np.arange(size) - body.before[:, axis, None] + 0.5  # B S
        last = np.arange(size) + body.behind[:, axis, None] - 0.5
        shape = (len(targets), -1, 1) if axis == 0 else (len(targets), 1, -1)
        free &= ((first >= -0.5) & (last <= size - 0.5)).reshape(shape)
        meets = (last[:, None] > layout.walls[..., axis, None]) & (
            first[:, None] < layout.walls[..., axis + 2, None]
        )
        blocked &= meets[..., :, None] if axis == 0 else meets[..., None, :]  # B K H W
    free &= ~blocked.any(axis=1)
    pixel = np.indices((height, width)).transpose(1, 2, 0)  # H W 2
    apart = np.abs(pixel - targets[:, None, None]).sum(axis=-1)  # B H W
    field = np.where(free & (apart <= 1.5), apart, np.inf)
    while True:
        better = field.copy()
        better[:, 1:] = np.minimum(better[:, 1:], field[:, :-1] + 1)
        better[:, :-1] = np.minimum(better[:, :-1], field[:, 1:] + 1)
        better[:, :, 1:] = np.minimum(better[:, :, 1:], field[:, :, :-1] + 1)
        better[:, :, :-1] = np.minimum(better[:, :, :-1], field[:, :, 1:] + 1)
        better[~free] = np.inf
        if np.array_equal(better, field):
            return field
        field = better


def towards(arena: Arena, state: ArenaState, fields: np.ndarray) -> np.ndarray:
    """The button that begins the best `LOOK_AHEAD` steps by the distances of `ways` (B H W), B int64.

    One step would not do: past a corner by a hair, the next may lead as far away as the one after it leads back.
    """
    plans = np.indices((len(BUTTONS),) * LOOK_AHEAD).reshape(LOOK_AHEAD, -1)  # L P
    number = plans.shape[1]
    rows = np.repeat(np.arange(len(state)), number)  # B P, flat
    future, left = state.take(rows), np.zeros(len(rows))
    for step, buttons in enumerate(plans):
        future = arena.step(future, np.tile(buttons, len(state)))
        # What is left in the end counts; the steps before break ties, so that nobody waits.
        weight = 1.0 if step == LOOK_AHEAD - 1 else 1e-3
        left += weight * _left(fields, rows, future.player)
    return plans[0][left.reshape(len(state), number).argmin(axis=1)]


def _left(fields: np.ndarray, rows: np.ndarray, places: np.ndarray) -> np.ndarray:
    """What is left of the way from places between pixels: by the best of the four pixels around.

    Args:
        fields: B H W.
        rows: N, which of the fields.
        places: N 2.

    Returns:
        N.
    """
    height, width = fields.shape[1:]
    best = np.full(len(places), np.inf)
    for dy in (0, 1):
        for dx in (0, 1):
            pixel = np.floor(places).astype(int) + np.array([dy, dx])
            pixel = np.clip(pixel, 0, (height - 1, width - 1))
            left = fields[rows, pixel[:, 0], pixel[:, 1]]
            best = np.minimum(best, left + np.abs(places - pixel).sum(axis=1))
    return best


def _drawn(state: ArenaState) -> tuple[np.ndarray, np.ndarray]:
    """For each arena a button, B int64, and a uniform number, B."""
    draws = uniforms(_BUTTON, state.layout.key * MAX_FRAMES + state.step, 2)
    return np.floor(draws[:, 0] * len(BUTTONS)).astype(np.int64), draws[:, 1]
