"""What a page shows of a run, read from its folder: how far it is, its curves, its plan and its clips. Without torch.

Whatever lies in the folder may be damaged or written by others: what is no number, no text or no file is left out.
"""

import time
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from minisora.files import read_object
from minisora.limits import MAX_MINUTES
from minisora.run_metrics import number, read_metrics
from minisora.studio.folders import Folders, run_id
from minisora.studio.own_models import own_names
from minisora.studio.training_job import RECORDING, VIDEOS, WORLD, log_tail, spent_before, training_file

# Points of a curve: more than a page shows of it.
POINTS = 240
# Kinds of clips that a run keeps of what it does (`minisora.demo.shown_clips`), and how many of each are shown.
SHOWN, MOST_SHOWN = ("samples", "reconstructions"), 12
# Seconds within which a file that another command writes was written to.
_FRESH = 60.0
# Seconds that a run is listed which failed before it wrote anything.
_NEWS = 86_400.0
# Of a stage, what a person looks at.
_CURVES = ("loss", "psnr", "psnr_moving", "ssim")
# Stages of a plan of minutes, by what is learned in them.
_STAGES_OF = {VIDEOS: {"vae", "dit"}, WORLD: {"vae", "actions", "dynamics"}}
_MOST_TEXT = 2000


def list_runs(folders: Folders, home: Path, jobs: Mapping[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Every run of the folder and every one that was asked for, the last first.

    Args:
        folders: what was named.
        home: of the studio.
        jobs: the last job of each run that was trained here, by name.
    """
    own = own_names(home)
    there = [name for name in folders.run_names() if _is_run(folders.run(name))]
    rows = []
    for name in dict.fromkeys([*there, *jobs]):
        job = jobs.get(name)
        if name not in there and job is not None and not _is_news(job):
            # Nothing is left of it: it was stopped before it began, or its folder was removed.
            continue
        rows.append(_row(name, folders.run(name), job, own))
    return sorted(rows, key=lambda row: row["changed"], reverse=True)


def run_facts(folders: Folders, home: Path, name: str, job: dict[str, Any] | None) -> dict[str, Any]:
    """All that is shown of one run.

    Args:
        folders: what was named.
        home: of the studio.
        name: of the run.
        job: its last job here; None: it has none.
    """
    run = folders.run(name)
    plan = _plan(run)
    return {
        **_row(name, run, job, own_names(home)),
        "curves": curves(run),
        "plan": plan,
        "shown": {kind: _shown(run, kind) for kind in SHOWN},
        "log": log_tail(training_file(home, name, ".log"), most=4000),
        "checked": training_file(home, name, ".json").is_file(),
        "device": _text(read_object(run / "plan.json").get("device")),
    }


def can_go_on(run: Path) -> tuple[str, float] | None:
    """What a run learns, and the minutes that its command goes on with; None: it has no such plan, or it is done."""
    plan = _plan(run)
    if plan is None or _is_whole(run) or not (run / "config.yaml").is_file():
        return None
    learned = _learned(plan)
    return None if learned is None else (learned, plan["minutes"])


def _learned(plan: Mapping[str, Any]) -> str | None:
    """What is learned by a plan; None: by neither of the commands that plan so."""
    stages = {stage["name"] for stage in plan["stages"]}
    return next((learned for learned, each in _STAGES_OF.items() if each == stages), None)


def curves(run: Path) -> dict[str, dict[str, list[list[float]]]]:
    """Of each stage the numbers that are drawn, by name: [step, value] each, `POINTS` at most; "val_": held out."""
    file = run / "metrics.jsonl"
    try:
        about = file.stat()
    except OSError:
        return {}
    return _curves(str(file), about.st_mtime_ns, about.st_size)


@lru_cache(maxsize=64)
def _curves(file: str, changed: int, size: int) -> dict[str, dict[str, list[list[float]]]]:
    found: dict[str, dict[str, list[list[float]]]] = {}
    try:
        records = read_metrics(Path(file))
    except OSError:
        return {}
    for record in records:
        stage, step = record["stage"], number(record["step"])
        if not isinstance(stage, str) or step is None:
            continue
        for name in (*_CURVES, *(f"val_{name}" for name in _CURVES)):
            if (value := number(record.get(name))) is not None:
                found.setdefault(stage[:40], {}).setdefault(name, []).append([step, value])
    return {
        stage: {name: _thinned(points) for name, points in by_name.items()}
        for stage, by_name in found.items()
    }


def _thinned(points: Sequence[list[float]]) -> list[list[float]]:
    """At most `POINTS` points: means of as many neighbours as it takes, at the last step of these."""
    size = -(-len(points) // POINTS)
    parts = [points[start : start + size] for start in range(0, len(points), size)]
    return [[part[-1][0], sum(value for _, value in part) / len(part)] for part in parts]


def _row(name: str, run: Path, job: dict[str, Any] | None, own: Mapping[str, str]) -> dict[str, Any]:
    plan = _plan(run)
    drawn = curves(run)
    steps = {stage: max(each[-1][0] for each in of_stage.values()) for stage, of_stage in drawn.items()}
    stage = list(drawn)[-1] if drawn else None
    planned = {each["name"]: each["steps"] for each in plan["stages"]} if plan else {}
    seconds = 60 * plan["minutes"] if plan else job["steps"] if job else None
    changed = _changed(run)
    open_ = job is not None and job["state"] in ("queued", "running")
    return {
        "id": run_id(name),
        "name": name,
        "state": _state(run, job, changed),
        "error": None if job is None else job["error"],
        "job": job["id"] if job is not None and open_ else None,
        "learns": (plan and _learned(plan)) or (job and job["request"].get("learns")) or VIDEOS,
        "stage": stage,
        "step": steps[stage] if stage is not None else None,
        "steps": planned.get(stage or ""),
        "seconds": seconds,
        "spent": job["step"] if job is not None and job["state"] == "running" else spent_before(run),
        "changed": max(changed, job["asked"] if job is not None else 0.0),
        "page": (run / "index.html").is_file(),
        "model": (run / "model" / "model_index.json").is_file(),
        # The name by which videos are made with it.
        "offered": own.get(name),
        "world": (run / "world" / "world.json").is_file(),
        # The same request again, or the command by the run's own plan.
        "goes_on": not open_ and not _is_whole(run) and (job is not None or can_go_on(run) is not None),
    }


def _is_news(job: Mapping[str, Any]) -> bool:
    """Whether a job is open, or has failed of late."""
    failed = job["state"] == "failed" and time.time() - (job["finished"] or 0.0) < _NEWS
    return failed or job["state"] in ("queued", "running")


def _state(run: Path, job: dict[str, Any] | None, changed: float) -> str:
    """queued, running, failed, done, stopped, or elsewhere: another command is at it."""
    if job is not None and job["state"] in ("queued", "running"):
        return str(job["state"])
    if _is_whole(run):
        return "done"
    if time.time() - changed < _FRESH and changed > (job["finished"] or 0.0 if job is not None else 0.0) + 1:
        return "elsewhere"
    return "failed" if job is not None and job["state"] == "failed" else "stopped"


def _is_whole(run: Path) -> bool:
    """Whether nothing is left to do: there is a model, or a world whose codes are named where its recording can."""
    if (run / "model" / "model_index.json").is_file():
        return True
    world = run / "world"
    is_named = (world / "names.json").is_file() or not (run / RECORDING / "truth").is_dir()
    return (world / "world.json").is_file() and is_named


def _is_run(run: Path) -> bool:
    # One that was stopped while its clips were recorded has these alone.
    files = ("config.yaml", "plan.json", "metrics.jsonl", f"{RECORDING}/clips")
    return any((run / file).exists() for file in files)


def _changed(run: Path) -> float:
    """When a run was last written to, seconds since 1970; 0.0: never."""
    found = 0.0
    for name in ("metrics.jsonl", "plan.json", "config.yaml"):
        try:
            found = max(found, (run / name).stat().st_mtime)
        except OSError:
            continue
    return found


def _plan(run: Path) -> dict[str, Any] | None:
    """Minutes, stages and what is expected of a run's plan; None where it has none."""
    plan = read_object(run / "plan.json")
    minutes, stages = number(plan.get("minutes")), plan.get("stages")
    if minutes is None or not 0 < minutes <= MAX_MINUTES or not isinstance(stages, dict):
        return None
    rows = []
    for name, stage in stages.items():
        about = stage if isinstance(stage, dict) else {}
        numbers = {key: number(about.get(key)) for key in ("steps", "seconds", "step_seconds")}
        rows.append({"name": str(name)[:40], **numbers})
    dit = plan.get("dit")
    size = {k: v for k in ("width", "depth", "heads") if isinstance(dit, dict) and (v := number(dit.get(k)))}
    return {
        "minutes": minutes,
        "stages": rows,
        "encoding": number(plan.get("encoding")),
        "size": size,
        "expected_loss": number(plan.get("expected_loss")),
    }


def _shown(run: Path, kind: str) -> dict[str, Any]:
    """Captions, numbers and time of the clips that a run keeps of a kind."""
    part = read_object(run / "page" / "shown.json").get(kind)
    clips = part.get("clips") if isinstance(part, dict) else None
    if not isinstance(part, dict) or not isinstance(clips, list):
        return {"step": None, "clips": []}
    found = []
    for place, clip in enumerate(clips[:MOST_SHOWN]):
        try:
            made = shown_file(run, kind, place).stat().st_mtime
        except OSError:
            continue
        about = clip if isinstance(clip, dict) else {}
        found.append(
            {
                "number": place,
                "made": made,
                "caption": _text(about.get("caption")),
                "nearest": _text(about.get("nearest")),
                "psnr": number(about.get("psnr")),
                "psnr_moving": number(about.get("psnr_moving")),
            }
        )
    return {"step": number(part.get("step")), "clips": found}


def shown_captions(run: Path) -> list[str]:
    """Captions of what a run shows of what it makes."""
    return [clip["caption"] for clip in _shown(run, "samples")["clips"] if clip["caption"]]


def shown_file(run: Path, kind: str, place: int) -> Path:
    """Where a clip that a run keeps of what it does lies."""
    return run / "page" / kind / f"{place:02d}.mp4"


def _text(value: Any) -> str:
    return value[:_MOST_TEXT] if isinstance(value, str) else ""
