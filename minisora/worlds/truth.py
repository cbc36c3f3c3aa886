"""The sealed side of a recording: which buttons were pressed and what was where, for measuring and never for training.

One file a clip, `TRUTH/NAME.npz` beside `CLIPS/NAME.mp4`, in a folder that is not below that of the clips. Four things
keep it sealed, and tests hold to each: the rooms that train may not import this module, nothing else in the package
opens an npz, the scan of a folder of clips takes no such file, and a training opens none of these even where it is
given the folder above both. Nor do clips tell: names count, captions say what the first frame shows.

An npz is a zip of arrays (numpy.lib.format), read without pickles, so that recorders of other games can write it too.
"""

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minisora.errors import UserError
from minisora.files import write_whole

SUFFIX = ".npz"
# Beside them: what the recording is of.
SETTINGS = "recording.json"
_STATE = "state."


@dataclass(frozen=True)
class Truth:
    """What is true of one clip of T frames.

    Args:
        world: its name, such as "arena".
        policy: who pressed, such as "sticky".
        button_names: by number.
        buttons: T - 1 int64; `buttons[t]` is pressed on frame t and leads to frame t + 1.
        states: arrays by name, what there is to know of the world; of the arena those of `ArenaState.arrays` for one
            arena, the changing ones T long.
    """

    world: str
    policy: str
    button_names: tuple[str, ...]
    buttons: np.ndarray
    states: dict[str, np.ndarray]


def write_truth(file: Path, truth: Truth) -> None:
    """Write it at once; the same truth gives the same bytes.

    Raises:
        UserError: it cannot be written.
    """
    held = io.BytesIO()
    arrays: dict[str, Any] = {
        "world": np.array(truth.world),
        "policy": np.array(truth.policy),
        "button_names": np.array(truth.button_names),
        "buttons": np.asarray(truth.buttons, np.int64),
    }
    np.savez_compressed(held, **arrays | {f"{_STATE}{name}": array for name, array in truth.states.items()})
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, held.getvalue())
    except OSError as error:
        raise UserError(f"cannot write {file}: {error.strerror or error}; free space, then go on") from error


def read_truth(file: Path) -> Truth:
    """Read what `write_truth` wrote.

    Raises:
        UserError: it cannot be read, or holds something else.
    """
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return Truth(
                world=str(arrays["world"]),
                policy=str(arrays["policy"]),
                button_names=tuple(str(name) for name in arrays["button_names"]),
                buttons=arrays["buttons"],
                states={
                    name.removeprefix(_STATE): arrays[name]
                    for name in arrays.files
                    if name.startswith(_STATE)
                },
            )
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror or error}") from error
    except (KeyError, ValueError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise UserError(f"{file} is damaged or no truth of a recording: record the clip again") from error
