"""Who reaches how many goals: a planner in a dream between those who know nothing and those who know the truth.

Rows, from the least to the most that is known: buttons at random; the policy that the clips were recorded by; policies
that learned to go to goals, in a dream or in the truth (`minisora.worlds.learned_policies`); the planner with a world;
with one that was told the true buttons; the same planner with the true simulator; the shortest way. Of a planner with a
dream its score in the dream stands beside the true one: what it believes it reaches, and does not, is what it has found
that is wrong in the dream.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from minisora.errors import UserError
from minisora.evaluate.score import Rate
from minisora.files import read_json, write_json
from minisora.flops.count_torch import count_forward
from minisora.screen import Table
from minisora.worlds.arena import Arena
from minisora.worlds.dream import Dream
from minisora.worlds.goal_policy import GoalAgent
from minisora.worlds.goals import Distances, Episode, draw_episodes
from minisora.worlds.planning import (
    Agent,
    Cost,
    DreamedArena,
    DreamedFutures,
    MacroPlanner,
    Outcome,
    PlanningAgent,
    PlanSettings,
    PolicyAgent,
    ShortestWay,
    TrueArena,
    TrueFutures,
    run_episodes,
)
from minisora.worlds.policies import PolicyName

RANDOM, TRUTH, SHORTEST = "random", "planner, true simulator", "shortest path"
DREAM, TOLD = "planner, this world", "planner, world told true buttons"

# Called with the name of a row, and episodes done and in all.
RowProgress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class PlanTask:
    """What is planned, the same for all rows.

    Args:
        arena: the rules.
        policy: that the clips were recorded by.
        episodes: how many.
        in_dream: of how many of them the score in the dream is told as well.
        seed: of the episodes.
        distances: of the goals.
        settings: of the planner.
    """

    arena: Arena
    policy: PolicyName
    episodes: int = 100
    in_dream: int = 20
    seed: int = 100
    distances: Distances = field(default_factory=Distances)
    settings: PlanSettings = field(default_factory=PlanSettings)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "arena": asdict(self.arena.settings),
            "policy": self.policy,
            "episodes": self.episodes,
            "in_dream": self.in_dream,
            "seed": self.seed,
            **asdict(self.distances),
            **asdict(self.settings),
        }


@dataclass(frozen=True)
class Planners:
    """Dreams that are planned in, and how near their latents are to a goal's.

    Args:
        dream: the world.
        cost: of its latents.
        told: a world that was told the true buttons, and the cost of its latents; None: there is none.
        learned: policies that learned to go to goals, by the names of their rows.
    """

    dream: Dream
    cost: Cost
    told: tuple[Dream, Cost] | None = None
    learned: Mapping[str, GoalAgent] = field(default_factory=dict)


def plan_rows(
    task: PlanTask,
    planners: Planners,
    kept: Mapping[str, Any] | None = None,
    progress: RowProgress | None = None,
    on_row: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """Let everybody try, one after another.

    Args:
        task: see there.
        planners: see there.
        kept: rows by name that were measured before, and are not again.
        progress: how far a row is.
        on_row: called after each row with all of them by name.

    Raises:
        UserError: codes have no names, or arenas have no such goals.
    """
    arena, vae = task.arena, planners.dream.vae
    episodes = draw_episodes(arena, task.episodes, task.seed, task.distances)
    truth = MacroPlanner(TrueFutures(arena, vae), planners.cost, task.settings)
    dreamt = MacroPlanner(DreamedFutures(planners.dream), planners.cost, task.settings)
    who: dict[str, tuple[Agent, Dream | None]] = {
        RANDOM: (PolicyAgent("random", arena), None),
        f"the clips' policy ({task.policy})": (PolicyAgent(task.policy, arena), None),
        **{name: (policy, None) for name, policy in planners.learned.items()},
        DREAM: (PlanningAgent(dreamt, vae), planners.dream),
    }
    if planners.told is not None:
        told, cost = planners.told
        with_truth = MacroPlanner(DreamedFutures(told), cost, task.settings)
        who[TOLD] = PlanningAgent(with_truth, told.vae), told
    who |= {TRUTH: (PlanningAgent(truth, vae), None), SHORTEST: (ShortestWay(), None)}
    rows: dict[str, Any] = dict(kept or {})
    for name, (agent, dream) in who.items():
        if name in rows:
            continue

        def told_progress(done: int, total: int, name: str = name) -> None:
            if progress:
                progress(name, done, total)

        outcomes = run_episodes(TrueArena(arena), episodes, agent, told_progress)
        rows[name] = _row(outcomes)
        if isinstance(agent, PlanningAgent | GoalAgent):
            rows[name]["flops_a_decision"] = decision_flops(agent, task.arena, episodes[0])
        if dream is not None and task.in_dream:
            few = episodes[: task.in_dream]
            believed = run_episodes(DreamedArena(dream, arena), few, agent)
            rows[name]["in_dream"] = _rate(believed)
            rows[name]["same_in_truth"] = _rate(outcomes[: task.in_dream])
        if on_row:
            on_row(rows)
    # In their order, whatever was kept.
    return {name: rows[name] for name in who}


def decision_flops(agent: PlanningAgent | GoalAgent, arena: Arena, episode: Episode) -> int:
    """FLOPs of one decision at the beginning of an episode, counted; steps of the true simulator have none to count.

    Raises:
        UserError: an operator has no formula.
    """
    agent.begin(episode)
    moment = TrueArena(arena).begin(episode)
    return count_forward(lambda: agent.decide(moment))


def _rate(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    return Rate(sum(each.reached for each in outcomes), len(outcomes)).to_dict()


def _row(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    steps = [each.steps for each in outcomes if each.reached]
    seconds = [second for each in outcomes for second in each.seconds]
    return {
        "reached": _rate(outcomes),
        "reached_each": [each.reached for each in outcomes],
        "steps_where_reached": statistics.mean(steps) if steps else None,
        "decisions": len(seconds),
        "seconds_a_decision": statistics.median(seconds) if seconds else None,
    }


def gap_closed(rows: Mapping[str, Any], name: str, oracle: str) -> float | None:
    """How much of the way from random buttons to an oracle a row goes; None where there is no such way."""
    low, middle, high = (rows[each]["reached"]["share"] for each in (RANDOM, name, oracle))
    return (middle - low) / (high - low) if high > low else None


def plan_result(task: PlanTask, cost: str, rows: Mapping[str, Any]) -> dict[str, Any]:
    """What stands in the JSON file: the task, the rows, and how much of the gap between its bounds each closes."""
    bounds = {RANDOM, TRUTH, SHORTEST}
    closed = {
        name: {oracle: gap_closed(rows, name, oracle) for oracle in (TRUTH, SHORTEST)}
        for name in (rows if bounds <= set(rows) else ())
        if name not in bounds
    }
    return {"task": task.to_dict(), "cost": cost, "rows": dict(rows), "gap_closed": closed}


def kept_rows(file: Path | None, task: PlanTask, about: Mapping[str, Any]) -> dict[str, Any]:
    """The rows in a result file, to go on from; none where there is no file.

    Args:
        file: NAME.json.
        task: that it has to be of.
        about: what else it has to say, such as which cost.

    Raises:
        UserError: it cannot be read, or is of something else.
    """
    if file is None or not file.is_file():
        return {}
    other = "choose another --json"
    try:
        result = read_json(file)
        rows, same = dict(result["rows"]), result["task"] == task.to_dict()
        same = same and all(result.get(key) == value for key, value in about.items())
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file} is no result of 'minisora world plan' ({error}): {other}") from error
    if not same:
        raise UserError(
            f"{file} is a result of another world, other goals or another cost: {other}, or delete it"
        )
    return rows


def write_rows(file: Path | None, task: PlanTask, about: Mapping[str, Any], rows: Mapping[str, Any]) -> None:
    """Write what there is so far; raises OSError where that cannot be."""
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, {**about, **plan_result(task, str(about["cost"]), rows)})


def plan_table(result: Mapping[str, Any]) -> Table:
    """The rows for the screen."""
    task = result["task"]
    table = Table(
        title=f"goal pictures {task['nearest']} to {task['farthest']} steps away, reached in "
        f"{task['budget']:g} times the shortest way; {task['episodes']} episodes, cost: {result['cost']}",
        title_justify="left",
    )
    table.add_column("", min_width=16)
    # Short, so that the names of rows have room on a narrow screen; the caption says what they are.
    for name in ("reached", "95 %", "gap", "dream", "truth", "s", "GFLOPs"):
        table.add_column(name, justify="right", no_wrap=True)
    for name, row in result["rows"].items():
        reached, closed = row["reached"], result["gap_closed"].get(name, {}).get(TRUTH)
        dreamt, true_there = row.get("in_dream"), row.get("same_in_truth")
        seconds, flops = row["seconds_a_decision"], row.get("flops_a_decision")
        table.add_row(
            name,
            f"{reached['share']:.0%}",
            f"{100 * reached['interval'][0]:.0f}-{100 * reached['interval'][1]:.0f}",
            "" if closed is None else f"{closed:.0%}",
            "" if dreamt is None else f"{dreamt['right']}/{dreamt['total']}",
            "" if true_there is None else f"{true_there['right']}/{true_there['total']}",
            "" if seconds is None else f"{seconds:.3f}",
            "" if flops is None else f"{flops / 1e9:,.1f}",
        )
    table.caption = (
        "gap: closed, from random buttons to the same planner with the true simulator; dream: reached when it acts in "
        "its dream, truth: of the same goals in the arena; s, GFLOPs: of a decision"
    )
    return table
