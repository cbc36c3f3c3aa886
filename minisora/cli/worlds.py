"""Commands of worlds that are played: record, play, train, name, evaluate, export."""

import enum
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from minisora.cli.options import (
    JsonOption,
    MinutesOption,
    OutOption,
    SetOption,
    check_folder,
    check_output,
    config_of_run,
    console,
    finite,
    load_config,
    refuse_beside,
    typed,
    write_result,
)
from minisora.errors import UserError
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


MoversOption = Annotated[int, typer.Option(min=0, max=2, help="Balls that fly by themselves.")]
CoinsOption = Annotated[int, typer.Option(min=0, max=5, help="Coins that the player takes by touching.")]
WallsOption = Annotated[int, typer.Option(min=0, max=2, help="Walls that stop player and balls.")]
TurningOption = Annotated[
    float,
    typer.Option(min=0.0, max=1.0, callback=finite, help="Chance at each frame that a ball turns."),
]


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
    movers: MoversOption = 0,
    coins: CoinsOption = 0,
    walls: WallsOption = 2,
    turning: TurningOption = 0.0,
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


def world_play(
    context: typer.Context,
    world: Annotated[
        str,
        typer.Argument(
            help="The world: arena, whose rules are exact, or one that dreams: its folder, or 'dream', the shipped one."
        ),
    ] = "arena",
    terminal: Annotated[bool, typer.Option("--terminal", help="In this terminal, in 24-bit colour.")] = False,
    beside: Annotated[
        bool,
        typer.Option("--beside", help="Show the true arena beside the dream, under the same buttons."),
    ] = False,
    seed: Annotated[int, typer.Option(min=0, max=LAST_SEED, help="Another seed, another beginning.")] = 0,
    fps: Annotated[
        float | None,
        typer.Option(min=1.0, max=60.0, callback=finite, help="Frames a second; default: the world's own."),
    ] = None,
    picture: Annotated[Path | None, typer.Option(help="Begin a dream with this picture.")] = None,
    clip: Annotated[
        Path | None,
        typer.Option(help="Go on after the first frames of this clip; of a recorded one, the arena can too."),
    ] = None,
    prompt: Annotated[
        str | None, typer.Option("--prompt", "-p", help="Begin a dream with what the text model draws.")
    ] = None,
    model: Annotated[
        Path, typer.Option("--model", "-m", help="The text model that draws: a folder, or a shipped one.")
    ] = Path("toy"),
    movers: MoversOption = 0,
    coins: CoinsOption = 0,
    walls: WallsOption = 2,
    turning: TurningOption = 0.0,
    replay: Annotated[
        Path | None,
        typer.Option(
            help="Instead: press the buttons of a saved session again, in WORLD beside the true world it knows."
        ),
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the sessions that are saved.")] = Path(
        "worlds/played"
    ),
    host: Annotated[
        str | None,
        typer.Option(help="Listen here, so that other machines reach it; default: this machine alone."),
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of the page; 0 takes a free one.")] = 8421,
) -> None:
    """Play a world with the keyboard: on a page in the browser, or in the terminal.

    Arrows or WASD hold the buttons, as digits do in their order; space or P pauses, R begins again, N takes the next
    seed, V saves a video with its buttons.

    minisora world play                                      the arena, on a page

    minisora world play --terminal --movers 2 --coins 3      in the terminal, with more in it

    minisora world play dream --beside                       the shipped dream, and what is true

    minisora world play runs/world/world -p "a small blue square at night"
    """
    from minisora.player.play_world import Screen, Start, play, replay_session
    from minisora.worlds.arena import ArenaSettings

    starts = {"--picture": picture is not None, "--clip": clip is not None, "--prompt": prompt is not None}
    check_folder(out)
    given = typed(context)
    if replay is not None:
        others = given.keys() - {"--replay", "--out", "WORLD"}
        refuse_beside("--replay", {name: given[name] for name in sorted(others)})
        say(console, replay_session(replay, world, out))
        return
    if sum(starts.values()) > 1:
        several = " and ".join(name for name, is_given in starts.items() if is_given)
        raise UserError(f"{several}: a world has one beginning; leave all but one out")
    kind = {name: given[name] for name in ("--movers", "--coins", "--walls", "--turning")}
    if world != "arena" and not beside:
        refuse_beside("a dream without --beside", kind)
    if clip is not None and world == "arena":
        refuse_beside("--clip, whose arena is the one that it was recorded in", kind)
    if terminal:
        refuse_beside("--terminal", {name: given[name] for name in ("--host", "--port")})
    arena = ArenaSettings(walls=walls, movers=movers, coins=coins, turning=turning)
    start = Start(seed, picture, clip, prompt, model)
    play(world, arena, beside, start, Screen(terminal, host, port), fps, out, console)


def world_train(
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            help="Folder of clips of one world, such as OUT/clips of record; a run that goes on knows its own.",
        ),
    ] = None,
    config: Annotated[
        str | None,
        typer.Option(
            "--config", "-c", help="A YAML file or a shipped name; default: the run's own, or 'world'."
        ),
    ] = None,
    out: OutOption = Path("runs/world"),
    minutes: MinutesOption = None,
    set_: SetOption = None,
) -> None:
    """Learn a world from its clips alone: frames, codes for what is done, and what follows. OUT/world is played.

    No label is read. The same command again resumes an interrupted run.
    """
    from minisora.worlds.world_minutes import train_world_for_minutes
    from minisora.worlds.world_stages import train_world

    check_folder(out)
    resolved = load_config(config or config_of_run(out, "world"), set_, data)
    if resolved.data.source == "shapes":
        raise UserError("say what the world is learned from: --data DIR, such as OUT/clips of record")
    if minutes is None:
        folder = train_world(resolved, out, console)
    else:
        folder = train_world_for_minutes(resolved, out, console, minutes)
    say(console, "World in ", (str(folder), "bold"))


def world_name(
    world: Annotated[Path, typer.Option("--world", help="Folder of a world, OUT/world of its training.")],
    recording: Annotated[
        Path, typer.Option("--recording", help="Recording with its truth, OUT of 'minisora world record'.")
    ],
    labels: Annotated[int, typer.Option(min=1, max=MAX_COUNT, help="How many steps are labelled.")] = 200,
) -> None:
    """Name the codes of a world by a few labelled steps: WORLD/names.json. Nothing is trained on them."""
    from minisora.worlds.labels import name_world

    names = name_world(world, recording, labels)
    for code, (name, row) in enumerate(zip(names.names, names.counts, strict=True)):
        counts = ", ".join(
            f"{button} {count}" for button, count in zip(names.buttons, row, strict=True) if count
        )
        say(console, f"code {code}  ", (name, "bold"), f"  {counts}")


def world_evaluate(
    world: Annotated[Path, typer.Option("--world", help="Folder of a world, OUT/world of its training.")],
    recording: Annotated[
        Path, typer.Option("--recording", help="Recording with its truth that the world was not trained on.")
    ],
    frames: Annotated[
        int, typer.Option(min=1, max=MAX_FRAMES, help="How long the player of the arena is followed.")
    ] = 128,
    json_: JsonOption = None,
) -> None:
    """Measure a world against the truth: what its codes mean, how they steer, where its player goes."""
    import torch

    from minisora.flops.device import describe_device
    from minisora.worlds.dream import load_dream
    from minisora.worlds.measure_world import measure_table, measure_world

    check_output(json_, (".json",))
    result = measure_world(load_dream(world, "cpu"), recording, frames)
    console.print(measure_table(result))
    if json_ is not None:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        write_result(json_, {"date": now, "machine": describe_device("cpu", torch.float32), **result})


def world_export(
    world: Annotated[Path, typer.Option("--world", help="Folder of a world, OUT/world of its training.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the small world.")],
    scores: Annotated[Path | None, typer.Option(help="The JSON of 'minisora world evaluate' on it.")] = None,
) -> None:
    """A world in half precision with a card of what was measured, to pass on."""
    from minisora.worlds.world_folder import export_world

    check_folder(out)
    size = export_world(world, out, scores)
    say(console, f"wrote {out}: {size:.1f} MiB")
