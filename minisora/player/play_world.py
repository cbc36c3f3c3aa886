"""Put a game together as it was asked for, and play it in the terminal or on the page; or play a session again."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.console import Console

from minisora.errors import UserError
from minisora.screen import plain, say
from minisora.worlds.arena import ArenaSettings
from minisora.worlds.first_frames import BEFORE, of_clip, of_picture, of_prompt
from minisora.worlds.game import Beginning, Game
from minisora.worlds.play import Loop
from minisora.worlds.recording import true_world_at
from minisora.worlds.session import read_session, saved_line, write_session
from minisora.worlds.world import TrueWorld, World

ARENA = "arena"
# Steps after which a replay tells how far the dream is from the truth.
_TOLD = (1, 32, 128)


@dataclass(frozen=True)
class Start:
    """Where to begin: at most one of picture, clip and prompt.

    Args:
        seed: of the world, and of what is drawn.
        picture, clip: files.
        prompt: for the text model to draw.
        model: the text model, a folder or a shipped one.
    """

    seed: int = 0
    picture: Path | None = None
    clip: Path | None = None
    prompt: str | None = None
    model: Path = Path("toy")


@dataclass(frozen=True)
class Screen:
    """Where to play: in this terminal, or on a page at an address and port, as `minisora.serve.loopback.run` takes."""

    terminal: bool = False
    host: str | None = None
    port: int = 0


def play(
    name: str,
    arena: ArenaSettings,
    beside: bool,
    start: Start,
    screen: Screen,
    fps: float | None,
    out: Path,
    console: Console,
) -> None:
    """Play until the person ends it.

    Args:
        name: "arena", or the folder of a world.
        arena: of which kind it is, played or beside.
        beside: show the arena beside a dream.
        start: where to begin.
        screen: where to play.
        fps: steps a second; None: the world's own pace.
        out: folder of what is saved.
        console: where the address of the page is told.

    Raises:
        UserError: the world or the first frame cannot be read, do not fit, or there is no terminal or server.
    """
    # Said before a world is read, which takes seconds.
    if screen.terminal:
        from minisora.player.terminal import TerminalPlayer, check_terminal

        check_terminal()
    else:
        from minisora.serve.loopback import need_server

        need_server("the page")
    game = make_game(name, arena, beside, start)
    loop = Loop(game, fps)
    save = partial(save_session, loop, name, out)
    # A person begins, by a key.
    loop.pause(True)
    with loop:
        if screen.terminal:
            import sys

            TerminalPlayer(
                loop, lambda: saved_line(game, save()), sys.stdin.fileno(), sys.stdout.fileno()
            ).play()
            return
        from minisora.player.play_app import play_app
        from minisora.serve.loopback import run

        draw: Callable[[str, World, int], Beginning] = partial(of_prompt, model=start.model)
        app = play_app(loop, name, save, None if isinstance(game.world, TrueWorld) else draw)
        run(
            app,
            screen.host,
            screen.port,
            announce=lambda address: say(console, "open ", (address, "bold"), " (Ctrl-C ends it)"),
        )


def make_game(name: str, arena: ArenaSettings, beside: bool, start: Start) -> Game:
    """The game, begun; arguments and errors as of `play`."""
    if name == ARENA:
        if beside:
            raise UserError("--beside shows the arena beside a dream: give the folder of a world")
        if start.picture is not None or start.prompt is not None:
            given = "--picture" if start.prompt is None else "--prompt"
            raise UserError(
                f"{given} begins a dream; the arena begins by its rules: give the folder of a world, or --seed"
            )
        game = Game(TrueWorld(arena) if start.clip is None else _recorded(start.clip))
        words = "" if start.clip is None else f"the clip {plain(start.clip.name)}"
        game.begin(Beginning(start.seed, words=words))
        return game
    world = open_world(name)
    game = Game(world, TrueWorld(arena, fps=world.fps) if beside else None)
    if start.picture is not None:
        beginning = of_picture(start.picture, world, start.seed)
    elif start.clip is not None:
        beginning = of_clip(start.clip, world, start.seed)
    elif start.prompt is not None:
        beginning = of_prompt(start.prompt, world, start.seed, start.model)
    else:
        beginning = Beginning(start.seed)
    game.begin(beginning)
    return game


def _recorded(clip: Path) -> TrueWorld:
    """The arena at a frame of a clip of it."""
    world = true_world_at(clip, BEFORE)
    if world is None:
        raise UserError(
            f"{clip} was not recorded by 'minisora world record arena', so its state is not known: give such a clip"
        )
    return world


def open_world(name: str) -> World:
    """The dream in a folder; raises UserError if it is none."""
    # What it is made of takes seconds to load, and the arena needs none of it.
    from minisora.worlds.dream import load_dream

    return load_dream(Path(name))


def save_session(loop: Loop, name: str, out: Path) -> Path:
    """Write what was played since the beginning, at the pace that it is played at now; arguments as of `play`.

    Returns:
        The mp4.

    Raises:
        UserError: as of `write_session`.
    """
    return write_session(out, loop.game.played(), name, loop.fps)


def replay_session(file: Path, name: str, out: Path) -> str:
    """Press the buttons of a session again, in a world beside the true one that the session knows.

    Args:
        file: of the session.
        name: "arena" for the true one alone, or the folder of a world.
        out: folder of the video.

    Returns:
        What came of it, in a line.

    Raises:
        UserError: the session cannot be read, or does not fit the world.
    """
    session = read_session(file)
    world = None if name == ARENA else open_world(name)
    played = session.replay(world)
    told = f"wrote {write_session(out, played, name, session.fps)}"
    if world is None or not played.true_frames:
        return told
    if missing := sorted(set(session.buttons) - set(world.buttons)):
        told += f"; no code means {', '.join(missing)}, so the dream did nothing there"
    last = len(played.buttons)
    steps = sorted({min(step, last) for step in (*_TOLD, last)})
    drift = played.drift()
    likeness = [f"{drift[step]:.1f} dB and {_far(played.off[step])} at step {step}" for step in steps]
    return f"{told}; the dream against the truth: {', '.join(likeness)}"


def _far(off: float | None) -> str:
    return "no player" if off is None or off == math.inf else f"its player {off:.1f} px off"
