"""Episodes for a planner: where the player of an arena is, a picture of where it shall be, and the shortest way there.

The shortest way is found by a breadth-first search in the true arena, over places that buttons really lead to. So no
way is shorter, and what no planner could reach is no goal.

Letters: N places, H height, W width. Places are (y, x) in pixels.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from minisora.data.draws import rng
from minisora.errors import UserError
from minisora.worlds.arena import BUTTONS, PLAYER_RADIUS, Arena, ArenaState

# Of the player's radius: how far from the goal's place its centre may be and has arrived.
ARRIVED = 0.5
# Places closer than this, in pixels, are one to the search: a step is a hundred times as long.
_SAME_PLACE = 1 / 32
# Key of the draws of goals.
_GOAL = 1
# Arenas looked at for each episode that is wanted, at most: in a small frame no place may be far enough.
_ARENAS_FOR_ONE = 20


@dataclass(frozen=True)
class Distances:
    """How far a goal is: steps of the shortest way, fewest and most; and the budget of an episode, times the shortest.

    Raises:
        UserError: there is no such distance, or no way fits into the budget.
    """

    nearest: int = 12
    farthest: int = 25
    budget: float = 2.0

    def __post_init__(self) -> None:
        if not 1 <= self.nearest <= self.farthest:
            raise UserError(
                f"goals {self.nearest} to {self.farthest} steps away are none: give 1 or more, the nearest first"
            )
        if not 1 <= self.budget < np.inf:
            raise UserError(f"a budget of {self.budget:g} times the shortest way is none: give 1 or more")


@dataclass(frozen=True)
class Episode:
    """A way to find.

    Args:
        start: one arena.
        goal: where its player shall be, 2.
        picture: what the arena would look like with the player there, 3 H W uint8.
        way: buttons of a shortest way, indices into BUTTONS.
        budget: steps in which it has to be there.
    """

    start: ArenaState
    goal: np.ndarray
    picture: Tensor
    way: tuple[int, ...]
    budget: int


def arrived(arena: Arena, goal: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Whether places (N 2) are at a goal, N bool; what is NaN is nowhere."""
    apart = np.sqrt(((places - goal) ** 2).sum(-1))
    return apart <= ARRIVED * PLAYER_RADIUS * arena.settings.side


def draw_episodes(arena: Arena, count: int, seed: int, distances: Distances | None = None) -> list[Episode]:
    """So many episodes, each in an arena of its own; the same seed, the same ones.

    Args:
        arena: the rules.
        count: how many.
        seed: of the arenas and the goals; another than that of the recordings that a world was learned from.
        distances: of the goals.

    Raises:
        UserError: in arenas of this kind nothing is so far away.
    """
    distances = distances or Distances()
    episodes: list[Episode] = []
    for index in range(_ARENAS_FOR_ONE * count):
        episode = _drawn(arena, seed, index, distances)
        if episode is not None:
            episodes.append(episode)
        if len(episodes) == count:
            return episodes
    raise UserError(
        f"in an arena of {arena.settings.height}x{arena.settings.width} few places are {distances.nearest} to "
        f"{distances.farthest} steps away: choose nearer goals"
    )


def _drawn(arena: Arena, seed: int, index: int, distances: Distances) -> Episode | None:
    """The episode in the arena of a number, None if nothing there is far enough."""
    start = arena.start(seed, [index])
    places, ways = [], []
    for place, way in reachable(arena, start, distances.farthest):
        places.append(place)
        ways.append(way)
    found, steps = np.stack(places), np.array([len(way) for way in ways])
    (far,) = np.nonzero(steps >= distances.nearest)
    # A place that is far as its button leads to it may be near as it counts: so it is asked of the nearest that counts.
    for row in rng(seed, _GOAL, index).permutation(far):
        (near,) = np.nonzero(arrived(arena, found[row], found))
        first = near[steps[near].argmin()]
        if steps[first] >= distances.nearest:
            way, goal = ways[first], found[row]
            picture = arena.render(replace(start, player=goal[None]))[0]
            return Episode(start, goal, picture, way, int(distances.budget * len(way)))
    return None


def reachable(arena: Arena, start: ArenaState, most: int) -> Iterator[tuple[np.ndarray, tuple[int, ...]]]:
    """The places that the player can get to, and a shortest way to each, the nearest first.

    Args:
        arena: the rules; balls and coins are in nobody's way.
        start: one arena.
        most: steps.
    """
    edge = start
    ways: list[tuple[int, ...]] = [()]
    known = {_key(start.player[0])}
    yield start.player[0], ()
    moves = [button for button, name in enumerate(BUTTONS) if name != "noop"]
    for _ in range(most):
        rows = np.repeat(np.arange(len(edge)), len(moves))
        after = arena.step(edge.take(rows), np.tile(moves, len(edge)))
        fresh: list[int] = []
        for number, place in enumerate(after.player):
            if (key := _key(place)) not in known:
                known.add(key)
                fresh.append(number)
        if not fresh:
            return
        ways = [(*ways[number // len(moves)], moves[number % len(moves)]) for number in fresh]
        edge = after.take(np.array(fresh))
        yield from zip(edge.player, ways, strict=True)


def _key(place: np.ndarray) -> tuple[int, int]:
    y, x = np.round(place / _SAME_PLACE).astype(int)
    return int(y), int(x)
