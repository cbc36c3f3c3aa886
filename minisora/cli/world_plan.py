"""The command of planning in a world: `minisora world plan`."""

import enum
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from minisora.cli.options import JsonOption, check_output, console, finite, refuse_beside, typed
from minisora.errors import UserError
from minisora.limits import LAST_SEED, MAX_COUNT
from minisora.screen import counting

if TYPE_CHECKING:
    from minisora.worlds.planning import Cost


class CostName(enum.StrEnum):
    """How near to the goal a picture is."""

    FRAMES = "frames"
    LATENTS = "latents"


def world_plan(
    context: typer.Context,
    world: Annotated[
        Path, typer.Option("--world", help="Folder of a world whose codes are named, or a shipped one.")
    ],
    recording: Annotated[
        Path, typer.Option("--recording", help="Recording of the arena, which says of what kind it is.")
    ],
    cost: Annotated[
        CostName,
        typer.Option(help="What is near: few frames away, learned from clips (frames), or alike (latents)."),
    ] = CostName.FRAMES,
    clips: Annotated[
        Path | None,
        typer.Option(
            help="Folder of clips that the cost is learned from, once: it stays in WORLD/distance (of a shipped world "
            "in runs/)."
        ),
    ] = None,
    cost_steps: Annotated[
        int, typer.Option("--cost-steps", min=1, max=MAX_COUNT, help="Steps of learning the cost.")
    ] = 1500,
    told: Annotated[
        Path | None,
        typer.Option(help="Folder of a world that was told the true buttons, for one more row."),
    ] = None,
    practice: Annotated[
        int,
        typer.Option(
            min=0,
            max=MAX_COUNT,
            help="Rounds in which a policy practises in the dream, for four more rows; it stays beside the cost.",
        ),
    ] = 0,
    episodes: Annotated[int, typer.Option(min=1, max=MAX_COUNT, help="How many goals.")] = 100,
    in_dream: Annotated[
        int,
        typer.Option("--in-dream", min=0, max=MAX_COUNT, help="Goals that are looked for in the dream too."),
    ] = 20,
    seed: Annotated[
        int, typer.Option(min=0, max=LAST_SEED, help="Of arenas and goals; not that of the recordings.")
    ] = 100,
    nearest: Annotated[int, typer.Option(min=1, max=1000, help="Steps of the shortest way, at least.")] = 12,
    farthest: Annotated[int, typer.Option(min=1, max=1000, help="And at most.")] = 25,
    budget: Annotated[
        float,
        typer.Option(min=1.0, max=100.0, callback=finite, help="Steps allowed, times the shortest way."),
    ] = 2.0,
    macros: Annotated[int, typer.Option(min=1, max=8, help="Of a plan.")] = 3,
    hold: Annotated[int, typer.Option(min=1, max=64, help="Frames of a macro.")] = 4,
    steps: Annotated[
        int | None, typer.Option(min=1, max=1000, help="Sampling steps of a frame; default: the world's.")
    ] = None,
    json_: JsonOption = None,
) -> None:
    """Reach goal pictures in the arena, planned in a dream: beside chance, the true simulator and the shortest way.

    With --json a row that is measured is kept, and the same command goes on with the others.

    minisora world plan --world runs/arena/world --recording worlds/test --clips worlds/arena/clips --json plan.json
    """
    import torch

    from minisora.flops.device import describe_device
    from minisora.worlds.arena import Arena
    from minisora.worlds.dream import load_dream
    from minisora.worlds.goals import Distances
    from minisora.worlds.labels import arena_of, policy_of
    from minisora.worlds.learned_policies import Lessons, learned_agents
    from minisora.worlds.plan_rows import (
        Planners,
        PlanTask,
        kept_rows,
        plan_result,
        plan_rows,
        plan_table,
        write_rows,
    )
    from minisora.worlds.planning import PlanSettings
    from minisora.worlds.temporal_distance import clips_of, distance_of, latent_distance
    from minisora.worlds.world_folder import learned_beside

    check_output(json_, (".json",))
    if cost is CostName.LATENTS:
        refuse_beside("--cost latents", {"--cost-steps": typed(context)["--cost-steps"]})
    task = PlanTask(
        Arena(arena_of(recording)),
        policy_of(recording),
        episodes,
        in_dream,
        seed,
        Distances(nearest, farthest, budget),
        PlanSettings(macros, hold),
    )
    dreams = {"world": load_dream(world, "cpu")}
    if told is not None:
        dreams["told"] = load_dream(told, "cpu")
    for dream in dreams.values():
        if dream.size != (task.arena.settings.height, task.arena.settings.width):
            raise UserError(f"{recording} is of another size than the world's {dream.size}: give another one")
        dream.steps = steps or dream.steps

    def cost_of(folder: Path, name: str) -> "Cost":
        if cost is CostName.LATENTS:
            return latent_distance
        with counting(console, "learning the cost") as progress:
            return distance_of(learned_beside(folder), dreams[name], clips, cost_steps, progress).frames

    planners = Planners(
        dreams["world"],
        cost_of(world, "world"),
        None if told is None else (dreams["told"], cost_of(told, "told")),
    )
    about = {
        "cost": cost.value,
        "world": str(world),
        "told": None if told is None else str(told),
        "steps": dreams["world"].steps,
        "practice": practice,
    }
    dated = {
        **about,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": describe_device("cpu", torch.float32),
    }
    kept = kept_rows(json_, task, about)
    if practice:
        if clips is None:
            raise UserError("a policy imitates clips before it practises: give --clips, those of the world")
        with counting(console, "practising") as progress:
            lessons = Lessons(
                task.arena,
                planners.dream,
                planners.cost,
                cost.value,
                clips_of(planners.dream, clips),
                task.distances,
                task.seed,
                practice,
                progress,
            )
            planners = replace(planners, learned=learned_agents(lessons, learned_beside(world) / "policies"))
    with counting(console, "planning") as progress:
        rows = plan_rows(
            task,
            planners,
            kept,
            lambda _, done, total: progress(done, total),
            lambda so_far: write_rows(json_, task, dated, so_far),
        )
    write_rows(json_, task, dated, rows)
    console.print(plan_table(plan_result(task, cost.value, rows)))
