"""Policies that learned to go to goal pictures: by imitation alone, in a dream, and in the true arena beside it.

A dream may be practised in for ever, the true world has to be visited: so what is learned in the dream stands beside
what is learned of as many true frames as the dream's codes had labels, and of as many as were dreamed.

Letters: N clips, T frames.
"""

import hashlib
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from minisora.data.clips import ClipDataset, to_float
from minisora.data.draws import rng
from minisora.errors import UserError
from minisora.files import replace_folder
from minisora.screen import Progress
from minisora.training.stages import read_model
from minisora.worlds.arena import BUTTONS, Arena
from minisora.worlds.dream import Dream
from minisora.worlds.goal_policy import (
    MOST_FUTURES,
    GoalAgent,
    GoalPolicy,
    Practice,
    Task,
    imitate,
    practise,
)
from minisora.worlds.goals import Distances, draw_episodes
from minisora.worlds.planning import SEEN, Cost, DreamedFutures, Futures, Moment, TrueFutures, encode
from minisora.worlds.temporal_distance import encode_clips

IMITATED, PRACTISED = "policy, imitates the clips", "policy, practised in this world"
PRACTISED_TRUE = "policy, practised in as many true frames"
# Steps of imitation.
_IMITATION_STEPS = 1500
# Key of the draws of moments, and what is added to the seed of the goals that are tried: those of practice are others.
_MOMENT, _OTHER_GOALS = 1, 1


@dataclass(frozen=True)
class Lessons:
    """What policies learn from.

    Args:
        arena: the rules, for those that practise in the truth.
        dream: with named codes.
        cost: how near what is seen is to a goal.
        cost_name: which cost that is, in a word.
        clips: that the dream was learned from.
        distances: of the goals.
        seed: of the goals that are tried afterwards.
        rounds: of practice.
        progress: called with (clips, steps or rounds done, in all) of one lesson after another.
    """

    arena: Arena
    dream: Dream
    cost: Cost
    cost_name: str
    clips: ClipDataset
    distances: Distances
    seed: int
    rounds: int
    progress: Progress | None = None

    @cached_property
    def latents(self) -> Tensor:
        """Of the clips, N Z T h w."""
        return encode_clips(self.dream.vae, self.clips, self.progress)

    @property
    def few(self) -> Practice:
        """Practice of at most as many frames as labelled steps named the codes, or of two futures of one goal."""
        names, one = self.dream.code_names, Practice(1, goals=1, futures=2)
        labels = 0 if names is None else sum(map(sum, names.counts))
        return Practice(1, goals=1, futures=min(MOST_FUTURES, max(2, 2 * (labels // one.frames))))

    @property
    def codes(self) -> str:
        """What the dream's codes are called, as a few digits."""
        names = self.dream.code_names
        return hashlib.sha256(
            repr(None if names is None else (names.buttons, names.counts)).encode()
        ).hexdigest()[:8]

    def described(self, practice: Practice) -> str:
        """What a policy's practice depends on beside the world and its clips, for it to be known again."""
        return (
            f"{practice.rounds} rounds of {practice.goals} goals and {practice.futures} futures, "
            f"cost {self.cost_name}, {self.arena.settings}, {self.distances}, seed {self.seed}, "
            f"{self.dream.steps} steps a frame, codes {self.codes}"
        )


def learned_agents(lessons: Lessons, folder: Path) -> dict[str, GoalAgent]:
    """Agents by the names of their rows. A policy that lies in `folder` is read; others learn, and are put there.

    Args:
        lessons: what they learn from.
        folder: of the policies.

    Raises:
        UserError: codes have no names, a policy is damaged, or it cannot be written.
    """
    dreamed = DreamedFutures(lessons.dream)
    # Who practises in the truth presses what the dream has names for.
    true = TrueFutures(lessons.arena, lessons.dream.vae, dreamed.buttons)
    few, many = lessons.few, Practice(lessons.rounds)
    imitated = _kept(
        folder / "imitated",
        f"{_IMITATION_STEPS} steps, codes {lessons.codes}",
        dreamed.buttons,
        lambda: _imitated(lessons, dreamed.buttons),
    )

    def practised(
        name: str, futures: Futures, task: Callable[[Lessons], Task], practice: Practice
    ) -> GoalPolicy:
        def learn() -> GoalPolicy:
            policy = deepcopy(imitated).requires_grad_(True)
            practise(policy, futures, task(lessons), lessons.cost, practice, progress=lessons.progress)
            return policy

        return _kept(folder / name, lessons.described(practice), dreamed.buttons, learn)

    policies = {
        IMITATED: imitated,
        f"policy, practised in {few.frames} true frames": practised("few", true, true_tasks, few),
        PRACTISED: practised("dream", dreamed, clip_tasks, many),
        PRACTISED_TRUE: practised("true", true, true_tasks, many),
    }
    return {name: GoalAgent(policy, lessons.dream.vae, many.hold) for name, policy in policies.items()}


def _kept(place: Path, learned: str, buttons: tuple[int, ...], learn: Callable[[], GoalPolicy]) -> GoalPolicy:
    """The policy that lies in a folder, if it was learned so for these buttons; else it is learned and put there."""
    if (place / "config.json").is_file():
        policy = read_model(GoalPolicy, place, "delete that folder").eval()
        if (policy.config.learned, tuple(policy.config.buttons)) == (learned, buttons):
            return policy
    policy = learn().eval()
    policy.register_to_config(learned=learned)
    try:
        replace_folder(place, policy.save_pretrained)
    except OSError as error:
        raise UserError(f"cannot write {place}: {error.strerror}; free space") from error
    return policy


def _imitated(lessons: Lessons, buttons: tuple[int, ...]) -> GoalPolicy:
    """A fresh policy that has imitated the clips."""
    num_clips, channels, _, height, width = lessons.latents.shape
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        policy = GoalPolicy(channels, height, width, buttons)
    pressed = found_buttons(lessons.dream, lessons.clips, num_clips, buttons, lessons.progress)
    imitate(policy, lessons.latents, pressed, _IMITATION_STEPS, progress=lessons.progress)
    return policy


@torch.no_grad()
def found_buttons(
    dream: Dream, clips: ClipDataset, count: int, buttons: tuple[int, ...], progress: Progress | None = None
) -> Tensor:
    """What was pressed in the first clips, by the names of the codes that are found in them.

    Args:
        dream: that finds them.
        clips: to look at.
        count: N.
        buttons: that are known.
        progress: called with (clips done, clips in all).

    Returns:
        Places in `buttons`, N T-1; -1 where the code has no name.
    """
    place_of = {BUTTONS[button]: place for place, button in enumerate(buttons)}
    places = torch.tensor([place_of.get(name, -1) for name in dream.names])
    found = []
    for number in range(count):
        video = to_float(clips.clips([number])[0].to(dream.vae.device))
        found.append(places[dream.actions.codes_of(video).cpu()])
        if progress:
            progress(number + 1, count)
    return torch.stack(found)


def clip_tasks(lessons: Lessons) -> Task:
    """Moments of clips, and pictures that come later in them."""
    latents = lessons.latents
    num_clips, frames = latents.shape[0], latents.shape[2]
    farthest = min(lessons.distances.farthest, frames - SEEN)
    nearest = min(lessons.distances.nearest, farthest)

    def task(number: int) -> tuple[Moment, Tensor]:
        draws = rng(lessons.seed, _MOMENT, number)
        clip, gap = int(draws.integers(num_clips)), int(draws.integers(nearest, farthest + 1))
        now = int(draws.integers(SEEN - 1, frames - gap))
        video = lessons.clips.clips([clip])[0]  # 3 T H W
        return Moment(video[:, now - SEEN + 1 : now + 1], None), latents[clip : clip + 1, :, now + gap]

    return task


def true_tasks(lessons: Lessons) -> Task:
    """Arenas and goals that are not those which are tried afterwards."""

    def task(number: int) -> tuple[Moment, Tensor]:
        seed = int(rng(lessons.seed + _OTHER_GOALS, _MOMENT, number).integers(np.iinfo(np.int32).max))
        (episode,) = draw_episodes(lessons.arena, 1, seed, lessons.distances)
        start = lessons.arena.render(episode.start)[0][:, None]
        return Moment(start, episode.start), encode(lessons.dream.vae, episode.picture[None])

    return task
