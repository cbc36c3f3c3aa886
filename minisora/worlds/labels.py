"""Recorded clips with their truth: what measures a world, and what names its codes, may read; training may not."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, get_args

import numpy as np
from torch import Tensor

from minisora.data.clips import to_float, to_uint8
from minisora.data.video.read_video import probe, read_video
from minisora.errors import UserError
from minisora.files import read_json
from minisora.worlds.actions import ActionModel
from minisora.worlds.arena import ArenaSettings
from minisora.worlds.dream import load_dream
from minisora.worlds.naming import CodeNames, name_codes
from minisora.worlds.policies import PolicyName
from minisora.worlds.truth import SETTINGS, SUFFIX, Truth, read_truth
from minisora.worlds.world_folder import NAMES, find_world


@dataclass(frozen=True)
class LabelledClip:
    """A clip (3 T H W uint8) and what is true of it."""

    video: Tensor
    truth: Truth


def labelled_clips(
    recording: Path, size: tuple[int, int], fps: float | None = None
) -> Iterator[LabelledClip]:
    """The clips of a recording, in the order of their names.

    Args:
        recording: folder with clips/ and truth/, as of `minisora world record`.
        size: (height, width) to which frames are brought.
        fps: frames per second of the world that they are for; None: of none.

    Raises:
        UserError: it is no recording, a clip and its truth do not fit each other, or its steps are not the world's.
    """
    truths = sorted((recording / "truth").glob(f"*{SUFFIX}"))
    if not truths:
        raise UserError(
            f"{recording} is no recording with its truth: it needs clips/ and truth/, as 'minisora world record --out' "
            "writes"
        )
    for file in truths:
        clip = recording / "clips" / f"{file.name.removesuffix(SUFFIX)}.mp4"
        if not clip.is_file():
            raise UserError(f"{clip} is missing, {file} is there: record the clips again")
        truth, about = read_truth(file), probe(clip)
        if about.frames != len(truth.buttons) + 1:
            raise UserError(
                f"{clip} has {about.frames} frames, its truth {len(truth.buttons)} buttons: record the clips again"
            )
        if fps is not None and not math.isclose(about.fps, fps, rel_tol=0.01):
            raise UserError(
                f"{clip} has {about.fps:g} frames a second, the world {fps:g}, so their steps are not the same: train "
                f"the world with clip.fps={about.fps:g}"
            )
        if about.frames < 2:
            raise UserError(f"{clip} has one frame, and no step: leave it out of the recording, and {file}")
        video = read_video(
            clip, frames=about.frames, height=size[0], width=size[1], fps=about.fps, short="error"
        )
        yield LabelledClip(to_uint8(video), truth)


def arena_of(recording: Path) -> ArenaSettings:
    """The kind of arena that was recorded.

    Raises:
        UserError: the recording does not say.
    """
    return _told(
        recording,
        lambda about: ArenaSettings(**{field.name: about[field.name] for field in fields(ArenaSettings)}),
    )


def policy_of(recording: Path) -> PolicyName:
    """Who pressed the buttons of a recording of the arena.

    Raises:
        UserError: the recording does not say.
    """
    policy = _told(recording, lambda about: about["policy"])
    if policy not in get_args(PolicyName):
        raise UserError(
            f"{recording} is a recording by the policy {policy!r}, which is none: record the clips again"
        )
    return policy


def _told(recording: Path, read: Callable[[dict[str, Any]], Any]) -> Any:
    """What the recording says of itself, as `read` has it."""
    file = recording / "truth" / SETTINGS
    try:
        return read(read_json(file))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"{file} does not say what was recorded ({error}): record the clips again") from error


def codes_and_buttons(actions: ActionModel, clip: LabelledClip) -> tuple[np.ndarray, np.ndarray]:
    """The code found and the button pressed for each step of a clip, T - 1 each."""
    codes = actions.codes_of(to_float(clip.video.to(actions.device)))
    return codes.cpu().numpy(), clip.truth.buttons


def draw_labels(steps: int, labels: int, seed: int = 0) -> np.ndarray:
    """Which of so many steps are labelled: all, or so many of them drawn.

    Raises:
        UserError: there are fewer steps.
    """
    if labels > steps:
        raise UserError(
            f"{labels} labels are more than the {steps} steps of the recording: record more clips"
        )
    return np.random.default_rng(seed).permutation(steps)[:labels]


def name_world(world: Path, recording: Path, labels: int) -> CodeNames:
    """Name the codes of a world by some labelled steps, drawn from a recording, and keep the names in its folder.

    Raises:
        UserError: the world or the recording cannot be read, or has too few steps, or the world is a shipped one.
    """
    if find_world(world) != world:
        raise UserError(f"world {world} came with minisora and has its names: name one that you trained")
    dream = load_dream(world, "cpu")
    codes: list[np.ndarray] = []
    buttons: list[np.ndarray] = []
    names: tuple[str, ...] = ()
    # Of several clips, since one shows one arena; of as many as it takes where clips are short.
    for clip in labelled_clips(recording, dream.size, dream.fps):
        for held, found in zip((codes, buttons), codes_and_buttons(dream.actions, clip), strict=True):
            held.append(found)
        names = clip.truth.button_names
        if len(codes) > labels // 8 and sum(map(len, codes)) >= labels:
            break
    found, pressed = np.concatenate(codes), np.concatenate(buttons)
    chosen = draw_labels(len(found), labels)
    table = name_codes(found[chosen], pressed[chosen], dream.num_codes, names)
    try:
        table.write(world / NAMES)
    except OSError as error:
        raise UserError(f"cannot write {world / NAMES}: {error.strerror}; free space") from error
    return table
