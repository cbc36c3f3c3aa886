"""A training that learns nothing, in place of minisora's commands: what queue, server and page are tested with.

    python tests/studio/fake_trainer.py LOCK train --out RUN --minutes M [--config FILE | --data DIR] [--set KEY=VALUE]
    python tests/studio/fake_trainer.py LOCK world train ...
    python tests/studio/fake_trainer.py LOCK world record arena --clips N --out RECORDING
    python tests/studio/fake_trainer.py LOCK world name --world WORLD --recording RECORDING

It writes what a run has, a step every FAKE_SECONDS; it saves and ends at SIGTERM or when its input closes, and goes on
where it was. A data folder whose name has "fail" in it fails.
"""

import argparse
import json
import math
import os
import signal
import sys
import threading
import time
from pathlib import Path

import av
import numpy as np
from filelock import FileLock

STEPS = {"train": {"vae": 40, "dit": 60}, "world train": {"vae": 10, "actions": 20, "dynamics": 30}}


def write(run: Path, kind: str, number: int, step: int) -> None:
    """A clip of what the run does."""
    file = run / "page" / kind / f"{number:02d}.mp4"
    file.parent.mkdir(parents=True, exist_ok=True)
    wide = 64 if kind == "samples" else 192
    with av.open(str(file), "w") as container:
        stream = container.add_stream("libx264", rate=8)
        stream.height, stream.width, stream.pix_fmt = 64, wide, "yuv420p"
        for t in range(9):
            frame = np.full((64, wide, 3), 240, np.uint8)
            frame[20:36, 4 * t : 4 * t + 16] = (200, 40 + 2 * step % 200, 40)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("lock")
    parser.add_argument("command", nargs="+")
    for name in ("--out", "--data", "--config", "--set", "--world", "--recording"):
        parser.add_argument(name, action="append")
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--clips", type=int)
    asked = parser.parse_args()
    command = " ".join(asked.command)
    if command == "world record arena":
        for name in ("clips", "truth"):
            (Path(asked.out[0]) / name).mkdir(parents=True)
        print(f"{asked.clips} clips of the arena", flush=True)
        return
    if command == "world name":
        assert (Path(asked.recording[0]) / "truth").is_dir()
        (Path(asked.world[0]) / "names.json").write_text("{}")
        print("code 0  noop", flush=True)
        return
    planned = STEPS[command]
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())

    def tied() -> None:
        while os.read(0, 1):
            pass
        stop.set()

    threading.Thread(target=tied, daemon=True).start()
    run = Path(asked.out[0])
    if asked.data and "fail" in asked.data[0]:
        print("error: 1 minutes are too few on this machine: give --minutes 11", file=sys.stderr)
        sys.exit(2)
    Path(asked.lock).parent.mkdir(exist_ok=True)
    with FileLock(asked.lock):
        run.mkdir(parents=True, exist_ok=True)
        print("Plan for some minutes", flush=True)
        plan = {"minutes": asked.minutes, "device": "a processor that is not there", "encoding": 2.0, "taken": 0.0,
                "dit": {"width": 128, "depth": 6, "heads": 4}, "sizes": [], "expected_loss": 0.412,
                "stages": {name: {"steps": steps, "seconds": 30.0, "step_seconds": 0.125}
                           for name, steps in planned.items()}}  # fmt: skip
        began = time.monotonic()
        if (run / "plan.json").is_file():
            plan = json.loads((run / "plan.json").read_text())
        (run / "plan.json").write_text(json.dumps(plan))
        (run / "config.yaml").write_text(json.dumps({"sets": asked.set, "data": asked.data}))
        metrics = run / "metrics.jsonl"
        done = [json.loads(line) for line in metrics.read_text().splitlines()] if metrics.is_file() else []
        places = [(stage, step) for stage, steps in planned.items() for step in range(1, steps + 1)]
        known = {(row["stage"], row["step"]) for row in done}
        shown: dict[str, object] = {}
        for stage, step in places:
            if (stage, step) in known:
                continue
            time.sleep(float(os.environ.get("FAKE_SECONDS", "0.01")))
            row = {
                "stage": stage,
                "step": step,
                "loss": 2 * math.exp(-step / 12) + 0.3 + 0.05 * math.sin(step),
            }
            if command == "train" and step % 10 == 0:
                row |= {"val_loss": 2 * math.exp(-step / 12) + 0.4}
                row |= {"val_psnr": 20 + step / 4, "val_psnr_moving": 15 + step / 5} if stage == "vae" else {}
                kind = "reconstructions" if stage == "vae" else "samples"
                for number in range(4):
                    write(run, kind, number, step)
                clips = [{"caption": f"a <b>red</b> square moving right {n}", "psnr": 28.1, "psnr_moving": 21.5}
                         for n in range(4)]  # fmt: skip
                shown[kind] = {"step": step, "clips": clips}
                (run / "page" / "shown.json").write_text(json.dumps(shown))
                (run / "index.html").write_text(
                    '<!doctype html><meta charset="utf-8">\n<meta http-equiv="refresh" content="60">\n'
                    "<title>run</title><h1>What it learned</h1><script>document.title = 'it ran'</script>"
                )
                print(f"{stage} step {step}/{planned[stage]}  val_loss {row['val_loss']:.3f}", flush=True)
            with metrics.open("a") as file:
                file.write(json.dumps(row) + "\n")
            if stop.is_set():
                plan["taken"] += time.monotonic() - began
                (run / "plan.json").write_text(json.dumps(plan))
                print(f"{stage} step {step}  interrupted: it is saved", flush=True)
                sys.exit(130)
        if command == "world train":
            (run / "world").mkdir(exist_ok=True)
            about = {"height": 64, "width": 64, "fps": 10, "steps": 2}
            (run / "world" / "world.json").write_text(json.dumps(about))
            return
        (run / "model").mkdir(exist_ok=True)
        (run / "model" / "model_index.json").write_text("{}")
        print("Model is there", flush=True)


if __name__ == "__main__":
    main()
