"""A planner: it takes the plan that comes nearest, in the dream as in the truth, and its scores say who knew what."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from minisora.cli import app
from minisora.config import load
from minisora.errors import UserError
from minisora.models.build import build_vae
from minisora.worlds.actions import ActionModel
from minisora.worlds.arena import BUTTONS, Arena, ArenaSettings
from minisora.worlds.dream import Dream, DreamSettings, load_dream
from minisora.worlds.dynamics import build_dynamics
from minisora.worlds.goals import Distances, Episode, draw_episodes
from minisora.worlds.learned_policies import IMITATED, PRACTISED, PRACTISED_TRUE
from minisora.worlds.naming import CodeNames, name_codes
from minisora.worlds.plan_rows import (
    DREAM,
    RANDOM,
    SHORTEST,
    TOLD,
    TRUTH,
    Planners,
    PlanTask,
    gap_closed,
    kept_rows,
    plan_result,
    plan_rows,
    plan_table,
    write_rows,
)
from minisora.worlds.planning import (
    DreamedArena,
    DreamedFutures,
    MacroPlanner,
    Moment,
    PlanningAgent,
    PlanSettings,
    PolicyAgent,
    ShortestWay,
    TrueArena,
    TrueFutures,
    run_episode,
    run_episodes,
)
from minisora.worlds.recording import Recording, record
from minisora.worlds.temporal_distance import latent_distance
from minisora.worlds.world_folder import NAMES

ARENA = Arena(ArenaSettings(32, 32, walls=0))
NAMED = name_codes([3, 1, 4, 0, 6], range(5), 8, BUTTONS)


def untaught(names: CodeNames | None = NAMED) -> Dream:
    """A world that learned nothing."""
    shape = ["vae.widths=[16, 16]", "vae.blocks_per_level=1", "vae.latent_channels=4"]
    shape += ["dit.width=24", "dit.depth=2", "dit.heads=2", "world.window=3", "world.frames=3"]
    config = load("world", shape, {})
    torch.manual_seed(0)
    dit = build_dynamics(config)
    # Fresh, it says nothing: the last layer is zero.
    for parameter in dit.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    parts = build_vae(config), dit, ActionModel(width=16, depth=2)
    starts = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    return Dream(*parts, DreamSettings(32, 32, 10.0, 1, 0.1), starts, names)


@pytest.fixture(scope="module")
def dream() -> Dream:
    return untaught()


@pytest.fixture(scope="module")
def episodes() -> list[Episode]:
    return draw_episodes(ARENA, 3, seed=9, distances=Distances(6, 8))


class Places(TrueFutures):
    """Futures whose latents are the player's place."""

    def __init__(self) -> None:
        super().__init__(ARENA, None)  # type: ignore[arg-type]

    def latents(self) -> Tensor:
        assert self._state is not None
        return torch.from_numpy(self._state.player)[:, :, None, None]


def place(where: np.ndarray) -> Tensor:
    return torch.from_numpy(where)[None, :, None, None]


def test_the_plan_that_comes_nearest_anywhere_on_its_way_is_begun(episodes: list[Episode]) -> None:
    planner = MacroPlanner(Places(), latent_distance, PlanSettings(macros=2, hold=2))
    start = episodes[0].start
    moment = TrueArena(ARENA).begin(episodes[0])
    step = 3 / 64 * 32
    for button, way in (("up", (-1, 0)), ("down", (1, 0)), ("left", (0, -1)), ("right", (0, 1))):
        for steps in (1, 2, 4):
            goal = start.player[0] + steps * step * np.array(way)
            # The goal may lie outside; then all ways are equally good or bad.
            if ((goal < 6) | (goal > 26)).any():
                continue
            assert planner.decide(moment, place(goal)) == [BUTTONS.index(button)] * 2


def test_with_the_truth_and_a_perfect_cost_every_goal_is_reached(episodes: list[Episode]) -> None:
    class Agent(PlanningAgent):
        def begin(self, episode: Episode) -> None:
            self.goal = place(episode.goal)

    agent = Agent(MacroPlanner(Places(), latent_distance, PlanSettings(2, 2)), None)  # type: ignore[arg-type]
    where = TrueArena(ARENA)
    for episode, outcome in zip(episodes, run_episodes(where, episodes, agent), strict=True):
        assert outcome.reached
        assert len(episode.way) <= outcome.steps <= episode.budget
        assert len(outcome.seconds) == -(-outcome.steps // 2)
    shortest = run_episodes(where, episodes, ShortestWay())
    assert [each.steps for each in shortest] == [len(episode.way) for episode in episodes]
    # Whoever does not look for it does not find it.
    stays = [run_episode(where, episode, PolicyAgent("random", ARENA)) for episode in episodes]
    assert [each.steps for each in stays if not each.reached] == [
        episode.budget for episode, each in zip(episodes, stays, strict=True) if not each.reached
    ]


def test_futures_of_a_dream_are_what_it_shows_when_it_is_played(
    dream: Dream, episodes: list[Episode]
) -> None:
    first = TrueArena(ARENA).begin(episodes[0])
    futures = DreamedFutures(dream)
    assert futures.buttons == (0, 1, 2, 3, 4)
    futures.begin(first)
    futures.branch(5)
    futures.press(np.arange(5))
    futures.branch(5)
    futures.press(np.tile(np.arange(5), 5))
    together = futures.latents()
    assert together.shape[:2] == (25, 4)
    for plan in ((1, 4), (3, 2)):
        dream.start(first.frames[None, :, -1])
        for button in plan:
            alone = dream.step_latents([NAMED.pressed[BUTTONS[button]]])
        torch.testing.assert_close(together[5 * plan[0] + plan[1]], alone[0, :, 0], atol=1e-4, rtol=1e-4)


def test_what_a_planner_dreams_of_does_not_change_the_dream_it_acts_in(
    dream: Dream, episodes: list[Episode]
) -> None:
    planner = MacroPlanner(DreamedFutures(dream), latent_distance, PlanSettings(1, 2))
    agent, where = PlanningAgent(planner, dream.vae), DreamedArena(dream, ARENA)
    pressed: list[int] = []

    class Watched(PlanningAgent):
        def decide(self, moment: Moment) -> list[int]:
            pressed.extend(agent.decide(moment))
            return pressed[-2:]

        def begin(self, episode: Episode) -> None:
            agent.begin(episode)

    outcome = run_episode(where, episodes[0], Watched(planner, dream.vae))
    moment = where.begin(episodes[0])
    for button in pressed[: outcome.steps]:
        moment = where.step(moment, button)
    frames = [ARENA.render(episodes[0].start)]
    dream.start(frames[0])
    frames += [dream.step([NAMED.pressed[BUTTONS[button]]]) for button in pressed[: outcome.steps]]
    assert moment.frames.equal(torch.cat(frames).transpose(0, 1))
    with pytest.raises(UserError, match="cannot plan in a dream"):
        Places().begin(moment)
    with pytest.raises(UserError, match="cannot press in a dream"):
        PolicyAgent("random", ARENA).decide(moment)


def test_codes_without_names_and_too_many_plans_are_refused(dream: Dream) -> None:
    with pytest.raises(UserError, match="minisora world name"):
        DreamedFutures(untaught(None))
    with pytest.raises(UserError, match="390,625 plans: give fewer macros"):
        MacroPlanner(Places(), latent_distance, PlanSettings(macros=8))
    with pytest.raises(UserError, match="hold"):
        PlanSettings(hold=0)


def test_a_world_that_was_told_the_buttons_begins_with_what_is_now(dream: Dream) -> None:
    told = untaught()
    told.settings = replace(told.settings, told=True)
    seen = torch.randint(0, 256, (1, 3, 3, 32, 32), dtype=torch.uint8)
    told.start(seen)
    assert told.moment.memory.position == 0
    dream.start(seen)
    assert dream.moment.memory.position == 2


def test_rows_are_measured_kept_and_put_beside_each_other(dream: Dream, tmp_path: Path) -> None:
    task = PlanTask(ARENA, "mixed", 2, 1, 9, Distances(3, 4), PlanSettings(1, 2))
    planners = Planners(dream, latent_distance, (dream, latent_distance))
    file, about = tmp_path / "plan.json", {"cost": "latents", "world": "w"}
    written: list[list[str]] = []

    def on_row(rows: dict[str, Any]) -> None:
        write_rows(file, task, about, rows)
        written.append(list(json.loads(file.read_text())["rows"]))

    rows = plan_rows(task, planners, on_row=on_row)
    assert list(rows) == [RANDOM, "the clips' policy (mixed)", DREAM, TOLD, TRUTH, SHORTEST]
    assert [len(names) for names in written] == [1, 2, 3, 4, 5, 6]
    assert rows[SHORTEST]["reached"]["right"] == 2
    assert rows[DREAM]["in_dream"]["total"] == 1
    assert rows[DREAM]["flops_a_decision"] > 0
    assert rows[TRUTH]["flops_a_decision"] > 0
    assert "flops_a_decision" not in rows[RANDOM]
    # What was measured is not again; another task is refused.
    kept = kept_rows(file, task, about)
    kept[RANDOM]["reached"]["share"] = 0.25
    again = plan_rows(task, planners, kept, on_row=lambda rows: pytest.fail("measured again"))
    assert again[RANDOM]["reached"]["share"] == 0.25
    assert gap_closed({**again, DREAM: again[SHORTEST]}, DREAM, SHORTEST) == 1.0
    assert gap_closed(dict.fromkeys((RANDOM, DREAM, TRUTH), again[RANDOM]), DREAM, TRUTH) is None
    with pytest.raises(UserError, match="another world, other goals or another cost"):
        kept_rows(file, task, about | {"world": "v"})
    file.write_text("[]")
    with pytest.raises(UserError, match="no result of 'minisora world plan'"):
        kept_rows(file, task, about)
    cells = [
        [str(cell) for cell in column.cells]
        for column in plan_table(plan_result(task, "latents", again)).columns
    ]
    assert cells[0][2] == DREAM
    assert cells[1][-1] == "100%"


def test_the_command_says_what_it_lacks_and_writes_what_it_found(tmp_path: Path, dream: Dream) -> None:
    record(Recording(ARENA.settings, frames=4), 3, tmp_path)
    world, file = tmp_path / "world", tmp_path / "plan.json"
    dream.save_pretrained(world)
    command = ["world", "plan", "--world", str(world), "--recording", str(tmp_path), "--json", str(file)]
    command += ["--episodes", "1", "--in-dream", "0", "--nearest", "5", "--farthest", "6", "--macros", "1"]

    def refusal(*more: str) -> str:
        result = CliRunner().invoke(app, [*command, *more])
        assert isinstance(result.exception, UserError), result.output
        return str(result.exception)

    assert "has no distance yet: give --clips" in refusal()
    assert "minisora world name" in refusal("--cost", "latents")
    NAMED.write(world / NAMES)
    assert load_dream(world).buttons["up"] == 1
    result = CliRunner().invoke(app, [*command, "--cost", "latents", "--hold", "1"])
    assert result.exit_code == 0, result.output
    told = json.loads(file.read_text())
    assert told["rows"][SHORTEST]["reached"]["share"] == 1.0
    assert told["machine"]["type"] == "cpu"
    assert "another world, other goals" in refusal("--cost", "latents", "--hold", "2")


def test_a_policy_practises_where_it_is_asked_to_and_is_kept(tmp_path: Path, dream: Dream) -> None:
    record(Recording(ARENA.settings, frames=32), 3, tmp_path)
    world, file = tmp_path / "world", tmp_path / "plan.json"
    dream.save_pretrained(world)
    NAMED.write(world / NAMES)
    command = ["world", "plan", "--world", str(world), "--recording", str(tmp_path), "--json", str(file)]
    command += ["--episodes", "1", "--in-dream", "0", "--nearest", "5", "--farthest", "6", "--macros", "1"]
    command += ["--cost", "latents", "--hold", "1", "--practice", "1"]
    refused = CliRunner().invoke(app, command)
    assert isinstance(refused.exception, UserError)
    assert "give --clips" in str(refused.exception)
    result = CliRunner().invoke(app, [*command, "--clips", str(tmp_path / "clips")])
    assert result.exit_code == 0, result.output
    rows = json.loads(file.read_text())["rows"]
    assert [name for name in rows if name.startswith("policy,")] == [
        IMITATED,
        "policy, practised in 48 true frames",
        PRACTISED,
        PRACTISED_TRUE,
    ]
    assert rows[PRACTISED]["flops_a_decision"] > 0
    # What was learned is read, not learned anew.
    learned = world / "policies" / "dream" / "diffusion_pytorch_model.safetensors"
    before = learned.read_bytes()
    learned.with_name("config.json").touch()
    file.unlink()
    assert CliRunner().invoke(app, [*command, "--clips", str(tmp_path / "clips")]).exit_code == 0
    assert learned.read_bytes() == before
