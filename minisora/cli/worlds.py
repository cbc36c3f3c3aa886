"""Commands of worlds that are played: record."""

import enum
from pathlib import Path
from typing import Annotated

import typer

from minisora.cli.options import check_folder, console, finite
from minisora.limits import LAST_SEED, MAX_COUNT, MAX_FRAMES, MAX_SIDE
from minisora.screen import counting, say


class World(enum.StrEnum):
    """Worlds that minisora can record."""

    ARENA = "arena"


class Presser(enum.StrEnum):
    """Policies by name; `minisora.worlds.policies` has them."""

    RANDOM = "random"
    STICKY = "sticky"
    GOAL = "goal"
    MIXED = "mixed"


def world_record(
    world: Annotated[World, typer.Argument(help="The world: arena.")] = World.ARENA,
    out: Annotated[
        Path,
        typer.Option("--out", "-o", help="Folder for clips/ and truth/; an unfinished recording goes on."),
    ] = Path("worlds/arena"),
    clips: Annotated[int, typer.Option(min=1, max=MAX_COUNT, help="How many.")] = 100,
    frames: Annotated[int, typer.Option(min=2, max=MAX_FRAMES, help="Of each clip.")] = 32,
    policy: Annotated[
        Presser,
        typer.Option(
            help="Who presses: random (another button each frame), sticky (held for 4 frames on average), goal "
            "(walks to the goal, then on), mixed (sticky, every fifth clip goal)."
        ),
    ] = Presser.MIXED,
    seed: Annotated[int, typer.Option(min=0, max=LAST_SEED, help="Another seed, another recording.")] = 0,
    movers: Annotated[int, typer.Option(min=0, max=2, help="Balls that fly by themselves.")] = 0,
    coins: Annotated[int, typer.Option(min=0, max=5, help="Coins that the player takes by touching.")] = 0,
    walls: Annotated[int, typer.Option(min=0, max=2, help="Walls that stop player and balls.")] = 2,
    turning: Annotated[
        float,
        typer.Option(min=0.0, max=1.0, callback=finite, help="Chance at each frame that a ball turns."),
    ] = 0.0,
    height: Annotated[int, typer.Option(min=16, max=MAX_SIDE, help="Of a frame, pixels; even.")] = 64,
    width: Annotated[int, typer.Option(min=16, max=MAX_SIDE, help="Of a frame, pixels; even.")] = 64,
    fps: Annotated[
        float, typer.Option(min=1.0, max=120.0, callback=finite, help="Frames per second of the clips.")
    ] = 10.0,
    buttons_file: Annotated[
        Path | None,
        typer.Option(
            "--buttons-file",
            help="Folder for the true buttons and states, a file NAME.npz for each clip; default: OUT/truth.",
        ),
    ] = None,
) -> None:
    """Record a world that is played: clips with captions to train on, and apart from them the true buttons.

    OUT/clips is a folder of clips as any other; no training opens OUT/truth, which is for measuring.
    """
    from minisora.worlds.arena import ArenaSettings
    from minisora.worlds.recording import Recording, record

    check_folder(out)
    if buttons_file is not None:
        check_folder(buttons_file)
    arena = ArenaSettings(height, width, walls, movers, coins, turning)
    recording = Recording(arena, policy.value, frames, seed, fps)
    with counting(console, "recording") as progress:
        folder = record(recording, clips, out, buttons_file, progress)
    say(
        console,
        f"{clips} clips of the {world.value} in {folder}, the truth in {buttons_file or out / 'truth'}; next: minisora "
        f"data check {folder} --suggest",
    )
