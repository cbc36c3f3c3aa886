"""Policies that go to goals: they imitate what leads there, and practice makes them better."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from minisora.errors import UserError
from minisora.worlds.arena import BUTTONS, Arena, ArenaSettings
from minisora.worlds.goal_policy import GoalPolicy, Practice, imitate, practise
from minisora.worlds.planning import Moment, TrueFutures
from minisora.worlds.temporal_distance import latent_distance

ARENA = Arena(ArenaSettings(32, 32, walls=0))
EVERY = tuple(range(len(BUTTONS)))
RIGHT = BUTTONS.index("right")


class Places(TrueFutures):
    """Futures whose latents are the player's place, of the size 1."""

    def __init__(self) -> None:
        super().__init__(ARENA, None)  # type: ignore[arg-type]

    def latents(self) -> Tensor:
        assert self._state is not None
        return torch.from_numpy(self._state.player / 32).float()[:, :, None, None]


def fresh() -> GoalPolicy:
    torch.manual_seed(0)
    return GoalPolicy(2, 1, 1, EVERY, hidden=16)


def middle() -> Moment:
    state = ARENA.start(seed=3, indices=[0])
    state = replace(state, player=np.array([[16.0, 16.0]]))
    return Moment(ARENA.render(state)[0][:, None], state)


def to_the_right(number: int) -> tuple[Moment, Tensor]:
    return middle(), torch.tensor([16.0, 26.0])[None, :, None, None] / 32


def chance_of(policy: GoalPolicy, button: int) -> float:
    now = torch.tensor([16.0, 16.0])[None, :, None, None] / 32
    with torch.no_grad():
        return float(policy(now, to_the_right(0)[1]).softmax(-1)[0, button])


def test_what_leads_nearer_is_practised() -> None:
    policy = fresh()
    before = chance_of(policy, RIGHT)
    shares = practise(policy, Places(), to_the_right, latent_distance, Practice(40, goals=2, decisions=2))
    assert chance_of(policy, RIGHT) > max(0.5, 1.5 * before)
    assert np.mean(shares[-5:]) < np.mean(shares[:5])


def test_practice_follows_from_its_seed_alone() -> None:
    one, two, other = (fresh() for _ in range(3))
    for policy, seed in ((one, 1), (two, 1), (other, 2)):
        practise(policy, Places(), to_the_right, latent_distance, Practice(2, goals=1, futures=4), seed)
    for name, value in one.state_dict().items():
        assert torch.equal(value, two.state_dict()[name]), name
    assert any(not torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())


def test_a_policy_of_other_buttons_is_refused() -> None:
    policy = GoalPolicy(2, 1, 1, (0, 1), hidden=16)
    with pytest.raises(UserError, match="presses"):
        practise(policy, Places(), to_the_right, latent_distance, Practice(1))


def walks(count: int, frames: int) -> tuple[Tensor, Tensor]:
    """Clips of places (N 2 T 1 1), in each of which one button is held, and the buttons (N T-1)."""
    buttons = torch.arange(count) % len(BUTTONS)
    moves = torch.tensor([(0, 0), (-1, 0), (1, 0), (0, -1), (0, 1)]).float()[buttons] / 32
    start = torch.from_numpy(np.random.default_rng(0).random((count, 2))).float()
    places = start[..., None] + moves[..., None] * torch.arange(frames)
    return places[..., None, None], buttons[:, None].expand(-1, frames - 1)


def test_what_led_to_a_later_picture_is_imitated() -> None:
    policy = fresh()
    latents, pressed = walks(200, 20)
    imitate(policy, latents, pressed, steps=150)
    assert chance_of(policy, RIGHT) > 0.5


def test_steps_without_a_known_button_teach_nothing() -> None:
    latents, pressed = walks(20, 8)
    with pytest.raises(UserError, match="name"):
        imitate(fresh(), latents, torch.full_like(pressed, -1), steps=1)
    policy = fresh()
    few = torch.full_like(pressed, -1)
    few[0, 0] = RIGHT
    imitate(policy, latents, few, steps=30)
    assert all(value.isfinite().all() for value in policy.parameters())


@pytest.mark.parametrize("wrong", [{"rounds": 0}, {"rounds": 1, "futures": 1}, {"rounds": 1, "hold": 0}])
def test_impossible_practice_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(UserError):
        Practice(**wrong)


def test_a_policy_is_kept_with_how_it_was_learned(tmp_path: Path) -> None:
    policy = fresh()
    policy.register_to_config(learned="3 rounds")
    policy.save_pretrained(tmp_path)
    again = GoalPolicy.from_pretrained(tmp_path)
    assert again.config.learned == "3 rounds"
    assert tuple(again.config.buttons) == EVERY
