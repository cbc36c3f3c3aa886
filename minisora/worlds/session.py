"""A session that was played, in two files: what was seen as NAME.mp4, and what was pressed as NAME.session.json.

The second holds where it began and every button, so that the session can be played again: in the same world, in
another one, or in a dream beside the true world. It lies beside clips as no caption does, and no training reads it.
"""

import base64
import io
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from minisora.data.video.write_video import write_video
from minisora.errors import UserError
from minisora.files import read_json, write_json
from minisora.run_metrics import number
from minisora.screen import plain
from minisora.worlds.arena import ArenaSettings, restore
from minisora.worlds.game import MAX_KEPT, Beginning, Game, Played
from minisora.worlds.world import TrueWorld, World

SUFFIX = ".session.json"
_FORMAT = 1
_LAST_NUMBER = 999_999


@dataclass(frozen=True)
class Session:
    """What is needed to play a session again.

    Args:
        world: as it was named, such as "arena".
        fps: at which it was played.
        beginning: where it began; with the true world where there was one.
        buttons: names, of the button pressed on each frame but the last.
    """

    world: str
    fps: float
    beginning: Beginning
    buttons: tuple[str, ...]

    def replay(self, world: World | None = None) -> Played:
        """The same buttons from the same beginning.

        Args:
            world: that is played, beside the true one where the session has one; None: the true one alone.

        Raises:
            UserError: the world lacks a button or shows frames of another size, or there is no true world.
        """
        begins = self.beginning
        if world is None:
            if begins.truth is None:
                raise UserError(
                    f"the session in '{self.world}' has no true world: name a world to play it in"
                )
            world, begins = begins.truth, Beginning(begins.seed, words=begins.words)
        game = Game(world)
        game.begin(begins)
        for button in self.buttons:
            game.step(button)
        return game.played()


def write_session(folder: Path, played: Played, world: str, fps: float) -> Path:
    """Write a session under the next free name.

    Args:
        folder: where; made if need be.
        played: what was played.
        world: its name, for people.
        fps: at which it plays.

    Returns:
        The mp4.

    Raises:
        UserError: nothing was pressed yet, or the files cannot be written.
    """
    if not played.buttons:
        raise UserError("nothing was pressed yet: play first, then save")
    beginning = played.beginning
    side: dict[str, Any] = {
        "format": _FORMAT,
        "world": world,
        "fps": fps,
        "seed": beginning.seed,
        "words": beginning.words,
        "frames": None if beginning.frames is None else [_png(frame) for frame in beginning.frames.unbind(1)],
        "arena": None,
        "buttons": played.buttons,
    }
    if played.arena is not None:
        arrays = {
            name: {"type": str(array.dtype), "shape": list(array.shape), "values": array.ravel().tolist()}
            for name, array in played.arena.state.arrays().items()
        }
        side["arena"] = {"settings": asdict(played.arena.arena.settings), "state": arrays}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = next(
            file
            for number in range(1, _LAST_NUMBER)
            if not (file := folder / f"played_{number:06d}.mp4").exists()
        )
        write_json(file.with_suffix(SUFFIX), side)
    except OSError as error:
        raise UserError(f"cannot write in {folder}: {error.strerror}; choose another --out") from error
    write_video(file, played.video(), fps)
    return file


def saved_line(game: Game, file: Path) -> str:
    """What a person is told of a session that was saved."""
    left_out = f": the first {MAX_KEPT:,} of {game.steps:,} steps" if game.steps > MAX_KEPT else ""
    return f"saved {plain(str(file))}{left_out}"


def read_session(file: Path) -> Session:
    """Read what `write_session` wrote beside a video.

    Args:
        file: NAME.session.json, or NAME.mp4 beside it.

    Raises:
        UserError: it cannot be read, or is no session.
    """
    if not file.name:
        raise UserError(f"'{file}' is no file: give one of 'minisora world play'")
    if not file.name.endswith(SUFFIX):
        file = file.with_suffix(SUFFIX)
    try:
        side = read_json(file)
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"{file} is damaged ({error}): play the session again") from error
    try:
        if side["format"] != _FORMAT:
            raise UserError(
                f"{file} has format {side['format']}, not {_FORMAT}: play it with another version"
            )
        buttons = side["buttons"]
        if not isinstance(buttons, list) or not all(isinstance(name, str) for name in buttons):
            raise ValueError("no list of buttons")
        if len(buttons) > MAX_KEPT:
            raise ValueError("more buttons than are kept")
        seen, arena, fps = side["frames"], side["arena"], number(side["fps"])
        if fps is None or fps <= 0:
            raise ValueError("no frame rate")
        frames = None if seen is None else torch.stack([_pixels(text) for text in seen], dim=1)
        truth = None if arena is None else _true_world(arena, fps)
        beginning = Beginning(side["seed"], frames, truth, str(side["words"]))
        return Session(str(side["world"]), fps, beginning, tuple(buttons))
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise UserError(f"{file} is no session that was played: give one of 'minisora world play'") from error


def _true_world(kept: dict[str, Any], fps: float) -> TrueWorld:
    arrays = {
        str(name): np.array(array["values"], np.dtype(array["type"])).reshape(array["shape"])
        for name, array in kept["state"].items()
    }
    return TrueWorld(ArenaSettings(**kept["settings"]), restore(arrays), fps)


def _png(frame: Tensor) -> str:
    """A frame `3 H W`, uint8, as PNG in base64."""
    held = io.BytesIO()
    Image.fromarray(frame.permute(1, 2, 0).contiguous().numpy()).save(held, "PNG")
    return base64.b64encode(held.getvalue()).decode()


def _pixels(text: str) -> Tensor:
    """The other way; raises ValueError or OSError."""
    with Image.open(io.BytesIO(base64.b64decode(text, validate=True)), formats=["PNG"]) as image:
        return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
