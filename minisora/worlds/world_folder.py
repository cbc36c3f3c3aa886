"""The folder of a world: its files, those that came with minisora, and how one is made small enough to pass on.

    WORLD/world.json            what it is: format, size, frames per second, sampling steps, context noise
         /starts.safetensors    first frames of some of the clips it was learned from
         /vae/  dit/  actions/  the frames, what follows, and what finds the code of a step
         /names.json            names of the codes, if they were named (`minisora world name`)
         /README.md             a card, if it was exported

Torch is not needed to find one.
"""

import shlex
from pathlib import Path
from typing import Any

from minisora.errors import UserError
from minisora.files import SUMS, read_json, replace_folder, write_whole
from minisora.screen import plain

# A folder each, as `minisora world train` writes RUN/world.
WORLDS = Path(__file__).resolve().parents[1] / "weights" / "worlds"
ABOUT, NAMES, STARTS = "world.json", "names.json", "starts.safetensors"
_CARD = "README.md"
_PARTS = ("vae", "dit", "actions")
# That `minisora world name` asks for where nothing is said.
_LABELS = 200


def shipped_worlds() -> list[str]:
    """Names of the worlds that came with minisora."""
    return sorted(about.parent.name for about in WORLDS.glob(f"*/{ABOUT}"))


def find_world(folder: str | Path) -> Path:
    """A folder, or else the shipped world of that name."""
    path = Path(folder)
    return WORLDS / path if not path.exists() and str(path) in shipped_worlds() else path


def learned_beside(world: Path) -> Path:
    """Where a planner's cost and policies of a world are kept: in its folder, of a shipped one in runs/NAME-plan."""
    return Path("runs") / f"{world}-plan" if find_world(world) != world else world


def export_world(world: Path, out: Path, scores: Path | None = None) -> float:
    """Write a world in half precision with a card, to pass on.

    Args:
        world: its folder.
        out: the new folder, put in place whole; an earlier export in it is replaced.
        scores: JSON of `minisora world evaluate` on this world, for the card.

    Returns:
        Its size in MiB.

    Raises:
        UserError: the world or the scores cannot be read, or `out` holds other things or cannot be written.
    """
    # What reads a world takes seconds to load.
    from safetensors import SafetensorError

    from minisora.worlds.dream import load_dream

    target = out.resolve()
    _check_export(find_world(world).resolve(), out, target)
    rows = [] if scores is None else _read_scores(scores)
    dream = load_dream(world, "cpu")
    size = 0.0

    def write(folder: Path) -> None:
        nonlocal size
        dream.half().save_pretrained(folder)
        if dream.code_names is not None:
            dream.code_names.write(folder / NAMES)
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 2**20
        write_whole(folder / _CARD, _card(dream, target.name, size, rows))

    try:
        replace_folder(target, write)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot write {out}: {reason}; free space or choose another --out") from error
    return size


def _check_export(world: Path, out: Path, target: Path) -> None:
    """Refuse to replace anything but an earlier export; `world` and `target` are resolved, `out` is as typed."""
    if world.is_relative_to(target) or target.is_relative_to(world):
        raise UserError(f"--out {out} and the world {world} lie in each other: choose another folder")
    if Path.cwd().is_relative_to(target):
        raise UserError(
            f"--out {out} is where you are: name a folder for the export, such as {out / 'small'}"
        )
    if not target.exists():
        return
    held = {item.name for item in target.iterdir()} if target.is_dir() else {target.name}
    # A trained world has no card.
    known = {ABOUT, NAMES, STARTS, _CARD, SUMS, *_PARTS}
    if held and (not {ABOUT, _CARD} <= held or held - known):
        first = min(held - known, default=min(held))
        raise UserError(f"{out} holds '{first}' and is no earlier export: choose an empty folder")


def _read_scores(file: Path) -> list[tuple[str, str]]:
    """Rows of the card: what was measured, and the value in words."""
    try:
        found = read_json(file)
        labels, player = found["decoding"]["labels"], found.get("player")
        count = max((each for each in labels if int(each) <= _LABELS), key=int)
        rows = [(f"buttons told by its codes, named by {count} labels", f"{labels[count]['codes']:.1%}")]
        if (shown := labels[count].get("codes_where_shown")) is not None:
            rows.append(("the same, of steps that show their button", f"{shown:.1%}"))
        rows.append(("what random codes cost the fourth frame", f"{found['delta_psnr']['delta']:.2f} dB"))
        if player is not None:
            # A quadrant in which nobody moved tells nothing.
            if told := [share for share in player["direction_right"] if share is not None]:
                rows.append(("direction right, in the worst quadrant", f"{min(told):.0%}"))
            for frames, off in player["median_error"].items():
                there = f"there in {player['player_there'][frames]:.0%}"
                where = there if off is None else f"off by {off:.1f} pixels, {there}"
                rows.append((f"its player {frames} {'frame' if frames == '1' else 'frames'} on", where))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{file} holds no scores of minisora world evaluate ({error}): make them again"
        ) from error
    return rows


def _card(dream: Any, name: str, mib: float, rows: list[tuple[str, str]]) -> str:
    """The card, Markdown."""
    height, width = dream.size
    millions = {part: sum(p.numel() for p in getattr(dream, part).parameters()) / 1e6 for part in _PARTS}
    lines = [
        "---",
        "license: mit",
        "---",
        "# A world to play: minisora dreams it",
        "",
        f"    minisora world play {shlex.quote(plain(name))} --beside",
        "",
        f"Frames of {height}x{width} at {dream.fps:g} a second, half precision, {mib:.1f} MiB. Learned from clips",
        "alone; a few labelled steps only named its codes.",
        "",
        *(f"- {part}: {number:.2f} M parameters" for part, number in millions.items()),
    ]
    if rows:
        lines += ["", "| measured on clips of another seed | |", "| --- | ---: |"]
        lines += [f"| {what} | {value} |" for what, value in rows]
    return "\n".join([*lines, ""])
