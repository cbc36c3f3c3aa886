"""A planner that reaches a goal picture in an arena, by trying plans in a dream of it or in the true simulator.

A plan is a few macros, each a button held for some frames. All plans of so many macros are tried at once, as a tree,
since those that begin alike share a past. The plan that comes nearest to the goal anywhere on its way is the one whose
first macro is pressed in the true arena; then all is planned anew from what was seen (receding horizon; of pictures as
DINO-WM, Zhou et al. 2024, arXiv 2411.04983). How near is told by latents alone, learned or plain
(`minisora.worlds.temporal_distance`), so that the same planner with the same cost can be given the truth in place of
the dream: what is lost between the two is the dream's, what is lost between the second and the shortest way is not.

Letters: B futures, T frames, Z channels, H W pixels, h w latent grid. Frames are uint8.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from minisora.data.clips import to_float
from minisora.errors import UserError
from minisora.limits import check_number
from minisora.models.vae import VideoVAE
from minisora.worlds.arena import BUTTONS, Arena, ArenaState
from minisora.worlds.dream import Dream, DreamMoment
from minisora.worlds.goals import Episode, arrived
from minisora.worlds.measure_world import locate
from minisora.worlds.policies import PolicyName, make_policy

# How near latents (B Z h w) are to a goal's (1 Z h w), B: less is nearer.
Cost = Callable[[Tensor, Tensor], Tensor]

# Frames that a planner looks back to: what a dream goes on from.
SEEN = 4
# Futures that are tried at a time, at most.
MOST_FUTURES = 20_000
# For each frame on the way, of what there is to go now: of two plans that come equally near the sooner one is taken, or
# whoever plans anew would wait for ever. A frame of a straight way is worth several times as much.
HASTE = 0.01


@dataclass(frozen=True)
class PlanSettings:
    """How far ahead a planner thinks.

    Args:
        macros: of a plan.
        hold: frames for which the button of a macro is held.

    Raises:
        UserError: a number is out of its range.
    """

    macros: int = 3
    hold: int = 4

    def __post_init__(self) -> None:
        check_number("macros", self.macros, 1, 8)
        check_number("hold", self.hold, 1, 64)


@dataclass(frozen=True)
class Moment:
    """What is known when something is to be decided.

    Args:
        frames: seen so far, `3 T H W`, the last one now.
        state: the true one, for those who may know it; None in a dream.
    """

    frames: Tensor
    state: ArenaState | None


class Futures(Protocol):
    """Where plans are tried: futures of one moment, side by side."""

    @property
    def buttons(self) -> tuple[int, ...]:
        """What can be pressed, indices into BUTTONS."""
        ...

    def begin(self, moment: Moment) -> None:
        """One future, that begins now."""
        ...

    def branch(self, times: int) -> None:
        """Each future becomes so many alike, one beside another."""
        ...

    def press(self, choices: np.ndarray) -> None:
        """A frame later in each future, by the places of its button in `buttons`, B."""
        ...

    def latents(self) -> Tensor:
        """Of the frame now of each future, B Z h w."""
        ...


class DreamedFutures:
    """Futures that a model dreams.

    Args:
        dream: whose codes are named by the arena's buttons.

    Raises:
        UserError: they are not.
    """

    def __init__(self, dream: Dream):
        self.dream = dream
        codes = dream.buttons
        self.buttons = tuple(number for number, name in enumerate(BUTTONS) if name in codes)
        if len(self.buttons) < 2:
            raise UserError(
                "the world's codes have no names, so no plan of codes can be pressed in the arena: run 'minisora world "
                "name' first"
            )
        self._codes = np.array([codes[BUTTONS[number]] for number in self.buttons])

    def begin(self, moment: Moment) -> None:
        """As `Futures`."""
        self.dream.start(moment.frames[None, :, -SEEN:])

    def branch(self, times: int) -> None:
        """As `Futures`."""
        moment = self.dream.keep()
        self.dream.go_back(moment, np.repeat(np.arange(len(moment.now)), times))

    def press(self, choices: np.ndarray) -> None:
        """As `Futures`."""
        self.dream.step_latents(self._codes[choices])

    def latents(self) -> Tensor:
        """As `Futures`."""
        return self.dream.moment.now[:, :, 0]


class TrueFutures:
    """Futures by the arena's own rules, seen through a VAE.

    Args:
        arena: the rules.
        vae: of the world whose planner is to be compared with.
        buttons: that can be pressed, indices into BUTTONS.
    """

    def __init__(self, arena: Arena, vae: VideoVAE, buttons: tuple[int, ...] = tuple(range(len(BUTTONS)))):
        self.arena, self.vae, self.buttons = arena, vae, buttons
        self._state: ArenaState | None = None

    def begin(self, moment: Moment) -> None:
        """As `Futures`; raises UserError in a dream, which has no true state."""
        if moment.state is None:
            raise UserError("the true simulator needs the true state: it cannot plan in a dream")
        self._state = moment.state

    def branch(self, times: int) -> None:
        """As `Futures`."""
        assert self._state is not None
        self._state = self._state.take(np.repeat(np.arange(len(self._state)), times))

    def press(self, choices: np.ndarray) -> None:
        """As `Futures`."""
        assert self._state is not None
        self._state = self.arena.step(self._state, np.array(self.buttons)[choices])

    def latents(self) -> Tensor:
        """As `Futures`."""
        assert self._state is not None
        return encode(self.vae, self.arena.render(self._state))


@torch.no_grad()
def encode(vae: VideoVAE, frames: Tensor) -> Tensor:
    """Latents of single frames B 3 H W uint8, B Z h w."""
    return vae.to_latents(to_float(frames.to(vae.device))[:, :, None]).float()[:, :, 0]


class MacroPlanner:
    """Tries all plans of some macros, and says what to press first.

    Args:
        futures: where they are tried.
        cost: how near what is seen is to the goal.
        settings: how far ahead it thinks.

    Raises:
        UserError: so many plans are too many.
    """

    def __init__(self, futures: Futures, cost: Cost, settings: PlanSettings | None = None):
        self.futures, self.cost, self.settings = futures, cost, settings or PlanSettings()
        plans = len(futures.buttons) ** self.settings.macros
        if plans > MOST_FUTURES:
            raise UserError(
                f"{self.settings.macros} macros of {len(futures.buttons)} buttons are {plans:,} plans: give fewer "
                "macros"
            )

    def decide(self, moment: Moment, goal: Tensor) -> list[int]:
        """The buttons to press next, `hold` times the same.

        Args:
            moment: now.
            goal: latents of the goal picture, 1 Z h w.
        """
        choices, least = len(self.futures.buttons), np.full(1, np.inf)
        self.futures.begin(moment)
        haste = HASTE * float(self.cost(self.futures.latents(), goal)[0])
        for macro in range(self.settings.macros):
            self.futures.branch(choices)
            pressed = np.tile(np.arange(choices), len(least))
            least = np.repeat(least, choices)
            for frame in range(self.settings.hold):
                self.futures.press(pressed)
                cost = self.cost(self.futures.latents(), goal).double().cpu().numpy()
                least = np.minimum(least, cost + haste * (macro * self.settings.hold + frame + 1))
        first = int(least.argmin()) // choices ** (self.settings.macros - 1)
        return [self.futures.buttons[first]] * self.settings.hold


class Agent(Protocol):
    """Who presses the buttons of an episode."""

    def begin(self, episode: Episode) -> None:
        """Another episode."""
        ...

    def decide(self, moment: Moment) -> list[int]:
        """The buttons to press next, at least one."""
        ...


class PlanningAgent:
    """Presses what a planner says.

    Args:
        planner: see there.
        vae: that sees the goal picture as the planner sees its futures.
    """

    def __init__(self, planner: MacroPlanner, vae: VideoVAE):
        self.planner, self.vae = planner, vae
        self.goal = torch.zeros(0)

    def begin(self, episode: Episode) -> None:
        """As `Agent`."""
        self.goal = encode(self.vae, episode.picture[None])

    def decide(self, moment: Moment) -> list[int]:
        """As `Agent`."""
        return self.planner.decide(moment, self.goal)


class PolicyAgent:
    """Presses what a policy does that needs no learning and knows no goal picture.

    Args:
        name: of the policy.
        arena: the rules.
    """

    def __init__(self, name: PolicyName, arena: Arena):
        self.name: PolicyName = name
        self.arena = arena
        self._policy = make_policy(name, arena)

    def begin(self, episode: Episode) -> None:
        """As `Agent`."""
        self._policy = make_policy(self.name, self.arena)

    def decide(self, moment: Moment) -> list[int]:
        """As `Agent`; raises UserError in a dream, which has no true state."""
        if moment.state is None:
            raise UserError("a policy of the arena needs its state: it cannot press in a dream")
        return [int(self._policy.press(moment.state)[0])]


class ShortestWay:
    """Presses what the search found: no way is shorter."""

    def __init__(self) -> None:
        self._way: tuple[int, ...] = ()

    def begin(self, episode: Episode) -> None:
        """As `Agent`."""
        self._way = episode.way

    def decide(self, moment: Moment) -> list[int]:
        """As `Agent`."""
        return list(self._way)


class TrueArena:
    """An episode in the arena itself.

    Args:
        arena: the rules.
    """

    def __init__(self, arena: Arena):
        self.arena = arena

    def begin(self, episode: Episode) -> Moment:
        """Its beginning."""
        return Moment(self.arena.render(episode.start)[0][:, None], episode.start)

    def step(self, moment: Moment, button: int) -> Moment:
        """A frame later."""
        assert moment.state is not None
        state = self.arena.step(moment.state, [button])
        frame = self.arena.render(state)[0]
        return Moment(torch.cat([moment.frames, frame[:, None]], dim=1), state)

    def place(self, moment: Moment) -> np.ndarray:
        """Of the player, 2."""
        assert moment.state is not None
        return moment.state.player[0]


class DreamedArena:
    """An episode in a dream, whose player is where it is seen: what a planner believes it would reach.

    Args:
        dream: with named codes.
        arena: of the same kind, whose colours tell the player.
    """

    def __init__(self, dream: Dream, arena: Arena):
        self.dream, self.arena = dream, arena
        self._at: DreamMoment | None = None
        self._colors: ArenaState | None = None

    def begin(self, episode: Episode) -> Moment:
        """Its beginning, which is the true one."""
        first = self.arena.render(episode.start)  # 1 3 H W
        self.dream.start(first)
        self._at, self._colors = self.dream.keep(), episode.start
        return Moment(first[0][:, None], None)

    def step(self, moment: Moment, button: int) -> Moment:
        """A frame later; a planner may have dreamed of others in between."""
        assert self._at is not None
        self.dream.go_back(self._at)
        frame = self.dream.step([self.dream.buttons[BUTTONS[button]]])[0]
        self._at = self.dream.keep()
        return Moment(torch.cat([moment.frames, frame[:, None]], dim=1), None)

    def place(self, moment: Moment) -> np.ndarray:
        """Of the player, 2; NaN where none is seen."""
        assert self._colors is not None
        return locate(moment.frames[None, :, -1], self._colors, self.arena.settings)[0]


@dataclass(frozen=True)
class Outcome:
    """How an episode ended.

    Args:
        reached: whether the player was at the goal within the budget.
        steps: taken.
        seconds: of each decision.
    """

    reached: bool
    steps: int
    seconds: list[float]


def run_episode(where: TrueArena | DreamedArena, episode: Episode, agent: Agent) -> Outcome:
    """Let an agent press until it has arrived or the budget is spent."""
    agent.begin(episode)
    moment = where.begin(episode)
    steps, left, seconds = 0, list[int](), list[float]()
    while True:
        if arrived(where.arena, episode.goal, where.place(moment)):
            return Outcome(True, steps, seconds)
        if steps == episode.budget:
            return Outcome(False, steps, seconds)
        if not left:
            begun = time.perf_counter()
            left = list(agent.decide(moment))
            seconds.append(time.perf_counter() - begun)
        moment = where.step(moment, left.pop(0))
        steps += 1


def run_episodes(
    where: TrueArena | DreamedArena,
    episodes: Sequence[Episode],
    agent: Agent,
    progress: Callable[[int, int], None] | None = None,
) -> list[Outcome]:
    """All episodes, one after another; `progress` is called with (done, in all)."""
    outcomes = []
    for number, episode in enumerate(episodes, 1):
        outcomes.append(run_episode(where, episode, agent))
        if progress:
            progress(number, len(episodes))
    return outcomes
