"""Look at a folder of clips for the page that asks, as `minisora data check` does, in a process that decodes apart.

    python -m minisora.studio.doctor_check FOLDER videos|world

Lines of JSON on standard output: {"done": 3, "total": 12} now and then, then {"found": {...}} or {"error": "..."}.
It ends when its standard input closes.
"""

import io
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from minisora.config import Config, load
from minisora.data.folder.doctor import DoctorReport, check
from minisora.data.folder.suggest import suggest
from minisora.errors import UserError
from minisora.screen import plain
from minisora.studio.training_job import VIDEOS, WORLD
from minisora.studio.worker import end_with_server

# Of what is to be learned: what is trained unless a config is named.
CONFIGS = {VIDEOS: "clips", WORLD: "world"}
# A world is learned from what follows, in frames of one size.
_SHORTEST = 3
# Seconds between two words on how far it is.
_TELL = 0.2
# Names of a kind that a page shows, and letters of a line.
_MOST_NAMES, _WIDTH = 8, 84
_NICE = 10


def look(folder: Path, learns: str, tell: Any) -> dict[str, Any]:
    """What the doctor says, by the usual config and, where it suggests another clip, by that.

    Args:
        folder: of the clips.
        learns: "videos" or "world".
        tell: called with (files done, files in all).

    Raises:
        UserError: the folder cannot be read or holds no video.
    """
    own = _config(folder, learns)
    report = check(folder, own, tell)
    found: dict[str, Any] = {"clips": said(report), "suggested": None, "reasons": "", "sets": {}}
    try:
        reasons = suggest(report.scan, own)
    except UserError:
        # No file can be used, which the report says.
        return found
    sets = settings(reasons)
    if learns == WORLD:
        if sets["clip.frames"] < _SHORTEST:
            return found
        sets = {key: value for key, value in sets.items() if not key.startswith("data.buckets")}
    suggested = _config(folder, learns, sets)
    if (suggested.clip, suggested.data.model_dump()) != (own.clip, own.data.model_dump()):
        found |= {
            "suggested": said(check(folder, suggested, tell)),
            "reasons": "\n".join(reasons.splitlines()[1:]),
            "sets": sets,
        }
    return found


def said(report: DoctorReport) -> dict[str, Any]:
    """A report as a page shows it: a verdict, numbers, and the doctor's own words."""
    words = io.StringIO()
    report.print(Console(file=words, width=_WIDTH, color_system=None))
    clip = report.config.clip
    dropped = [f"{plain(file.name)}: {plain(file.dropped or '')}" for file in report.scan.dropped]
    return {
        "usable": report.usable,
        "files": len(report.scan.files),
        "kept": len(report.scan.kept),
        "clip": {"frames": clip.frames, "height": clip.height, "width": clip.width, "fps": clip.fps},
        "seconds": [report.seconds[0], report.seconds[-1]] if report.seconds else [],
        "without_caption": sum(not file.caption for file in report.scan.kept),
        "dropped": dropped[:_MOST_NAMES],
        "num_dropped": len(dropped),
        "words": words.getvalue(),
    }


def settings(suggestion: str) -> dict[str, Any]:
    """What a suggested config sets, by key."""
    sections = yaml.safe_load(suggestion)
    return {
        f"{section}.{key}": value for section, values in sections.items() for key, value in values.items()
    }


def _config(folder: Path, learns: str, sets: dict[str, Any] | None = None) -> Config:
    overrides = [f"{key}={json.dumps(value)}" for key, value in (sets or {}).items()]
    return load(CONFIGS[learns], overrides, {"data.source": "folder", "data.path": folder})


def main(arguments: list[str]) -> None:
    """Look at a folder and say what is there."""
    end_with_server()
    # What a person watches goes first.
    os.nice(_NICE)
    told = 0.0

    def tell(done: int, total: int) -> None:
        nonlocal told
        if time.monotonic() - told >= _TELL:
            told = time.monotonic()
            _say({"done": done, "total": total})

    try:
        folder, learns = arguments
        _say({"found": look(Path(folder), learns, tell)})
    except UserError as error:
        _say({"error": str(error)})


def _say(value: dict[str, Any]) -> None:
    print(json.dumps(value), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
