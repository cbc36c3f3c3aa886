"""The studio under load: a large gallery, a long queue, and people who watch and click.

    python benchmarks/studio_load.py --minutes 10 --json FILE

A gallery of 1,000 videos (one file, linked under every number), 50 jobs in the queue, kept at that, 20 pages that
follow the events. Every click asks, as a page does, for a part of the gallery, a search, a clip, a picture or a video,
or marks a favourite; what one takes is timed from the request to the last byte. In the end every job that was
asked for must be a clip, and every page must have been told of each. The engine is that of the tests: its videos take
`--step-seconds` a step, so that what is measured is the studio and not a model.
"""

import argparse
import json
import os
import random
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import torch
from studio_client import ASKED, Studio, Watcher, shares

from minisora.files import write_json
from minisora.flops.device import describe_device
from minisora.studio.job_store import JobStore

GALLERY, QUEUED, WATCHERS = 1000, 50, 20
# Seconds between clicks: some people who click without rest.
PAUSE = 0.1


def fill(folder: Path, count: int) -> None:
    """A gallery of so many videos, as if they had been made: by the queue's own calls, the file of the first linked."""
    studio = Studio(folder)
    (first,) = studio.ask("POST", "/api/jobs", {**ASKED, "steps": 4, "count": 1})[1]["jobs"]
    studio.wait(lambda: studio.ask("GET", f"/api/clips/{first}")[0] == 200, "the first video")
    studio.close()
    store = JobStore(folder)
    clip = store.clip(first)
    assert clip is not None
    made = {key: clip[key] for key in ("recipe", "width", "height", "frames", "fps", "seconds", "flops")}
    # While no worker runs, which would take them up.
    for number in range(count - 1):
        recipe = {**clip["recipe"], "seed": number, "prompt": f"a red circle moving left {number}"}
        (job,) = store.add_jobs([{**ASKED, "seed": number, "size": [9, 64, 64]}], 4)
        for suffix in (".mp4", ".png"):
            os.link(store.clip_file(first, suffix), store.clip_file(job, suffix))
        store.finish(job, {**made, "recipe": recipe, "words": recipe["prompt"]})
    store.close()


def clicks(clips: list[int], rng: random.Random) -> dict[str, Callable[[Studio], tuple[int, Any]]]:
    """What a person does, by name."""
    clip = rng.choice(clips)
    return {
        "gallery": lambda studio: studio.ask("GET", f"/api/clips?limit=60&offset={60 * rng.randrange(17)}"),
        "search": lambda studio: studio.ask(
            "GET", f"/api/clips?limit=60&search=circle+{rng.randrange(1000)}"
        ),
        "clip": lambda studio: studio.ask("GET", f"/api/clips/{clip}"),
        "picture": lambda studio: studio.ask("GET", f"/clips/{clip}.png"),
        "video": lambda studio: studio.ask("GET", f"/clips/{clip}.mp4"),
        "favourite": lambda studio: studio.ask(
            "POST", f"/api/clips/{clip}", {"favourite": rng.random() < 0.5}
        ),
        "state": lambda studio: studio.ask("GET", "/api/state"),
    }


def load(folder: Path, minutes: float, step_seconds: float) -> dict[str, Any]:
    """Watch, click and make for so many minutes."""
    fill(folder, GALLERY)
    rng, studio = random.Random(0), Studio(folder, step_seconds=step_seconds)
    clips = [clip["id"] for clip in studio.ask("GET", "/api/clips?limit=200")[1]["clips"]]
    server = psutil.Process(studio.process.pid)
    version = studio.ask("GET", "/api/state")[1]["version"]
    watchers = [Watcher(studio, version) for _ in range(WATCHERS)]
    asked: list[int] = []
    times: dict[str, list[float]] = {}
    memory: list[float] = []
    failed = 0
    end, refill = time.monotonic() + 60 * minutes, 0.0
    while (now := time.monotonic()) < end:
        if now >= refill:
            waiting = sum(job["state"] == "queued" for job in studio.ask("GET", "/api/state")[1]["jobs"])
            while waiting < QUEUED:
                count = min(8, QUEUED - waiting)
                answer = studio.ask("POST", "/api/jobs", {**ASKED, "steps": 4, "count": count})
                asked += answer[1]["jobs"]
                waiting += count
            memory.append(server.memory_info().rss / 1e6)
            refill = now + 2
        name, click = rng.choice(sorted(clicks(clips, rng).items()))
        begin = time.monotonic()
        status, _ = click(studio)
        times.setdefault(name, []).append(1000 * (time.monotonic() - begin))
        failed += status != 200
        time.sleep(PAUSE)
    studio.wait(lambda: not _open(studio), "the rest is made", 1800)
    # The last events are told within a look of the server's.
    time.sleep(2)
    for watcher in watchers:
        watcher.close()
    worker = studio.worker()
    result = {
        "minutes": minutes, "gallery": GALLERY, "queued": QUEUED, "watchers": WATCHERS,
        "clicks": sum(map(len, times.values())), "clicks_failed": failed,
        "milliseconds": shares([each for some in times.values() for each in some]),
        "milliseconds_by_click": {name: shares(some) for name, some in sorted(times.items())},
        "server_megabytes": {"first": memory[0], "last": memory[-1], "most": max(memory)},
        "worker_megabytes": psutil.Process(worker).memory_info().rss / 1e6 if worker else None,
        **_lost(folder, asked, watchers),
    }  # fmt: skip
    studio.close()
    return result


def _open(studio: Studio) -> bool:
    jobs = studio.ask("GET", "/api/state")[1]["jobs"]
    return any(job["state"] in ("queued", "running") for job in jobs)


def _lost(folder: Path, asked: list[int], watchers: list[Watcher]) -> dict[str, Any]:
    """Of what was asked for: what is no clip, and what a page was not told of (unless it was told to begin anew)."""
    store = JobStore(folder)
    lost = [job for job in asked if store.clip(job) is None or not store.clip_file(job, ".mp4").is_file()]
    store.close()
    untold = [len(set(asked) - set(watcher.seen)) for watcher in watchers]
    return {
        "made": len(asked) - len(lost), "lost": len(lost), "untold": max(untold),
        "events": sum(watcher.events for watcher in watchers), "anew": sum(watcher.anew for watcher in watchers),
        "watchers_broken": [watcher.error for watcher in watchers if watcher.error],
    }  # fmt: skip


def main() -> None:
    """Run it and write what was measured."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--step-seconds", type=float, default=0.2)
    parser.add_argument("--json", type=Path, required=True, help="write the result here")
    parser.add_argument("--note", default="", help="what else ran on the machine")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        result = load(Path(place) / "home", arguments.minutes, arguments.step_seconds)
    about = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": describe_device("cpu", torch.float32), "note": arguments.note,
    }  # fmt: skip
    write_json(arguments.json, {**about, **result})
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
