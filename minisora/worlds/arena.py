"""The arena: a small world with five buttons, whose every frame is known exactly.

A player (circle, square or triangle) walks on a ground of night or day. Grey walls and the frame's edge stop it; balls
fly straight and bounce off walls and edges; coins vanish when the player touches them; a white square is the goal.
Balls and player pass through each other. Drawn by the rasteriser of the shapes world, in its colours and its "small"
size: what the text model draws of a small red circle could be a first frame here.

What follows is a pure function of (state, button): `step` changes nothing, and what is random in it (the turns of
balls) is drawn from the state's own key and step count. A state can be kept as arrays and restored, so the true world
can be stepped beside a model, or searched by a planner.

Letters: B arenas, H height, W width, K walls, M balls ("movers"), C coins. Positions are (y, x) in pixels, pixel
centres at integers: the frame reaches from -0.5 to H - 0.5.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from minisora.data.clips import to_uint8
from minisora.data.draws import uniforms
from minisora.data.shapes_world.grammar import COLORS, SHAPES
from minisora.data.shapes_world.layout import (
    DAY,
    DAY_JITTER,
    NIGHT,
    RADIUS,
    REACH,
    SQUARE_HALF_SIDE,
    WALL,
    between,
    cover,
)
from minisora.errors import UserError
from minisora.limits import MAX_FRAMES, MAX_SIDE, check_number, check_seed

BUTTONS: tuple[str, ...] = ("noop", "up", "down", "left", "right")
# What each button does to (y, x), in steps of the player.
_MOVES = np.array([(0, 0), (-1, 0), (1, 0), (0, -1), (0, 1)], dtype=np.float64)

PLAYER_COLORS = ("red", "green", "blue")
_GOAL_COLOR, _MOVER_COLOR, _COIN_COLOR = "white", "purple", "yellow"
_DAY_SHARE = 0.35
MAX_WALLS, MAX_MOVERS, MAX_COINS = 2, 2, 5
_SMALLEST_SIDE = 16

# Shares of the shorter side: radii as in the shapes world, steps of a frame, and the width of a wall.
PLAYER_RADIUS = RADIUS["small"]
GOAL_RADIUS = MOVER_RADIUS = 0.08
COIN_RADIUS = 0.045
PLAYER_STEP = 3 / 64
MOVER_STEP = 2 / 64
WALL_WIDTH = 0.05
# A corridor lets the widest shape pass, with a little to spare.
_CORRIDOR = float(2 * REACH[:, 2].max() * PLAYER_RADIUS + 0.01)
# Length of a wall, as a share of its direction; the rest, at its one end, is a passage wider than a corridor.
_WALL_LENGTH = (0.35, 0.65)
# Positions closer than this to a wall (pixels) touch it and do not overlap: rounding is a thousand times finer.
_TOUCH = 1e-6

# One seed of `uniforms` for each use.
_LAYOUT, _PLACES, _TURNS = range(3)
_KEY_BITS = 43
# Uniform numbers that lay out an arena.
_NUM_DRAWS = 16 + MAX_MOVERS
# At the most so many draws for an object until it has a free place; a draw succeeds about every third time.
_MOST_TRIES = 1000


@dataclass(frozen=True)
class ArenaSettings:
    """What kind of arena; each single one is drawn by (seed, index).

    Args:
        height, width: of a frame, pixels.
        walls: 0 to 2 grey bars, from one edge into the frame.
        movers: 0 to 2 balls.
        coins: 0 to 5.
        turning: chance at each step that a ball takes another direction, drawn anew.

    Raises:
        UserError: a number is out of its range.
    """

    height: int = 64
    width: int = 64
    walls: int = 2
    movers: int = 0
    coins: int = 0
    turning: float = 0.0

    def __post_init__(self) -> None:
        check_number("height", self.height, _SMALLEST_SIDE, MAX_SIDE)
        check_number("width", self.width, _SMALLEST_SIDE, MAX_SIDE)
        check_number("walls", self.walls, 0, MAX_WALLS)
        check_number("movers", self.movers, 0, MAX_MOVERS)
        check_number("coins", self.coins, 0, MAX_COINS)
        check_number("turning", self.turning, 0.0, 1.0)

    @property
    def side(self) -> int:
        """The shorter side, pixels: all sizes and speeds are shares of it."""
        return min(self.height, self.width)


@dataclass(frozen=True)
class ArenaLayout:
    """What stays as it is while an arena is played.

    Args:
        key: B int64, below 2^43; all that is random follows from it.
        shape: B int64, the player's, index into SHAPES of the shapes world.
        color: B int64, the player's, index into PLAYER_COLORS.
        day: B bool.
        background: B 3, RGB in [0, 1].
        wall_grey: B, in [0, 1].
        walls: B K 4, edges (top, left, bottom, right), pixels.
        goal: B 2.
        coins: B C 2.
    """

    key: np.ndarray
    shape: np.ndarray
    color: np.ndarray
    day: np.ndarray
    background: np.ndarray
    wall_grey: np.ndarray
    walls: np.ndarray
    goal: np.ndarray
    coins: np.ndarray


@dataclass(frozen=True)
class ArenaState:
    """B arenas at a moment: everything that `step` and `render` depend on. Its arrays are not to be changed.

    Args:
        layout: what stays.
        step: B int64, steps since the start.
        player: B 2, centre of the player.
        movers: B M 2, centres of the balls.
        velocities: B M 2, of the balls, pixels a step.
        coins_left: B C bool.
    """

    layout: ArenaLayout
    step: np.ndarray
    player: np.ndarray
    movers: np.ndarray
    velocities: np.ndarray
    coins_left: np.ndarray

    def __len__(self) -> int:
        return len(self.step)

    def take(self, rows: Sequence[int] | np.ndarray) -> "ArenaState":
        """The arenas of these rows (indices, repeated or not, or a mask): such as one state for many futures."""
        return ArenaState(_taken(self.layout, rows), **{name: getattr(self, name)[rows] for name in CHANGING})

    def arrays(self) -> dict[str, np.ndarray]:
        """The state as arrays by name, to be kept; `restore` makes it again."""
        layout = {name: getattr(self.layout, name) for name in STAYING}
        return layout | {name: getattr(self, name) for name in CHANGING}


STAYING = tuple(field.name for field in fields(ArenaLayout))
CHANGING = tuple(field.name for field in fields(ArenaState) if field.name != "layout")


def restore(arrays: dict[str, np.ndarray]) -> ArenaState:
    """The state that `ArenaState.arrays` was taken of.

    Raises:
        UserError: an array is missing.
    """
    missing = [name for name in (*STAYING, *CHANGING) if name not in arrays]
    if missing:
        raise UserError(f"no state of an arena: {', '.join(missing)} missing; record the clips again")
    return ArenaState(
        ArenaLayout(**{name: arrays[name] for name in STAYING}), **{name: arrays[name] for name in CHANGING}
    )


class Body(NamedTuple):
    """How far a moving thing reaches from its centre, B 2 each: (up, left) and (down, right), pixels."""

    before: np.ndarray
    behind: np.ndarray


class Arena:
    """The rules of one kind of arena: where it starts, what a button does, what it looks like, what is said of it.

    Args:
        settings: the kind.
    """

    def __init__(self, settings: ArenaSettings | None = None) -> None:
        self.settings = settings or ArenaSettings()
        # The last layout that was drawn, and its ground: frames of an arena come one after another.
        self._ground: tuple[ArenaLayout, np.ndarray] | None = None

    def start(self, seed: int, indices: Sequence[int] | np.ndarray) -> ArenaState:
        """The arenas of these numbers at their beginning, each a function of (seed, index) and the settings.

        Raises:
            UserError: the seed is out of range, or nothing has room (which a picture of 16 pixels or more has).
        """
        check_seed(seed)
        side, num_arenas = self.settings.side, len(indices)
        key = np.floor(uniforms(seed, indices, 1)[:, 0] * 2.0**_KEY_BITS).astype(np.int64)
        draws = uniforms(_LAYOUT, key, _NUM_DRAWS)  # B _NUM_DRAWS
        day = draws[:, 0] < _DAY_SHARE
        night = NIGHT[0] + (NIGHT[1] - NIGHT[0]) * draws[:, 1:2]
        layout = ArenaLayout(
            key=key,
            shape=np.floor(draws[:, 2] * len(SHAPES)).astype(np.int64),
            color=np.floor(draws[:, 3] * len(PLAYER_COLORS)).astype(np.int64),
            day=day,
            background=np.where(day[:, None], DAY + DAY_JITTER * (2 * draws[:, 4:7] - 1), night),
            wall_grey=WALL[0] + (WALL[1] - WALL[0]) * draws[:, 7],
            walls=self._walls(draws[:, 8:16]),
            goal=np.zeros((num_arenas, 2)),
            coins=np.zeros((num_arenas, self.settings.coins, 2)),
        )
        # Each has a free place of its own, the goal one where the player can stand; balls may be anywhere free.
        player = self._place(layout, 0, self.body(layout), [])
        taken = [(player, 2 * PLAYER_RADIUS * side)]
        layout = replace(layout, goal=self._place(layout, 1, self.body(layout), taken))
        taken.append((layout.goal, (PLAYER_RADIUS + GOAL_RADIUS) * side))
        coins, body = [], _box(num_arenas, COIN_RADIUS * side)
        for number in range(self.settings.coins):
            coins.append(self._place(layout, 2 + number, body, taken))
            taken.append((coins[-1], 2 * COIN_RADIUS * side))
        movers = [
            self._place(layout, 2 + MAX_COINS + number, _box(num_arenas, MOVER_RADIUS * side), [])
            for number in range(self.settings.movers)
        ]
        angle = 2 * np.pi * draws[:, 16 : 16 + self.settings.movers]
        return ArenaState(
            replace(layout, coins=_stacked(coins, num_arenas)),
            step=np.zeros(num_arenas, np.int64),
            player=player,
            movers=_stacked(movers, num_arenas),
            velocities=self._velocity(angle),
            coins_left=np.ones((num_arenas, self.settings.coins), bool),
        )

    def step(self, state: ArenaState, buttons: Sequence[int] | np.ndarray) -> ArenaState:
        """The arenas one frame later. The state that is given stays as it is.

        Args:
            state: of B arenas.
            buttons: B, indices into BUTTONS.

        Raises:
            UserError: there is no such button, or not one for each arena.
        """
        pressed = np.asarray(buttons)
        if pressed.shape != (len(state),) or not np.issubdtype(pressed.dtype, np.integer):
            raise UserError(f"{len(state)} arenas need {len(state)} buttons, whole numbers, not {buttons!r}")
        if pressed.size and not 0 <= pressed.min() <= pressed.max() < len(BUTTONS):
            raise UserError(
                f"buttons are 0 to {len(BUTTONS) - 1} ({', '.join(BUTTONS)}), not {pressed.tolist()}"
            )
        layout, side = state.layout, self.settings.side
        player, _ = self._slide(
            layout.walls, state.player, _MOVES[pressed] * PLAYER_STEP * side, self.body(layout)
        )
        velocities = self._turned(state)
        movers = state.movers.copy()
        for number in range(self.settings.movers):
            movers[:, number], stopped = self._slide(
                layout.walls,
                state.movers[:, number],
                velocities[:, number],
                _box(len(state), MOVER_RADIUS * side),
            )
            velocities[:, number] *= np.where(stopped, -1.0, 1.0)
        apart = _distance(player[:, None], layout.coins)  # B C
        return ArenaState(
            layout,
            step=state.step + 1,
            player=player,
            movers=movers,
            velocities=velocities,
            coins_left=state.coins_left & (apart > (PLAYER_RADIUS + COIN_RADIUS) * side),
        )

    def render(self, state: ArenaState) -> Tensor:
        """What the arenas look like, `B 3 H W` uint8."""
        layout, side = state.layout, self.settings.side
        if self._ground is None or self._ground[0] is not layout:
            self._ground = layout, self._draw_ground(layout)
        picture = self._ground[1].copy()  # B 3 H W
        for number in range(self.settings.coins):
            share = self._disc(layout.coins[:, number], COIN_RADIUS * side)
            share *= state.coins_left[:, number, None, None]
            _paint(picture, share, _light(_COIN_COLOR))
        for number in range(self.settings.movers):
            _paint(picture, self._disc(state.movers[:, number], MOVER_RADIUS * side), _light(_MOVER_COLOR))
        colors = np.stack([_light(name) for name in PLAYER_COLORS])  # 3 3
        for kind, shape in enumerate(SHAPES):
            (rows,) = np.nonzero(layout.shape == kind)
            if len(rows):
                radius = np.full(len(rows), PLAYER_RADIUS * side, np.float32)
                share = self._cover(shape, state.player[rows], radius)
                part = picture[rows]
                _paint(part, share, colors[layout.color[rows]])
                picture[rows] = part
        return to_uint8(torch.from_numpy(picture))

    def captions(self, layout: ArenaLayout) -> list[str]:
        """What a viewer sees at the start, in words, of each of B arenas. Nothing of what will be pressed."""
        things = ["a white goal"]
        things += {0: [], 1: ["a gray wall"], 2: ["two gray walls"]}[self.settings.walls]
        things += {0: [], 1: ["a purple ball"], 2: ["two purple balls"]}[self.settings.movers]
        if self.settings.coins:
            things.append("a yellow coin" if self.settings.coins == 1 else "yellow coins")
        scene = ", ".join(things[:-1]) + " and " + things[-1] if len(things) > 1 else things[0]
        return [
            f"a small {PLAYER_COLORS[color]} {SHAPES[shape]} with {scene} {'by day' if day else 'at night'}"
            for color, shape, day in zip(layout.color, layout.shape, layout.day, strict=True)
        ]

    def at_goal(self, state: ArenaState) -> np.ndarray:
        """Whether the player's centre is within the goal, B bool: at most the goal's half side away in y and in x."""
        apart = np.abs(state.player - state.layout.goal).max(axis=-1)
        return apart <= GOAL_RADIUS * SQUARE_HALF_SIDE * self.settings.side

    def body(self, layout: ArenaLayout) -> Body:
        """The player's."""
        reach = REACH[layout.shape] * PLAYER_RADIUS * self.settings.side  # B 3: up, down, sideways
        return Body(reach[:, [0, 2]], reach[:, [1, 2]])

    def free(self, layout: ArenaLayout, centers: np.ndarray, body: Body) -> np.ndarray:
        """Whether a body of that centre (B 2) overlaps no wall and not the frame's edge, B bool."""
        size = np.array([self.settings.height, self.settings.width])
        inside = (centers - body.before >= -0.5 - _TOUCH) & (centers + body.behind <= size - 0.5 + _TOUCH)
        return inside.all(axis=-1) & ~_overlap(layout.walls, centers, body).all(axis=-1).any(axis=-1)

    def _walls(self, draws: np.ndarray) -> np.ndarray:
        """B K 4 of B 8 uniform numbers: parallel bars from an edge, a corridor at each side, a passage at one end."""
        number, side = self.settings.walls, self.settings.side
        upright = draws[:, 0] < 0.5  # B
        across = np.where(upright, self.settings.width, self.settings.height)  # B, pixels
        along = np.where(upright, self.settings.height, self.settings.width)
        width, corridor = WALL_WIDTH * side, _CORRIDOR * side
        spare = across - number * width - (number + 1) * corridor
        walls = np.zeros((len(draws), number, 4))
        # What is spare goes to the corridors at random; so all are wide enough.
        ends = np.sort(draws[:, 1 : 1 + number], axis=1)
        for bar in range(number):
            low = (bar + 1) * corridor + bar * width + spare * ends[:, bar] - 0.5
            length = _WALL_LENGTH[0] + (_WALL_LENGTH[1] - _WALL_LENGTH[0]) * draws[:, 3 + bar]
            length = np.minimum(length * along, along - corridor)
            first = np.where(draws[:, 5 + bar] < 0.5, 0.0, along - length) - 0.5
            standing = np.stack([first, low, first + length, low + width], axis=1)
            lying = np.stack([low, first, low + width, first + length], axis=1)
            walls[:, bar] = np.where(upright[:, None], standing, lying)
        return walls

    def _place(
        self, layout: ArenaLayout, item: int, body: Body, taken: list[tuple[np.ndarray, float]]
    ) -> np.ndarray:
        """A free place for object number `item` of each arena, B 2, away from those that are taken.

        Args:
            layout: its walls count.
            item: number of the object.
            body: of the object.
            taken: centres (B 2) and how far from them to stay, pixels.
        """
        size = np.array([self.settings.height, self.settings.width])
        places = np.zeros((len(layout.key), 2))
        (left,) = np.nonzero(np.ones(len(layout.key), bool))
        for attempt in range(_MOST_TRIES):
            draws = uniforms(_PLACES, _moment(layout.key[left], item * _MOST_TRIES + attempt), 2)
            part = Body(body.before[left], body.behind[left])
            centers = part.before - 0.5 + (size - part.before - part.behind) * draws
            good = self.free(_taken(layout, left), centers, part)
            for others, apart in taken:
                good &= _distance(centers, others[left]) > apart
            places[left[good]] = centers[good]
            left = left[~good]
            if not len(left):
                return places
        raise UserError(
            f"no room for all things in {self.settings.height}x{self.settings.width}: use larger sides"
        )

    def _slide(
        self, walls: np.ndarray, centers: np.ndarray, by: np.ndarray, body: Body
    ) -> tuple[np.ndarray, np.ndarray]:
        """Move bodies until something is in their way: first up or down, then sideways.

        Args:
            walls: B K 4.
            centers, by: B 2.
            body: of the bodies.

        Returns:
            The centres, and whether each way was cut short; both B 2.
        """
        size = (self.settings.height, self.settings.width)
        moved, stopped = centers.copy(), np.zeros(by.shape, bool)
        for axis in (0, 1):
            wanted = moved[:, axis] + by[:, axis]  # B
            # Walls ahead that the body would meet, as they overlap with it on the other axis.
            meets = _overlap(walls, moved, body)[..., 1 - axis]  # B K
            first, last = walls[..., axis], walls[..., axis + 2]  # B K
            ahead = (first + last) / 2 > moved[:, None, axis]
            end = np.where(meets & ahead, first, size[axis] - 0.5).min(axis=1, initial=size[axis] - 0.5)
            start = np.where(meets & ~ahead, last, -0.5).max(axis=1, initial=-0.5)
            low, high = start + body.before[:, axis], end - body.behind[:, axis]  # B
            moved[:, axis] = np.clip(wanted, low, high)
            stopped[:, axis] = moved[:, axis] != wanted
        return moved, stopped

    def _turned(self, state: ArenaState) -> np.ndarray:
        """The velocities for this step, B M 2, a new array: a ball may turn."""
        number = self.settings.movers
        if not (number and self.settings.turning):
            return state.velocities.copy()
        draws = uniforms(_TURNS, _moment(state.layout.key, state.step), 2 * number)
        turns = draws[:, :number] < self.settings.turning
        return np.where(turns[..., None], self._velocity(2 * np.pi * draws[:, number:]), state.velocities)

    def _velocity(self, angle: np.ndarray) -> np.ndarray:
        """Angles (B M) -> pixels a step, B M 2."""
        return MOVER_STEP * self.settings.side * np.stack([np.sin(angle), np.cos(angle)], axis=-1)

    def _draw_ground(self, layout: ArenaLayout) -> np.ndarray:
        """All that stays: background, walls and goal, `B 3 H W` float32 in [-1, 1]."""
        height, width, side = self.settings.height, self.settings.width, self.settings.side
        picture = np.empty((len(layout.key), 3, height, width), np.float32)
        picture[:] = (2 * layout.background - 1)[:, :, None, None]
        for number in range(self.settings.walls):
            edges = layout.walls[:, number].astype(np.float32)  # B 4
            rows = between(edges[:, 0], edges[:, 2], height)  # B H
            columns = between(edges[:, 1], edges[:, 3], width)  # B W
            grey = np.repeat((2 * layout.wall_grey - 1)[:, None], 3, axis=1).astype(np.float32)
            _paint(picture, rows[:, :, None] * columns[:, None, :], grey)
        radius = np.full(len(layout.key), GOAL_RADIUS * side, np.float32)
        _paint(picture, self._cover("square", layout.goal, radius), _light(_GOAL_COLOR))
        return picture

    def _disc(self, centers: np.ndarray, radius: float) -> np.ndarray:
        """Shares of pixels (B H W) that discs of those centres (B 2) cover."""
        return self._cover("circle", centers, np.full(len(centers), radius, np.float32))

    def _cover(self, shape: str, centers: np.ndarray, radius: np.ndarray) -> np.ndarray:
        return cover(shape, centers.astype(np.float32), radius, self.settings.height, self.settings.width)


def _moment(key: np.ndarray, count: int | np.ndarray) -> np.ndarray:
    """Items of `uniforms`, B: another for each arena and count (below `MAX_FRAMES`, which are 2^20)."""
    return key * MAX_FRAMES + count


def _taken(layout: ArenaLayout, rows: Sequence[int] | np.ndarray) -> ArenaLayout:
    return ArenaLayout(**{name: getattr(layout, name)[rows] for name in STAYING})


def _box(num_arenas: int, radius: float) -> Body:
    reach = np.full((num_arenas, 2), radius)
    return Body(reach, reach)


def _stacked(places: list[np.ndarray], num_arenas: int) -> np.ndarray:
    """Places of single objects (B 2 each) -> B N 2."""
    return np.stack(places, axis=1) if places else np.zeros((num_arenas, 0, 2))


def _overlap(walls: np.ndarray, centers: np.ndarray, body: Body) -> np.ndarray:
    """Whether bodies (B 2) and walls (B K 4) overlap on each axis, B K 2 bool; to touch is not to overlap."""
    first, last = (centers - body.before)[:, None], (centers + body.behind)[:, None]  # B 1 2
    return (last > walls[..., :2] + _TOUCH) & (first < walls[..., 2:] - _TOUCH)


def _distance(places: np.ndarray, others: np.ndarray) -> np.ndarray:
    return np.sqrt(((places - others) ** 2).sum(axis=-1))


def _light(color: str) -> np.ndarray:
    """A colour's RGB in [-1, 1], 3 float32."""
    return (2 * np.array(COLORS[color]) - 1).astype(np.float32)


def _paint(picture: np.ndarray, share: np.ndarray, color: np.ndarray) -> None:
    """Paint over a picture (B 3 H W), in place, where `share` (B H W in [0, 1]) says, in one colour (3, or B 3)."""
    for channel in range(3):
        plane = picture[:, channel]
        # A number, or one for each picture.
        light = color[..., channel].reshape(-1, 1, 1)
        plane += share * (light - plane)
