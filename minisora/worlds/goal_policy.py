"""A policy that goes to a goal picture: it imitates clips, then practises in a dream, or in the true simulator.

Imitation: what was pressed on the way from a picture of a clip to a later one is what one may press who wants to get
there (Ghosh et al. 2019, arXiv 1912.06088). The clips have no buttons; the names of their codes are taken for them.

Practice: of one moment and one goal several futures are played side by side, each by what the policy draws. A button
becomes more likely where what came after it led nearer to the goal than in the mean of the other futures (REINFORCE,
Williams 1992, with their mean as its baseline, Kool et al. 2019), for some passes over the same futures as long as the
policy has not moved far from the one that drew them (PPO, Schulman et al. 2017, arXiv 1707.06347, equation 7). How
near is what the planner goes by, so that both can be held against each other; the futures are the planner's as well.

Letters: B pictures or futures, N clips, Z channels, T frames, h w latent grid, D decisions, A buttons.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from diffusers.configuration_utils import register_to_config
from torch import Tensor

from minisora.data.draws import rng
from minisora.errors import UserError
from minisora.limits import MAX_COUNT, check_number
from minisora.models.vae import VideoVAE
from minisora.screen import Progress
from minisora.worlds.goals import Episode
from minisora.worlds.planning import HASTE, Cost, Futures, Moment, encode
from minisora.worlds.two_pictures import TwoPictures, noised

# Frames between a picture and its goal that are imitated, at most.
_MOST_GAP = 25
_BATCH, _LEARNING_RATE, _WEIGHT_DECAY = 128, 1e-3, 0.01
# Futures of a goal, at most.
MOST_FUTURES = 1000
# Of practice: passes over the same futures, how far the chance of a button may move in them, and how much a draw that
# is open is worth.
_PASSES, _CLIP, _ENTROPY, _PRACTICE_RATE = 6, 0.2, 0.01, 5e-4
# Keys of draws.
_IMITATE, _PRACTISE, _PRESS = 1, 2, 3

# A moment and the latents of a goal, 1 Z h w, by number.
Task = Callable[[int], tuple[Moment, Tensor]]


class GoalPolicy(TwoPictures):
    """Which button to hold next: logits, B A.

    Args:
        channels: Z.
        height, width: h and w.
        buttons: indices into BUTTONS, A.
        hidden: width.
        learned: how it was, in words.
    """

    @register_to_config
    def __init__(
        self,
        channels: int,
        height: int,
        width: int,
        buttons: tuple[int, ...],
        hidden: int = 48,
        learned: str = "",
    ):
        super().__init__(channels, height, width, hidden, len(buttons))

    @torch.no_grad()
    def draw(self, now: Tensor, goal: Tensor, draws: np.random.Generator) -> tuple[np.ndarray, Tensor]:
        """Places of buttons to press, B, and the logarithms of their chances, B.

        Args:
            now: latents, B Z h w.
            goal: latents, 1 Z h w.
            draws: where they are drawn from.
        """
        chances = self(now, goal.expand_as(now)).float().log_softmax(-1)  # B A
        # The largest of the logarithms and Gumbel's noise is drawn by the chances.
        noise = torch.from_numpy(draws.gumbel(size=chances.shape)).to(chances)
        places = (chances + noise).argmax(-1)
        return places.cpu().numpy(), chances.gather(-1, places[:, None])[:, 0]


@dataclass(frozen=True)
class Practice:
    """How much is practised.

    Args:
        rounds: each of new goals.
        goals: of a round.
        futures: of a goal, side by side.
        decisions: of a future.
        hold: frames for which the button of a decision is held.

    Raises:
        UserError: a number is out of its range.
    """

    rounds: int
    goals: int = 4
    futures: int = 16
    decisions: int = 6
    hold: int = 4

    def __post_init__(self) -> None:
        check_number("rounds", self.rounds, 1, MAX_COUNT)
        check_number("goals", self.goals, 1, 1000)
        check_number("futures", self.futures, 2, MOST_FUTURES)
        check_number("decisions", self.decisions, 1, 64)
        check_number("hold", self.hold, 1, 64)

    @property
    def frames(self) -> int:
        """That are played, in all."""
        return self.rounds * self.goals * self.futures * self.decisions * self.hold


class _Played(NamedTuple):
    """Decisions: latents now and of the goal (B Z h w each), places of buttons, log-chances, and how good they were."""

    now: Tensor
    goal: Tensor
    places: Tensor
    chances: Tensor
    advantage: Tensor


def imitate(
    policy: GoalPolicy,
    latents: Tensor,
    pressed: Tensor,
    steps: int,
    seed: int = 0,
    progress: Progress | None = None,
) -> None:
    """Learn what was pressed on the way to later pictures.

    Args:
        policy: that learns.
        latents: of clips, N Z T h w.
        pressed: places of buttons between them, N T-1; -1 where none is known.
        steps: of the optimizer.
        seed: decides everything that is drawn.
        progress: called with (steps done, steps in all).

    Raises:
        UserError: no button is known.
    """
    if not (pressed >= 0).any():
        raise UserError("no code of the clips has a name: run 'minisora world name' first")
    num_clips, frames = latents.shape[0], latents.shape[2]
    optimizer = torch.optim.AdamW(policy.parameters(), lr=_LEARNING_RATE, weight_decay=_WEIGHT_DECAY)
    for step in range(steps):
        draws = rng(seed, _IMITATE, step)
        clip = torch.from_numpy(draws.integers(num_clips, size=_BATCH))
        gap = draws.integers(1, min(_MOST_GAP, frames - 1) + 1, size=_BATCH)
        first = torch.from_numpy((draws.random(_BATCH) * (frames - gap)).astype(np.int64))
        now, goal = latents[clip, :, first], latents[clip, :, first + torch.from_numpy(gap)]  # B Z h w
        loss = F.cross_entropy(policy(noised(now, draws), goal), pressed[clip, first], ignore_index=-1)
        for group in optimizer.param_groups:
            group["lr"] = _LEARNING_RATE * (1 - step / steps)
        # Of a batch without a known button the loss is no number.
        if (pressed[clip, first] >= 0).any():
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if progress:
            progress(step + 1, steps)


def practise(
    policy: GoalPolicy,
    futures: Futures,
    task: Task,
    cost: Cost,
    practice: Practice,
    seed: int = 0,
    progress: Progress | None = None,
) -> list[float]:
    """Practise to get near to goals.

    Args:
        policy: that learns, of the buttons of `futures`.
        futures: a dream, or the true simulator.
        task: moments and goals.
        cost: how near what is seen is to a goal.
        practice: how much.
        seed: decides everything that is drawn.
        progress: called with (rounds done, rounds in all).

    Returns:
        Of each round the cost of the nearest frame on the way, as a share of that at the beginning, the mean.

    Raises:
        UserError: the buttons are others.
    """
    if tuple(policy.config.buttons) != futures.buttons:
        raise UserError(f"the policy presses {policy.config.buttons}, the futures know {futures.buttons}")
    optimizer = torch.optim.AdamW(policy.parameters(), lr=_PRACTICE_RATE)
    nearest = []
    for done in range(practice.rounds):
        played, shares = [], []
        for number in range(practice.goals):
            moment, goal = task(done * practice.goals + number)
            draws = rng(seed, _PRACTISE, done, number)
            parts, share = _play(policy, futures, moment, goal, cost, practice, draws)
            played.append(parts)
            shares.append(share)
        nearest.append(float(np.mean(shares)))
        _learn(policy, optimizer, _Played(*(torch.cat(parts) for parts in zip(*played, strict=True))))
        if progress:
            progress(done + 1, practice.rounds)
    return nearest


@torch.no_grad()
def _play(
    policy: GoalPolicy,
    futures: Futures,
    moment: Moment,
    goal: Tensor,
    cost: Cost,
    practice: Practice,
    draws: np.random.Generator,
) -> tuple[_Played, float]:
    """Futures of one moment: their decisions, and how near they came, as a share of how far it was."""
    futures.begin(moment)
    futures.branch(practice.futures)
    now, pressed, chances, seen = [], [], [], [cost(futures.latents(), goal)]
    for _ in range(practice.decisions):
        now.append(futures.latents())
        places, logarithms = policy.draw(now[-1], goal, draws)
        pressed.append(torch.from_numpy(places))
        chances.append(logarithms)
        for _ in range(practice.hold):
            futures.press(places)
            seen.append(cost(futures.latents(), goal))
    costs = torch.stack(seen).double()  # T+1 B
    later = torch.arange(len(costs), dtype=torch.float64)[:, None] * HASTE * costs[0].mean()
    # The least that is still to come after each decision, sooner rather than later.
    least = (costs + later).flip(0).cummin(0).values.flip(0)[1 :: practice.hold]  # D B
    gained = (costs + later)[: -1 : practice.hold] - least  # D B
    others = (gained.sum(1, keepdim=True) - gained) / (practice.futures - 1)
    advantage = (gained - others) / gained.std().clamp(min=1e-6)
    played = _Played(
        torch.cat(now),
        goal.expand(practice.decisions * practice.futures, *goal.shape[1:]),
        torch.cat(pressed),
        torch.cat(chances),
        advantage.flatten().float(),
    )
    return played, float((costs.min(0).values / costs[0]).mean())


def _learn(policy: GoalPolicy, optimizer: torch.optim.Optimizer, played: _Played) -> None:
    for _ in range(_PASSES):
        logits = policy(played.now, played.goal).float().log_softmax(-1)  # B A
        ratio = (logits.gather(-1, played.places[:, None])[:, 0] - played.chances).exp()
        surrogate = torch.minimum(
            ratio * played.advantage, ratio.clamp(1 - _CLIP, 1 + _CLIP) * played.advantage
        )
        entropy = -(logits.exp() * logits).sum(-1)
        loss = -(surrogate + _ENTROPY * entropy).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        optimizer.step()


class GoalAgent:
    """Presses what a learned policy draws.

    Args:
        policy: that was learned.
        vae: of the world whose latents it sees.
        hold: frames for which a button is held.
        seed: of what it draws.
    """

    def __init__(self, policy: GoalPolicy, vae: VideoVAE, hold: int, seed: int = 0):
        self.policy, self.vae, self.hold, self.seed = policy, vae, hold, seed
        self.goal = torch.zeros(0)
        self._episodes = 0

    def begin(self, episode: Episode) -> None:
        """As `Agent`."""
        self.goal = encode(self.vae, episode.picture[None])
        self._episodes += 1

    def decide(self, moment: Moment) -> list[int]:
        """As `Agent`; what it draws follows from the seed, the number of the episode and the frames seen so far."""
        now = encode(self.vae, moment.frames[None, :, -1])
        draws = rng(self.seed, _PRESS, self._episodes, moment.frames.shape[1])
        places, _ = self.policy.draw(now, self.goal, draws)
        return [int(self.policy.config.buttons[places[0]])] * self.hold
