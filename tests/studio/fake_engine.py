"""A maker of videos without torch: what the queue, the server and the page are tested with.

    python tests/studio/fake_engine.py HOME NAME=FOLDER ...

is a worker of it. A prompt steers it: "slow" takes a long time, "fail" fails, "crash" kills the worker.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import av
import numpy as np
from filelock import FileLock
from PIL import Image

from minisora.errors import UserError
from minisora.files import whole
from minisora.pipelines.recipe import recipe_of
from minisora.studio import training_job
from minisora.studio.job_store import JobStore
from minisora.studio.worker import end_with_server, work

COLORS = {"red": (200, 40, 40), "blue": (40, 80, 210), "green": (40, 150, 60), "yellow": (220, 190, 40)}
WORDS = ["a", ",", "moving", "by", "day", "square", "circle", "triangle", "at", "night", "small", "large", "up",
         "right", "left", "down", *COLORS, "slow", "fail", "crash"]  # fmt: skip


_USUAL = {"steps": 24, "guidance": 3.0}
_GOING_ON = {"steps": 24, "guidance": 1.0}
MODES = {
    **dict.fromkeys(("animate", "loop", "connect", "keyframes", "long"), _USUAL),
    **dict.fromkeys(("extend", "prepend"), _GOING_ON), "inpaint": {**_USUAL, "resample": 6, "resample_above": 0.2},
    "restyle": {"steps": 40, "guidance": 20.0, "strength": 0.75, "noises": 4, "interval": [0.68, 1.0],
                "plain_strength": 0.7},
}  # fmt: skip


class FakeEngine:
    """Squares that cross the picture. `seconds` a step."""

    names = ["toy"]  # noqa: RUF012

    def __init__(self, seconds: float = 0.0):
        self.seconds = seconds
        self.made: list[int] = []

    def add(self, name: str, model: Path) -> None:
        assert (model / "model_index.json").is_file()
        self.names = [*self.names, name]

    def facts(self, name: str) -> dict[str, Any]:
        if name == "broken":
            raise UserError("broken is damaged: copy it again")
        return {
            "default_size": [17, 64, 64], "fps": 8.0, "steps": 24, "guidance": 3.0, "parameters": 3_790_000,
            "text": True, "sigma_shift": 2.0, "modes": MODES,
            "words": WORDS, "example": "a red circle moving left", "lengths": [1, 9, 17, 33],
            "sizes": [[64, 64], [48, 80], [80, 48], [96, 96]],
            "costs": {
                f"{frames}x{height}x{width}": {
                    name: [10**8, each * frames * height * width]
                    for name, each in (("guided", 22_000), ("plain", 11_000))
                }
                for frames in (1, 9, 17, 33) for height, width in ((64, 64), (48, 80), (80, 48), (96, 96))
            },
        }  # fmt: skip

    def make(
        self,
        request: dict[str, Any],
        parents: Any,
        video: Path,
        picture: Path,
        on_step: Callable[[int, Callable[[], bytes]], None],
    ) -> dict[str, Any]:
        if request["mode"] == "upload":
            # torch is read for it alone.
            from minisora.data.video.read_upload import read_upload

            sizes = [(64, 64), (48, 80), (80, 48)]
            looks = {"on_frames": lambda: on_step(0, lambda: None)}
            sent = read_upload(parents[0][1], request["name"], sizes, most_frames=128, fps=8.0, **looks)
            request = {**request, "size": list(sent.shape[1:])}
        recipe = recipe_of(
            {
                **request,
                "weights": "0" * 64,
                "parents": [recipe for recipe, _ in parents if recipe],
                "minisora": 1,
            }
        )
        begin, words = time.monotonic(), recipe.prompt.split()
        frames, height, width = recipe.size
        if "fail" in words:
            raise UserError("the prompt says <b>fail</b>: say something else")
        made = np.full((frames, height, width, 3), 246 if "night" not in words else 30, np.uint8)
        color = next((COLORS[word] for word in words if word in COLORS), (120, 120, 120))
        rng = np.random.default_rng(recipe.seed)
        top, side = int(rng.integers(4, height - 20)), int(rng.integers(10, 18))
        for t in range(frames):
            left = int((t / max(frames - 1, 1)) * (width - side))
            made[t, top : top + side, left : left + side] = color
        if recipe.mode == "upload":
            made = ((sent.numpy() + 1) * 127.5).round().astype(np.uint8).transpose(1, 2, 3, 0)
        noise = rng.integers(0, 255, made.shape, dtype=np.uint8)
        for step in range(1, recipe.steps + 1):
            time.sleep(20 * self.seconds if "slow" in words else self.seconds)
            share = step / recipe.steps

            def png(share: float = share) -> bytes:
                chosen = np.linspace(0, frames - 1, min(4, frames)).round().astype(int)
                mixed = (share * made[chosen] + (1 - share) * noise[chosen]).astype(np.uint8)
                file = BytesIO()
                Image.fromarray(np.concatenate(list(mixed), 1)).save(file, format="PNG")
                return file.getvalue()

            on_step(step, png)
            if "crash" in words and step > 1:
                os.kill(os.getpid(), signal.SIGKILL)
        with whole(video) as partial, av.open(str(partial), "w", format="mp4") as container:
            container.metadata["comment"] = recipe.to_text()
            stream = container.add_stream("libx264", rate=8)
            stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
            stream.codec_context.thread_count = 1
            for frame in made:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode(None))
        with whole(picture) as partial:
            Image.fromarray(made[frames // 2]).save(partial, format="PNG")
        self.made.append(recipe.seed)
        fixed, each = self.facts("toy")["costs"].get("x".join(map(str, recipe.size)), {"guided": (0, 0)})[
            "guided"
        ]
        words = f"{recipe.prompt} {recipe.name or ''} toy {recipe.seed}"
        return {
            "recipe": recipe.to_dict(), "words": words, "width": width, "height": height,
            "frames": frames, "fps": 8.0, "seconds": max(time.monotonic() - begin, 1e-3),
            "flops": float(fixed + each * recipe.steps),
        }  # fmt: skip


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_server()
    home = Path(sys.argv[1])
    FakeEngine.names = [argument.partition("=")[0] for argument in sys.argv[2:]]
    training_job.COMMAND = (sys.executable, str(Path(__file__).with_name("fake_trainer.py")))
    with FileLock(home / "worker.lock"):
        work(JobStore(home), FakeEngine(float(os.environ.get("FAKE_SECONDS", "0.02"))), threading.Event())
