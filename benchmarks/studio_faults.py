"""What the studio does under faults: killed at random moments, cancelled, and asked for what it must refuse.

    python benchmarks/studio_faults.py --json FILE

Kills and refusals with the engine of the tests (a video takes a fraction of a second, and the queue, the server and the
worker are those of the studio); cancelling with the shipped model, whose steps are real ones.
"""

import argparse
import json
import random
import socket
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from studio_client import ASKED, Studio, Watcher, shares

from minisora.data.media_kind import MOST_BYTES
from minisora.files import write_json
from minisora.flops.device import describe_device
from minisora.pipelines.recipe import read_recipe
from minisora.studio.job_store import JobStore

KILLS, JOBS_A_KILL = 20, 2
MUTATED = 100
CANCELS = 10


def kills(folder: Path, seed: int) -> dict[str, Any]:
    """Kill server, worker or both at random moments with jobs queued; what is made in the end."""
    rng, studio = random.Random(seed), Studio(folder, step_seconds=0.05)
    asked = {**ASKED, "steps": 4, "count": JOBS_A_KILL}
    numbers: list[int] = []
    what: Counter[str] = Counter()
    for kill in range(KILLS):
        numbers += studio.ask("POST", "/api/jobs", {**asked, "seed": 100 * kill})[1]["jobs"]
        # The next kill comes while something is made.
        studio.wait(partial(_running, studio), "a job runs")
        time.sleep(rng.uniform(0, 0.3))
        target = rng.choice(("server", "worker", "both"))
        what[target] += 1
        studio.kill(target)
        if target != "worker":
            studio = Studio(folder, step_seconds=0.05)
    watchers = [Watcher(studio), Watcher(studio)]
    studio.wait(lambda: not _open(studio), "all is made")
    # The worker was killed over one of them twice: it has failed with its line, and is asked for once more.
    failed = [number for number in numbers if studio.ask("GET", f"/api/clips/{number}")[0] != 200]
    tried_again = [
        number for number in failed if studio.ask("POST", f"/api/jobs/{number}/retry", {})[0] == 200
    ]
    studio.wait(lambda: not _open(studio), "what failed is made")
    time.sleep(1)
    for watcher in watchers:
        watcher.close()
    studio.close()
    store = JobStore(folder)
    clips = store.clips(limit=10**6)[1]
    files = sorted(int(file.stem) for file in store.clips_folder.glob("[0-9]*.mp4"))
    seeds = Counter(read_recipe(store.clip_file(number, ".mp4")).seed for number in files)
    asked_for = Counter((store.job(number) or {})["request"]["seed"] for number in numbers)
    lines = Counter(str((store.job(number) or {}).get("error")) for number in failed)
    store.close()
    return {
        "kills": dict(what), "jobs": len(numbers), "clips": len(clips), "files": len(files),
        "lost": (asked_for - seeds).total(), "twice": (seeds - asked_for).total(),
        "failed_and_tried_again": len(tried_again), "lines": dict(lines),
        # Two tabs that were open at the end have both been told of all that was made since.
        "tabs_agree": watchers[0].seen == watchers[1].seen,
    }  # fmt: skip


def _running(studio: Studio) -> bool:
    jobs = studio.ask("GET", "/api/state")[1]["jobs"]
    return any(job["state"] == "running" for job in jobs)


def _open(studio: Studio) -> bool:
    jobs = studio.ask("GET", "/api/state")[1]["jobs"]
    return any(job["state"] in ("queued", "running") for job in jobs)


def cancels(folder: Path) -> dict[str, Any]:
    """Cancel videos of the shipped model as they form: steps that were done after the answer, and seconds."""
    studio = Studio(folder, real=True)
    steps, seconds = [], []
    for trial in range(CANCELS):
        asked = {**ASKED, "frames": 17, "steps": 200, "seed": trial, "count": 1}
        (job,) = studio.ask("POST", "/api/jobs", asked)[1]["jobs"]

        def of(number: int = job) -> dict[str, Any]:
            return next(each for each in studio.ask("GET", "/api/state")[1]["jobs"] if each["id"] == number)

        studio.wait(lambda of=of: of()["step"] > 2, "some steps are done")
        studio.ask("POST", f"/api/jobs/{job}/cancel", {})
        begin, told = time.monotonic(), of()["step"]
        studio.wait(lambda of=of: of()["state"] == "cancelled", "it is cancelled")
        seconds.append(time.monotonic() - begin)
        steps.append(of()["step"] - told)
    studio.close()
    counts = {str(key): number for key, number in sorted(Counter(steps).items())}
    return {
        "cancels": CANCELS,
        "steps_after": counts,
        "most_steps_after": max(steps),
        "seconds": shares(seconds),
    }


def refused(folder: Path, seed: int) -> list[dict[str, Any]]:
    """Requests that must be refused, by the threat; and that the studio answers after each kind of them."""
    studio = Studio(folder)
    own, host = studio.headers(), f"127.0.0.1:{studio.port}"
    rows: list[dict[str, Any]] = []

    def without(name: str, **more: str) -> dict[str, str]:
        return {**{key: value for key, value in own.items() if key != name}, **more}

    def row(
        threat: str, asked: Sequence[tuple[str, str, Any, dict[str, str]]], wanted: Sequence[int]
    ) -> None:
        found = Counter(studio.ask(method, path, value, headers)[0] for method, path, value, headers in asked)
        alive = studio.ask("GET", "/api/state")[0] == 200
        rows.append(
            {"threat": threat, "tried": len(asked), "refused": sum(found[each] for each in wanted),
             "statuses": {str(key): number for key, number in sorted(found.items())}, "alive": alive}
        )  # fmt: skip

    job = {**ASKED, "steps": 2, "count": 1}
    names = ["evil.example", "localhost.evil.example", f"{host}.evil.example", "127.0.0.1.nip.io", "0.0.0.0", "",
             "2130706433"]  # fmt: skip
    row(
        "wrong Host, names of DNS rebinding",
        [("GET", "/api/state", None, {**own, "Host": name}) for name in names],
        [403],
    )

    def changes(header: str, values: Sequence[str]) -> list[tuple[str, str, Any, dict[str, str]]]:
        return [("POST", "/api/jobs", job, {**own, header: value}) for value in values]

    origins = ["http://evil.example", "null", "http://127.0.0.1:1", f"https://{host}", "",
               f"http://localhost:{studio.port}"]  # fmt: skip
    row("foreign Origin", changes("Origin", origins), [403])
    ways = ("POST", "PUT", "PATCH", "DELETE")
    row("no Origin", [(way, "/api/jobs", job, without("Origin")) for way in ways], [403])
    paths = [
        "/",
        "/main.js",
        "/api/state",
        "/api/events",
        "/api/clips",
        "/clips/1.mp4",
        "/api/jobs/1/preview",
    ]
    row("no token", [("GET", path, None, without("Authorization")) for path in paths], [401])
    row(
        "a wrong token",
        [("GET", path, None, {**own, "Authorization": "Bearer " + "x" * 43}) for path in paths],
        [401],
    )
    kinds = ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x",
             "application/octet-stream"]  # fmt: skip
    row("a body that a form can send, or bytes", changes("Content-Type", kinds), [415])
    site = {**own, "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}
    row("embedded by another page", [("GET", path, None, site) for path in paths], [403])
    numbers = ["../studio.sqlite", "..%2f..%2fetc%2fpasswd", "%2e%2e/studio.sqlite", "1/../../studio.sqlite", "-1",
               "1e1", "0x1", "1%00", "99999999999999999999"]  # fmt: skip
    for place in ("/clips/{}.mp4", "/clips/{}.png", "/api/clips/{}", "/api/jobs/{}/preview"):
        asked = [("GET", place.format(number), None, own) for number in numbers]
        row(f"paths as an id in {place.format('ID')}", asked, [404])
    models = ("../toy", "/etc", "toy/../toy")
    row("paths as a model", [("POST", "/api/jobs", {**job, "model": model}, own) for model in models], [400])
    texts = ["<script>alert(1)</script> red", "<img src=x onerror=alert(1)> red"]
    made = [studio.ask("POST", "/api/jobs", {**job, "prompt": text})[1]["jobs"][0] for text in texts]
    studio.wait(lambda: not _open(studio), "what was asked for is made")
    kept = [studio.ask("GET", f"/api/clips/{number}")[1]["recipe"]["prompt"] for number in made]
    rows.append(
        {"threat": "markup in a prompt comes back as the same text, as JSON", "tried": len(texts),
         "refused": sum(a == b for a, b in zip(texts, kept, strict=True)), "statuses": {}, "alive": True}
    )  # fmt: skip
    bytes_ = {**own, "Content-Type": "application/octet-stream"}
    rows.append({**_oversized(studio, bytes_), "alive": studio.ask("GET", "/api/state")[0] == 200})
    rows.append(_mutated_files(studio, bytes_, seed))
    studio.close()
    return rows


def _oversized(studio: Studio, headers: dict[str, str]) -> dict[str, Any]:
    """Lengths that are too large, not said, or not kept to, as they go over the network."""
    found: Counter[str] = Counter()
    heads = [
        f"Content-Length: {MOST_BYTES + 1}",
        "Content-Length: 99999999999999",
        "Transfer-Encoding: chunked",
        "",
    ]
    for head in heads:
        lines = [f"{name}: {value}" for name, value in headers.items()] + [head] * bool(head)
        with socket.create_connection(("127.0.0.1", studio.port), 30) as connection:
            request = "POST /api/uploads?model=toy&name=x HTTP/1.1\r\n" + "\r\n".join(lines) + "\r\n\r\n"
            connection.sendall(request.encode())
            found[connection.recv(64).split(b" ")[1].decode()] += 1
    return {"threat": "an upload that is too large, or of no said length", "tried": len(heads),
            "refused": found["411"] + found["413"], "statuses": dict(sorted(found.items()))}  # fmt: skip


def _mutated_files(studio: Studio, headers: dict[str, str], seed: int) -> dict[str, Any]:
    """Damaged pictures and videos: each is refused, fails in a line, or is decoded."""
    rng, seeds = random.Random(seed), _files()
    ends: Counter[str] = Counter()
    for number in range(MUTATED):
        data = bytearray(seeds[number % len(seeds)])
        for _ in range(rng.randint(1, 20)):
            place = rng.randrange(12, len(data))
            if rng.random() < 0.7:
                data[place] = rng.randrange(256)
            else:
                data[place : place + rng.randint(1, 60)] = rng.randbytes(rng.randint(0, 60))
        status, _ = studio.ask("POST", f"/api/uploads?model=toy&name={number}", bytes(data), headers)
        ends["sent" if status == 200 else "refused at once"] += 1
    studio.wait(lambda: not _open(studio), "all were looked at")
    jobs = [job for job in studio.ask("GET", "/api/state")[1]["jobs"] if job["state"] == "failed"]
    store = JobStore(studio.home)
    ends["decoded"] = sum(clip["recipe"]["mode"] == "upload" for clip in store.clips(limit=10**6)[1])
    store.close()
    ends["a line"] = ends.pop("sent") - ends["decoded"]
    longest = max((len(job["error"]) for job in jobs), default=0)
    return {"threat": "damaged pictures and videos, decoded in the worker", "tried": MUTATED, "refused": MUTATED,
            "statuses": dict(ends), "longest_line": longest, "alive": studio.worker() is not None}  # fmt: skip


def _files() -> list[bytes]:
    import av
    import numpy as np

    pixels = np.random.default_rng(0).integers(0, 255, (12, 48, 64, 3), np.uint8)
    pictures = [Image.fromarray(each) for each in pixels]
    found = []
    for kind, more in (("PNG", {}), ("JPEG", {}), ("GIF", {"save_all": True, "append_images": pictures[1:]})):
        file = BytesIO()
        pictures[0].save(file, kind, **more)
        found.append(file.getvalue())
    file = BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=8)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        for each in pixels:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(each, format="rgb24")))
        container.mux(stream.encode(None))
    return [*found, file.getvalue()]


def main() -> None:
    """Run the parts and write what came of them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, required=True, help="write the result here")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--note", default="", help="what else ran on the machine")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        result = {
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": describe_device("cpu", torch.float32), "note": arguments.note, "seed": arguments.seed,
            "refused": refused(folder / "refused", arguments.seed),
            "kills": kills(folder / "kills", arguments.seed),
            "cancels": cancels(folder / "cancels"),
        }  # fmt: skip
    write_json(arguments.json, result)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
