"""How far a dream is from the truth: what its codes mean, how much they steer, and where its player goes.

Every measure stands beside what could be had without it: the most common button, codes drawn at random, a player that
never moves. The truth is exact, since the arena can be stepped beside the dream under the same buttons.

Letters: B worlds, T frames, L labels.
"""

import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minisora.data.clips import to_float
from minisora.data.draws import rng
from minisora.data.shapes_world.grammar import COLORS
from minisora.errors import UserError
from minisora.models.causal_conv import FrameConv, ResBlock
from minisora.screen import Table
from minisora.worlds.actions import ActionModel
from minisora.worlds.arena import (
    BUTTONS,
    PLAYER_COLORS,
    PLAYER_RADIUS,
    Arena,
    ArenaSettings,
    ArenaState,
    restore,
)
from minisora.worlds.dream import Dream
from minisora.worlds.labels import LabelledClip, arena_of, codes_and_buttons, draw_labels, labelled_clips
from minisora.worlds.naming import name_codes
from minisora.worlds.policies import make_policy
from minisora.worlds.recording import state_at

LABELS = (20, 200, 2000)
# Clips that are measured on, beside those that labels are drawn from.
_NUM_TESTED = 64
# Steps of a supervised network, and of a batch.
_SUPERVISED_STEPS, _SUPERVISED_BATCH = 300, 32
# Frames that are seen before a dream begins, where more than one is, and steps after them (Genie's t = 4).
_SEEN, _DELTA = 4, 4
# Steps that fill the window of the past and are not timed, and those that are.
_WARM, _TIMED = 8, 32
# Pixels: places nearer to each other than this look alike.
_SEEN_APART = 0.5
# Pixels: a step shorter than this is no movement.
_MOVES = 1.0
# Part of a player's disc of which fewer pixels are no player.
_LEAST_PLAYER = 0.1
# Steps after which it is told where the player is.
_MARKS = (1, 8, 32, 128, 256, 512)


def measure_world(
    dream: Dream, recording: Path, frames: int, labels: Sequence[int] = LABELS
) -> dict[str, Any]:
    """All measures as numbers by name, for JSON.

    Args:
        dream: the world.
        recording: with its truth, of clips that it was not trained on.
        frames: how long the player is followed in the arena.
        labels: numbers of labelled steps that codes are named by.

    Raises:
        UserError: the recording cannot be read, or is too small.
    """
    clips = list(labelled_clips(recording, dream.size, dream.fps))
    tested = clips[: min(_NUM_TESTED, len(clips) // 2)]
    if len(tested) < 1:
        raise UserError(f"{recording} has {len(clips)} clip: record two or more")
    named = clips[len(tested) :]
    _check_enough(recording, named, tested, labels)
    result: dict[str, Any] = {
        "clips": len(tested),
        "decoding": decoding(dream.actions, named, tested, labels, _shown(tested, recording)),
        "delta_psnr": delta_psnr(dream, tested),
        "seconds_a_frame": seconds_a_frame(dream, tested[0].video[:, 0]),
    }
    if tested[0].truth.world == "arena" and dream.code_names is not None:
        result["player"] = follow_player(dream, tested, arena_of(recording), frames)
    return result


def _check_enough(
    recording: Path, named: Sequence[LabelledClip], tested: Sequence[LabelledClip], labels: Sequence[int]
) -> None:
    """Raise UserError, before anything is measured, where steps are too few for any labels or clips too short."""
    steps, fewest = sum(len(clip.truth.buttons) for clip in named), min(labels)
    if steps < fewest:
        raise UserError(
            f"{recording} has {steps} steps beside those that are measured, too few for {fewest} labels: record more "
            "clips"
        )
    longest, length = max(clip.video.shape[1] for clip in tested), _SEEN + _DELTA
    if longest < length:
        raise UserError(
            f"{recording} has clips of {longest} frames, and control is measured on {length}: record longer ones"
        )


def _shown(tested: Sequence[LabelledClip], recording: Path) -> np.ndarray | None:
    """Whether each step shows its button: no other one would have led to the same frame, as at a wall many do.

    Only the arena can be asked; None for other worlds.
    """
    if tested[0].truth.world != "arena":
        return None
    arena, shown = Arena(arena_of(recording)), []
    for clip in tested:
        buttons = clip.truth.buttons
        state = _together([state_at(clip.truth, frame) for frame in range(len(buttons))])
        ends = np.stack(
            [arena.step(state, np.full(len(buttons), button)).player for button in range(len(BUTTONS))]
        )  # buttons T-1 2
        own = ends[buttons, np.arange(len(buttons))]
        alike = np.abs(ends - own).max(-1) < _SEEN_APART  # buttons T-1
        shown.append(alike.sum(0) == 1)
    return np.concatenate(shown)


def decoding(
    actions: ActionModel,
    named: Sequence[LabelledClip],
    tested: Sequence[LabelledClip],
    labels: Sequence[int],
    shown: np.ndarray | None = None,
) -> dict[str, Any]:
    """Share of steps whose button is told by its code, by how many labels named the codes; and what others reach.

    Args:
        actions: what finds codes.
        named: clips that labels are drawn from.
        tested: clips that are judged.
        labels: how many labels; of more than there are steps, that they were left out is all that is told.
        shown: which steps of `tested` show their button, if that is known: shares of these alone are told too.
    """
    (codes, buttons), (seen, pressed) = (_joined(actions, part) for part in (named, tested))
    names = tested[0].truth.button_names
    common = np.bincount(buttons, minlength=len(names)).argmax()
    by_labels: dict[str, Any] = {}
    too_many = [each for each in labels if each > len(codes)]
    for count in (each for each in labels if each not in too_many):
        chosen = draw_labels(len(codes), count)
        table = name_codes(codes[chosen], buttons[chosen], actions.config.codes, names)
        by_labels[str(count)] = {}
        for name, right in (
            ("codes", np.array(table.meanings)[seen] == pressed),
            ("supervised", supervised(actions, named, tested, chosen) == pressed),
        ):
            by_labels[str(count)][name] = float(right.mean())
            if shown is not None:
                by_labels[str(count)][f"{name}_where_shown"] = float(right[shown].mean())
    used = np.bincount(seen, minlength=actions.config.codes)
    return {
        "labels": by_labels,
        "majority": float((pressed == common).mean()),
        "chance": 1 / len(names),
        "codes_used": int((used > 0.01 * used.sum()).sum()),
        "steps": len(seen),
        "steps_for_labels": len(codes),
        "labels_left_out": too_many,
        "shown": None if shown is None else float(shown.mean()),
    }


def _joined(actions: ActionModel, clips: Sequence[LabelledClip]) -> tuple[np.ndarray, np.ndarray]:
    pairs = [codes_and_buttons(actions, clip) for clip in clips]
    return np.concatenate([each[0] for each in pairs]), np.concatenate([each[1] for each in pairs])


class _InverseDynamics(nn.Module):
    """The button of a step from three frames, learned from labels alone; the size of the model that finds codes."""

    def __init__(self, width: int, cell: int, buttons: int):
        super().__init__()
        self.see = FrameConv(3 * cell, width)
        self.blocks = nn.ModuleList(ResBlock(width, mixes_frames=False) for _ in range(2))
        self.say = nn.Linear(2 * width, buttons)

    def forward(self, cells: Tensor) -> Tensor:
        """Logits (B buttons) of steps, B 3 h w c."""
        before, now, then = cells.unbind(1)
        x = self.see(torch.cat([now, now - before, then - now], dim=-1)[:, None])  # B 1 h w C
        for block in self.blocks:
            x = block(x)
        x = F.silu(x).flatten(1, 3)  # B (h w) C
        return self.say(torch.cat([x.amax(1), x.mean(1)], dim=-1))


def supervised(
    actions: ActionModel, named: Sequence[LabelledClip], tested: Sequence[LabelledClip], chosen: np.ndarray
) -> np.ndarray:
    """The button of each step of `tested`, by inverse dynamics learned from the same labels.

    Args:
        actions: whose view of frames is taken.
        named: clips that labels are drawn from.
        tested: clips that are judged.
        chosen: the labelled steps of `named`, counted through.
    """
    lengths = [len(clip.truth.buttons) for clip in named]
    ends = np.cumsum(lengths)
    cells, buttons = [], []
    for step in np.sort(chosen):
        row = int(np.searchsorted(ends, step, side="right"))
        at = int(step - (ends[row] - lengths[row]))
        cells.append(actions.cells(_steps(named[row].video)[at : at + 1]))
        buttons.append(int(named[row].truth.buttons[at]))
    known, target = torch.cat(cells), torch.tensor(buttons)
    draws = rng(0, 1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        width, names = int(actions.config.width), tested[0].truth.button_names
        model = _InverseDynamics(width, known.shape[-1], len(names))
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.05)
    for _ in range(_SUPERVISED_STEPS):
        rows = torch.from_numpy(draws.integers(len(known), size=_SUPERVISED_BATCH))
        loss = F.cross_entropy(model(known[rows]), target[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        said = [model(actions.cells(_steps(clip.video))).argmax(1).numpy() for clip in tested]
    return np.concatenate(said)


def _steps(video: Tensor) -> Tensor:
    """The steps of a clip (3 T H W uint8): before, now and next of each, T-1 3 3 H W in [-1, 1]."""
    clip = to_float(video)
    first = torch.cat([clip[:, :1], clip[:, :-2]], dim=1)
    return torch.stack([first, clip[:, :-1], clip[:, 1:]], dim=2).transpose(0, 1)


def delta_psnr(dream: Dream, tested: Sequence[LabelledClip]) -> dict[str, float]:
    """Control as Genie measures it (arXiv 2402.15391): PSNR of the fourth frame by the codes found, less by others.

    Args:
        dream: the world.
        tested: clips, of which those of eight frames or more are measured on; one at least.

    Returns:
        dB, means over the clips: "found" and "random" codes, "one" code throughout, the most common, "copy" of the last
        frame seen, and "delta", the first less the second; and how many "clips".
    """
    length = _SEEN + _DELTA
    long_enough = [clip for clip in tested if clip.video.shape[1] >= length]
    videos = torch.stack([clip.video[:, :length] for clip in long_enough])  # B 3 T H W
    if dream.settings.told:
        # Its codes are the buttons, and what finds codes knows nothing of them.
        found_codes = [clip.truth.buttons for clip in long_enough]
        known = len(tested[0].truth.button_names)
    else:
        found_codes = [dream.actions.codes_of(to_float(video)).numpy() for video in videos]
        known = dream.num_codes
    codes = np.stack([each[_SEEN - 1 : length - 1] for each in found_codes])  # B 4
    random = rng(0, 2).integers(known, size=codes.shape)
    one = np.full_like(codes, np.bincount(codes.ravel()).argmax())
    last = videos[:, :, -1]
    found: dict[str, float] = {}
    for name, pressed in (("found", codes), ("random", random), ("one", one)):
        dream.start(videos[:, :, :_SEEN])
        frame = last
        for at in range(_DELTA):
            frame = dream.step(pressed[:, at])
        found[name] = float(_psnr(frame, last).mean())
    found["copy"] = float(_psnr(videos[:, :, _SEEN - 1], last).mean())
    found["delta"] = found["found"] - found["random"]
    found["clips"] = len(videos)
    return found


def _psnr(made: Tensor, real: Tensor) -> Tensor:
    """dB of frames B 3 H W uint8, B."""
    errors = (made.float() - real.float()).square().flatten(1).mean(1).clamp_min(1e-3)
    return 10 * torch.log10(255**2 / errors)


def seconds_a_frame(dream: Dream, first: Tensor) -> float:
    """Median time of a step of one world that begins with a frame, 3 H W, its decoding included."""
    dream.start(first[None])
    taken = []
    for _ in range(_WARM + _TIMED):
        begun = time.perf_counter()
        dream.step([0])
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken[_WARM:])


def follow_player(
    dream: Dream, tested: Sequence[LabelledClip], settings: ArenaSettings, frames: int
) -> dict[str, Any]:
    """Dream and truth from the same frames under the same buttons: where the player is, and which way it goes.

    Args:
        dream: with named codes.
        tested: clips of the arena, whose first frames are begun with.
        settings: of the arena.
        frames: how many steps.
    """
    assert dream.code_names is not None
    arena = Arena(settings)
    state = _together([state_at(clip.truth, 0) for clip in tested])
    policy = make_policy("sticky", arena)
    press = dream.code_names.pressed
    missing = [name for name in BUTTONS if name not in press]
    first = torch.stack([clip.video[:, 0] for clip in tested])  # B 3 H W
    dream.start(first)
    start = state.player.copy()
    errors, floor, stays, right, moves = [], [], [], [], []
    alone: dict[str, float] = {}
    place = locate(first, state, settings)
    marks = [at for at in _MARKS if at <= frames]
    for number in range(1, frames + 1):
        buttons = policy.press(state)
        before, state = state, arena.step(state, buttons)
        # A button that no code means is not pressed: its code is that of doing nothing, or any.
        codes = [press.get(BUTTONS[button], press.get("noop", 0)) for button in buttons]
        shown = dream.step(codes)
        last, place = place, locate(shown, state, settings)
        errors.append(_apart(place, state.player))
        if number in marks:
            alone[str(number)] = float((count_players(shown, state, settings) == 1).mean())
        stays.append(_apart(start, state.player))
        floor.append(_apart(locate(arena.render(state), state, settings), state.player))
        true_way, way = state.player - before.player, place - last
        moved = np.abs(true_way).max(1) > _MOVES
        moves.append(np.where(moved, _quadrant(before.player, settings), -1))
        right.append(_direction(way) == _direction(true_way))
    distance, moved_in, same = np.stack(errors), np.stack(moves), np.stack(right)
    # A quarter of a way is judged while both are at nearly the same place.
    near = distance[:32] < 8
    return {
        "buttons_without_a_code": missing,
        # None where the player is gone from half of the dreams.
        "median_error": {str(at): _median(distance[at - 1]) for at in marks},
        "median_error_staying": {str(at): _median(np.stack(stays)[at - 1]) for at in marks},
        "floor": _median(np.stack(floor)),
        "player_there": {str(at): float(np.isfinite(distance[at - 1]).mean()) for at in marks},
        "one_player": alone,
        "direction_right": [_share(same[:32], (moved_in[:32] == quadrant) & near) for quadrant in range(4)],
    }


def _median(distances: np.ndarray) -> float | None:
    middle = float(np.median(distances))
    return middle if np.isfinite(middle) else None


def _share(right: np.ndarray, which: np.ndarray) -> float | None:
    return float(right[which].mean()) if which.any() else None


def _together(states: Sequence[ArenaState]) -> ArenaState:
    """Single arenas as one batch."""
    arrays = [state.arrays() for state in states]
    return restore({name: np.concatenate([each[name] for each in arrays]) for name in arrays[0]})


def locate(frames: Tensor, state: ArenaState, settings: ArenaSettings) -> np.ndarray:
    """Where the player is seen in frames (B 3 H W uint8): B 2 (y, x), NaN where it is not.

    The centre of the pixels whose colour is nearer to the player's than to any other there is.
    """
    mine = _player_pixels(frames, state).double()  # B H W
    rows, columns = (torch.arange(side).double() for side in frames.shape[-2:])
    count = mine.sum((1, 2))
    place = torch.stack([(mine.sum(2) @ rows), (mine.sum(1) @ columns)], dim=1) / count[:, None]
    place[count < _least_pixels(settings)] = torch.nan
    return place.numpy()


def count_players(frames: Tensor, state: ArenaState, settings: ArenaSettings) -> np.ndarray:
    """How many players are seen in frames (B 3 H W uint8), B: connected regions of its colour that are no specks."""
    mine = _player_pixels(frames, state)  # B H W
    # Every pixel takes the greatest number of its region.
    number = torch.arange(1.0, mine[0].numel() + 1).view(mine.shape[1:]) * mine  # B H W
    while not (spread := F.max_pool2d(number, 3, stride=1, padding=1) * mine).equal(number):
        number = spread
    least = _least_pixels(settings)
    sizes = [each[each > 0].unique(return_counts=True)[1] for each in number]
    return np.array([int((size >= least).sum()) for size in sizes])


def _player_pixels(frames: Tensor, state: ArenaState) -> Tensor:
    """Which pixels of frames (B 3 H W uint8) are nearer to the player's colour than to any other, B H W bool."""
    layout = state.layout
    others = [
        np.broadcast_to(np.array(COLORS[name]), (len(state), 3)) for name in ("white", "purple", "yellow")
    ]
    others += [layout.background, np.repeat(layout.wall_grey[:, None], 3, axis=1)]
    own = np.array([COLORS[name] for name in PLAYER_COLORS])[layout.color]
    palette = torch.from_numpy(np.stack([own, *others], axis=1)).float()  # B P 3
    pixels = frames.float().flatten(2).transpose(1, 2) / 255  # B (H W) 3
    return (torch.cdist(pixels, palette).argmin(-1) == 0).unflatten(1, frames.shape[-2:])


def _least_pixels(settings: ArenaSettings) -> float:
    return float(_LEAST_PLAYER * np.pi * (PLAYER_RADIUS * settings.side) ** 2)


def _apart(place: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Distance in pixels; infinite where there is no player."""
    return np.nan_to_num(np.sqrt(((place - true) ** 2).sum(1)), nan=np.inf)


def _quadrant(place: np.ndarray, settings: ArenaSettings) -> np.ndarray:
    """0 to 3: above left, above right, below left, below right."""
    middle = np.array([settings.height, settings.width]) / 2
    lower = place >= middle
    return 2 * lower[:, 0] + lower[:, 1]


def _direction(way: np.ndarray) -> np.ndarray:
    """0 to 3 by the larger part of a way, -1 where it is none."""
    way = np.nan_to_num(way)
    axis = np.abs(way).argmax(1)
    along = np.take_along_axis(way, axis[:, None], 1)[:, 0]
    return np.where(np.abs(along) > _MOVES, 2 * axis + (along > 0), -1)


def measure_table(result: dict[str, Any]) -> Table:
    """The measures for the screen."""
    table = Table(title=f"{result['clips']} clips that were not trained on", title_justify="left")
    table.add_column("")
    table.add_column("here", justify="right")
    table.add_column("beside it")
    told = result["decoding"]
    for count, each in told["labels"].items():
        table.add_row(
            f"buttons told by codes, {count} labels",
            f"{each['codes']:.1%}",
            f"{each['supervised']:.1%} supervised by the same labels",
        )
        if told["shown"] is not None:
            table.add_row(
                f"  of the {told['shown']:.0%} of steps that show their button",
                f"{each['codes_where_shown']:.1%}",
                f"{each['supervised_where_shown']:.1%} supervised",
            )
    if told.get("labels_left_out"):
        counts = " and ".join(map(str, told["labels_left_out"]))
        table.add_row(f"{counts} labels", "-", f"there are {told['steps_for_labels']:,} steps to label")
    table.add_row(
        "codes in use",
        str(told["codes_used"]),
        f"most common button {told['majority']:.1%}, chance {told['chance']:.1%}",
    )
    control = result["delta_psnr"]
    table.add_row(
        "PSNR of the fourth frame, dB",
        f"{control['found']:.2f}",
        f"{control['random']:.2f} by random codes (delta {control['delta']:.2f}), {control['one']:.2f} by one code, "
        f"{control['copy']:.2f} copied",
    )
    speed = result["seconds_a_frame"]
    table.add_row("seconds a frame", f"{speed:.3f}", f"{1 / speed:.0f} frames a second")
    player = result.get("player")
    if player:
        for at, error in player["median_error"].items():
            table.add_row(
                f"player off after {at} frames, pixels",
                "gone" if error is None else f"{error:.1f}",
                f"{player['median_error_staying'][at]:.1f} if it stayed; there in {player['player_there'][at]:.0%}, "
                f"exactly one in {player['one_player'][at]:.0%}",
            )
        shares = ["-" if each is None else f"{each:.0%}" for each in player["direction_right"]]
        table.add_row("direction right, four quadrants", " ".join(shares), "")
    return table
