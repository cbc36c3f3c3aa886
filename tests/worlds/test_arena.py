"""The arena: what is drawn is what is true, what a button does, and that nothing else decides."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from minisora.data.shapes_world.grammar import SHAPES
from minisora.errors import UserError
from minisora.worlds.arena import (
    BUTTONS,
    COIN_RADIUS,
    MOVER_RADIUS,
    PLAYER_RADIUS,
    PLAYER_STEP,
    Arena,
    ArenaSettings,
    ArenaState,
    Body,
    restore,
)

FAR = -1000.0  # pixels: nothing of it is in the frame
RICH = ArenaSettings(movers=2, coins=3, turning=0.2)


def press(state: ArenaState, button: str, arena: Arena, times: int = 1) -> ArenaState:
    for _ in range(times):
        state = arena.step(state, np.full(len(state), BUTTONS.index(button)))
    return state


def same(state: ArenaState, other: ArenaState) -> bool:
    left, right = state.arrays(), other.arrays()
    return all(np.array_equal(left[name], right[name]) for name in left)


def walled(state: ArenaState, *walls: tuple[float, float, float, float]) -> ArenaState:
    """The arenas with other walls (top, left, bottom, right)."""
    return replace(state, layout=replace(state.layout, walls=np.tile(np.array(walls), (len(state), 1, 1))))


@pytest.mark.parametrize(("height", "width"), [(64, 64), (48, 80)])
def test_the_player_is_drawn_where_the_state_has_it(height: int, width: int) -> None:
    arena = Arena(ArenaSettings(height, width, walls=0))
    state = arena.start(0, range(30))
    state = replace(state, layout=replace(state.layout, goal=np.full((30, 2), FAR)))
    with_player = arena.render(state).double()
    without = arena.render(replace(state, player=np.full((30, 2), FAR))).double()
    share = (with_player - without).abs().sum(dim=1).numpy()  # B H W, in one contrast for each arena
    total = share.sum(axis=(1, 2))
    y, x = np.indices((height, width))
    centers = np.stack([(share * y).sum((1, 2)) / total, (share * x).sum((1, 2)) / total], axis=1)
    # The corners of a triangle are drawn a little soft.
    np.testing.assert_allclose(centers, state.player, atol=0.15)
    area = total / share.max(axis=(1, 2))
    circles = state.layout.shape != SHAPES.index("triangle")
    np.testing.assert_allclose(area[circles], np.pi * (PLAYER_RADIUS * min(height, width)) ** 2, rtol=0.03)


def test_walls_goal_coins_and_balls_are_drawn_where_they_are() -> None:
    arena = Arena(replace(RICH, coins=2))
    state = arena.start(3, range(12))
    state = replace(state, player=np.full((12, 2), FAR))
    layout = state.layout

    def shown(changed: ArenaState) -> np.ndarray:
        """Shares of pixels (B H W) by which another picture differs."""
        apart = (arena.render(state).double() - arena.render(changed).double()).abs().sum(dim=1)
        return (apart / apart.amax(dim=(1, 2), keepdim=True)).numpy()

    ground = replace(layout, goal=np.full((12, 2), FAR))
    alone = replace(state, movers=state.movers + FAR, coins_left=np.zeros_like(state.coins_left))
    state = replace(alone, layout=layout)
    inside = shown(replace(alone, layout=ground)) > 0.5
    for row in range(12):
        y, x = np.nonzero(inside[row])
        np.testing.assert_allclose([y.mean(), x.mean()], layout.goal[row], atol=0.6)
    # Exact edges: what is left of a wall is ground, what is in it is grey.
    bare = replace(alone, layout=replace(layout, walls=np.full_like(layout.walls, FAR)))
    state = replace(alone, layout=layout)
    share = (arena.render(state).double() - arena.render(bare).double()).abs().sum(dim=(1, 2, 3)).numpy()
    area = (
        (layout.walls[..., 2] - layout.walls[..., 0]) * (layout.walls[..., 3] - layout.walls[..., 1])
    ).sum(1)
    contrast = np.abs(255 * (layout.background - layout.wall_grey[:, None])).sum(1)
    np.testing.assert_allclose(share / contrast, area, rtol=0.02)


@pytest.mark.parametrize("button", BUTTONS)
def test_a_button_moves_the_player_by_one_step(button: str) -> None:
    arena = Arena(ArenaSettings(walls=0))
    state = replace(arena.start(0, range(3)), player=np.full((3, 2), 32.0))
    moved = press(state, button, arena).player - state.player
    step = PLAYER_STEP * 64
    want = {"noop": (0, 0), "up": (-step, 0), "down": (step, 0), "left": (0, -step), "right": (0, step)}
    np.testing.assert_array_equal(moved, np.tile(want[button], (3, 1)))


def test_a_wall_stops_the_player_where_they_touch_and_lets_it_go_along() -> None:
    arena = Arena(ArenaSettings(walls=1))
    state = walled(arena.start(1, range(40)), (-0.5, 40.0, 63.5, 43.0))
    state = replace(state, player=np.tile([32.0, 20.0], (40, 1)))
    body = arena.body(state.layout)
    at_wall = press(state, "right", arena, 12)
    np.testing.assert_array_equal(at_wall.player[:, 1], 40.0 - body.behind[:, 1])
    assert (at_wall.player[:, 0] == 32).all()
    along = press(at_wall, "up", arena)
    np.testing.assert_array_equal(along.player[:, 0], 32 - PLAYER_STEP * 64)
    at_corner = press(along, "down", arena, 30)
    np.testing.assert_array_equal(at_corner.player[:, 0], 63.5 - body.behind[:, 0])
    away = press(at_corner, "left", arena)
    np.testing.assert_allclose(at_corner.player[:, 1] - away.player[:, 1], PLAYER_STEP * 64)


def test_nothing_ever_overlaps_a_wall_or_the_edge() -> None:
    arena = Arena(RICH)
    state = arena.start(5, range(100))
    rng = np.random.default_rng(0)
    reach = np.full((100, 2), MOVER_RADIUS * 64)
    for _ in range(60):
        assert arena.free(state.layout, state.player, arena.body(state.layout)).all()
        for number in range(2):
            assert arena.free(state.layout, state.movers[:, number], Body(reach, reach)).all()
        state = arena.step(state, np.repeat(rng.integers(5, size=20), 5))


def test_balls_bounce_and_keep_their_speed() -> None:
    arena = Arena(ArenaSettings(walls=1, movers=1))
    state = walled(arena.start(0, range(2)), (-0.5, 40.0, 63.5, 43.0))
    velocities = np.tile([0.5, 1.5], (2, 1, 1))
    state = replace(state, movers=np.tile([30.0, 30.0], (2, 1, 1)), velocities=velocities)
    places = []
    for _ in range(8):
        state = press(state, "noop", arena)
        places.append(state.movers[0, 0])
    touch = 40.0 - MOVER_RADIUS * 64
    np.testing.assert_allclose([y for y, _ in places], 30 + 0.5 * np.arange(1, 9))
    assert max(x for _, x in places) == touch
    np.testing.assert_array_equal(state.velocities[0, 0], [0.5, -1.5])
    np.testing.assert_allclose(places[-1][1], touch - 1.5 * (7 - int(np.argmax([x for _, x in places]))))


def test_balls_turn_only_where_they_are_told_to() -> None:
    for turning, turns in ((0.0, False), (1.0, True)):
        arena = Arena(ArenaSettings(walls=0, movers=2, turning=turning))
        state = replace(arena.start(0, range(20)), movers=np.full((20, 2, 2), 32.0))
        after = press(state, "noop", arena)
        assert bool((after.velocities != state.velocities).any()) is turns
        np.testing.assert_allclose(np.linalg.norm(after.velocities, axis=-1), 2.0)


def test_a_coin_is_taken_by_touching_it_and_then_not_drawn() -> None:
    arena = Arena(ArenaSettings(walls=0, coins=1))
    state = arena.start(0, range(1))
    state = replace(state, player=state.layout.coins[:, 0] + [0, (PLAYER_RADIUS + COIN_RADIUS) * 64 + 1])
    assert press(state, "right", arena).coins_left.all()
    taken = press(state, "left", arena)
    assert not taken.coins_left.any()
    assert not press(taken, "right", arena, 3).coins_left.any()
    far = replace(taken, player=np.full((1, 2), FAR))
    assert not torch.equal(
        arena.render(far), arena.render(replace(far, coins_left=np.ones_like(far.coins_left)))
    )


def test_at_the_goal_is_within_its_half_side() -> None:
    arena = Arena()
    state = arena.start(0, range(4))
    reach = 0.08 * np.sqrt(np.pi) / 2 * 64
    for apart, want in ((0.0, True), (reach - 0.01, True), (reach + 0.01, False)):
        assert (
            arena.at_goal(replace(state, player=state.layout.goal + np.array([apart, -apart]))) == want
        ).all()
    assert not arena.at_goal(state).any()


def test_the_future_follows_from_state_and_button_alone() -> None:
    arena = Arena(RICH)
    state = arena.start(7, range(6))
    kept = {name: array.copy() for name, array in state.arrays().items()}
    buttons = np.random.default_rng(1).integers(5, size=(20, 6))
    middle, end = None, state
    for step, pressed in enumerate(buttons):
        middle = end if step == 10 else middle
        end = arena.step(end, pressed)
    assert all(np.array_equal(array, kept[name]) for name, array in state.arrays().items())
    assert middle is not None
    again, other = restore({name: array.copy() for name, array in middle.arrays().items()}), Arena(RICH)
    for pressed in buttons[10:]:
        again = other.step(again, pressed)
    assert same(again, end)
    assert torch.equal(other.render(again), arena.render(end))


def test_an_arena_is_the_same_in_any_batch() -> None:
    arena = Arena(RICH)
    batch = arena.start(2, range(10))
    assert same(arena.start(2, [6]), batch.take([6]))
    assert torch.equal(arena.render(batch.take([6, 1])), arena.render(batch)[[6, 1]])
    buttons = np.arange(10) % 5
    assert same(arena.step(batch, buttons).take([8]), arena.step(batch.take([8]), buttons[[8]]))
    assert not np.array_equal(arena.start(3, [6]).player, batch.player[6:7])


def test_arenas_differ_and_their_captions_tell_the_first_frame() -> None:
    arena = Arena(RICH)
    layout = arena.start(0, range(200)).layout
    captions = arena.captions(layout)
    assert len(set(layout.key)) == 200
    assert len(set(captions)) == 18  # 3 colours, 3 shapes, day and night
    assert captions[0].endswith(
        f"a white goal, two gray walls, two purple balls and yellow coins {'by day' if layout.day[0] else 'at night'}"
    )
    assert Arena(ArenaSettings(walls=0)).captions(layout)[0].count(" with a white goal ") == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"height": 8}, "height = 8"),
        ({"walls": 3}, "walls = 3"),
        ({"movers": -1}, "movers = -1"),
        ({"coins": 6}, "coins = 6"),
        ({"turning": float("nan")}, "turning = nan"),
    ],
)
def test_arenas_that_cannot_be_are_refused(settings: dict[str, int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        ArenaSettings(**settings)


def test_wrong_buttons_and_states_are_refused() -> None:
    arena = Arena()
    state = arena.start(0, range(2))
    for buttons in ([0], [0, 5], [-1, 0], [0.0, 1.0]):
        with pytest.raises(UserError, match="button"):
            arena.step(state, buttons)
    arrays = state.arrays()
    del arrays["player"]
    with pytest.raises(UserError, match="player missing"):
        restore(arrays)


@pytest.mark.parametrize(("height", "width"), [(16, 16), (16, 128), (34, 24)])
def test_small_and_long_arenas_have_room_for_everything(height: int, width: int) -> None:
    arena = Arena(ArenaSettings(height, width, walls=2, movers=2, coins=5))
    state = press(arena.start(0, range(50)), "right", arena, 3)
    assert arena.render(state).shape == (50, 3, height, width)
