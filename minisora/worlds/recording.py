"""Records an arena: clips and captions to train on, and apart from them the truth to measure by.

    OUT/clips/clip_000000.mp4 ...   with metadata.csv: a folder of clips as any other, for `--data OUT/clips`
    OUT/truth/clip_000000.npz ...   buttons and states (`minisora.worlds.truth`)
    OUT/truth/recording.json        what was recorded, to go on with the same

Clip number i is a function of the settings, the policy, the seed and i alone. So a recording that was stopped goes on
behind what is there, and gets the same bytes as one that was not.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from minisora.data.folder.metadata import only_ours, write_metadata
from minisora.data.video.write_video import write_video
from minisora.errors import UserError
from minisora.files import read_json, write_json
from minisora.limits import MAX_COUNT, MAX_FRAMES, check_number, check_seed
from minisora.screen import Progress
from minisora.worlds.arena import BUTTONS, CHANGING, STAYING, Arena, ArenaSettings, ArenaState, restore
from minisora.worlds.policies import PolicyName, goes, make_policy
from minisora.worlds.truth import SETTINGS, SUFFIX, Truth, read_truth, write_truth
from minisora.worlds.world import TrueWorld

# Clips that are played side by side; few enough that their pictures stay in a processor's cache.
_BATCH = 32
MAX_FPS = 120.0


@dataclass(frozen=True)
class Recording:
    """What to record.

    Args:
        arena: the world.
        policy: who presses the buttons.
        frames: of each clip, 2 or more.
        seed: another seed is another recording.
        fps: at which the clips play.

    Raises:
        UserError: a number is out of its range, or a side is odd, which an mp4 cannot hold exactly.
    """

    arena: ArenaSettings
    policy: PolicyName = "mixed"
    frames: int = 32
    seed: int = 0
    fps: float = 10.0

    def __post_init__(self) -> None:
        check_number("frames", self.frames, 2, MAX_FRAMES)
        check_number("fps", self.fps, 0.0, MAX_FPS, above=True)
        check_seed(self.seed)
        if self.arena.height % 2 or self.arena.width % 2:
            raise UserError(
                f"an mp4 needs even sides, not {self.arena.height}x{self.arena.width}: choose even ones"
            )


def play(recording: Recording, indices: Sequence[int]) -> tuple[Tensor, list[Truth], list[str]]:
    """Play these clips.

    Returns:
        Videos `B 3 T H W` uint8, the truth and the caption of each.
    """
    arena = Arena(recording.arena)
    state = arena.start(recording.seed, indices)
    policy = make_policy(recording.policy, arena)
    states, frames, buttons = [state], [arena.render(state)], []
    for _ in range(recording.frames - 1):
        buttons.append(policy.press(state))
        state = arena.step(state, buttons[-1])
        states.append(state)
        frames.append(arena.render(state))
    pressed = np.stack(buttons, axis=1)  # B T-1
    layout = state.layout
    changing = {
        name: np.stack([getattr(each, name) for each in states], axis=1) for name in CHANGING
    }  # B T ...
    gone = goes(layout)
    truths = [
        Truth(
            "arena",
            ("goal" if gone[row] else "sticky") if recording.policy == "mixed" else recording.policy,
            BUTTONS,
            pressed[row],
            {name: getattr(layout, name)[row] for name in STAYING}
            | {name: array[row] for name, array in changing.items()},
        )
        for row in range(len(state))
    ]
    return torch.stack(frames, dim=2), truths, arena.captions(layout)


def state_at(truth: Truth, frame: int) -> ArenaState:
    """The true state of a recorded arena at a frame, as a batch of one: to be stepped on, or drawn."""
    return restore(
        {
            name: np.asarray(array)[None] if name in STAYING else array[frame][None]
            for name, array in truth.states.items()
        }
    )


def true_world_at(clip: Path, frame: int) -> TrueWorld | None:
    """The true arena that begins at a frame of a recorded clip; None of a clip that `record` did not write.

    Args:
        clip: the mp4.
        frame: which; of a shorter clip its last one.

    Raises:
        UserError: what was recorded with it is damaged.
    """
    truth = clip.parent.parent / "truth"
    file, about = truth / f"{clip.stem}{SUFFIX}", truth / SETTINGS
    if not (file.is_file() and about.is_file()):
        return None
    try:
        known = read_json(about)
        if known["world"] != "arena":
            return None
        settings = ArenaSettings(**{field.name: known[field.name] for field in fields(ArenaSettings)})
        recorded = read_truth(file)
        state = state_at(recorded, min(frame, len(recorded.buttons)))
        return TrueWorld(settings, state, float(known["fps"]))
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise UserError(f"{about} or {file.name} is damaged: record the clips again") from error


def record(
    recording: Recording,
    num_clips: int,
    out: Path,
    truth: Path | None = None,
    progress: Progress | None = None,
) -> Path:
    """Write so many clips with captions below OUT/clips, and what is true of them to another folder.

    Args:
        recording: what.
        num_clips: how many; those that are there are not written again.
        out: the folder; what it holds of the same recording goes on.
        truth: folder of the truth; None: OUT/truth.
        progress: called with (clips done, clips in all).

    Returns:
        The folder of the clips.

    Raises:
        UserError: OUT/clips holds other things, the truth would lie among the clips, the recording there is of
            other settings, or the disk is full; what is written stays.
    """
    check_number("clips", num_clips, 1, MAX_COUNT)
    clips, truth = out / "clips", truth or out / "truth"
    if truth.resolve().is_relative_to(clips.resolve()):
        raise UserError(
            f"{truth} is where training reads, and the truth is not for it: choose another folder"
        )
    names = [f"clip_{index:06d}" for index in range(num_clips)]
    only_ours(clips, {*(f"{name}.mp4" for name in names), "metadata.csv"})
    if not (truth / SETTINGS).is_file() and any((clips / f"{name}.mp4").exists() for name in names):
        raise UserError(
            f"{clips} holds clips of a recording that {truth} knows nothing of: choose another --out"
        )
    _same_recording(truth, recording)

    def whole(name: str) -> bool:
        return (clips / f"{name}.mp4").is_file() and (truth / f"{name}{SUFFIX}").is_file()

    missing = [index for index in range(num_clips) if not whole(names[index])]
    if progress:
        progress(num_clips - len(missing), num_clips)
    for start in range(0, len(missing), _BATCH):
        indices = missing[start : start + _BATCH]
        videos, truths, _ = play(recording, indices)
        for row, index in enumerate(indices):
            write_truth(truth / f"{names[index]}{SUFFIX}", truths[row])
            write_video(clips / f"{names[index]}.mp4", videos[row], recording.fps)
            if progress:
                progress(num_clips - len(missing) + start + row + 1, num_clips)
    arena = Arena(recording.arena)
    captions = arena.captions(arena.start(recording.seed, range(num_clips)).layout)
    rows = zip((f"{name}.mp4" for name in names), captions, strict=True)
    write_metadata(clips / "metadata.csv", ("file_name", "text"), rows)
    return clips


def _same_recording(truth: Path, recording: Recording) -> None:
    """Write down what is recorded, or compare it with what was; raises UserError where they differ."""
    wanted: dict[str, Any] = {"world": "arena", **asdict(recording)}
    wanted |= wanted.pop("arena")
    file = truth / SETTINGS
    if not file.is_file():
        try:
            truth.mkdir(parents=True, exist_ok=True)
            write_json(file, wanted)
        except OSError as error:
            raise UserError(f"cannot write {file}: {error.strerror}; choose another --out") from error
        return
    try:
        known = read_json(file)
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read ({error}): choose another --out") from error
    known = known if isinstance(known, dict) else {}
    other = [
        f"{key} {known.get(key)}, not {value}" for key, value in wanted.items() if known.get(key) != value
    ]
    if other:
        raise UserError(f"{truth.parent} is a recording with {'; '.join(other)}: choose another --out")
