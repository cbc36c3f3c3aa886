"""Real tiny components shared by the tests: seconds to train, the same code paths as the large ones."""

import asyncio
import getpass
import json
import os
import signal
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Two test processes on two cores: more threads each would only fight.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# The compiler's cache takes no note of the kernels that torch is held to: code kept for another CPU does not build.
if capability := os.environ.get("ATEN_CPU_CAPABILITY"):
    cache = Path(tempfile.gettempdir()) / f"torchinductor_{getpass.getuser()}_{capability}"
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache))

import av
import numpy as np
import pytest
import torch
from rich.console import Console

from minisora.config import Config, load

torch.set_num_threads(1)

TINY = """
clip: {frames: 9, height: 32, width: 32}
data: {num_clips: 48, num_validation_clips: 8}
vae: {widths: [16, 32], blocks_per_level: 1, latent_channels: 4}
dit: {width: 48, depth: 2, heads: 2}
text: {width: 32, depth: 1, heads: 2}
train_vae: {steps: 12, batch_size: 4, crop: [5, 16, 16], warmup_steps: 2, save_every: 5, validate_every: 6,
  log_every: 1}
train_dit: {steps: 12, batch_size: 4, warmup_steps: 2, save_every: 5, validate_every: 6, log_every: 1}
sample: {steps: 4}
"""

# A shell starts its background jobs with SIGINT ignored, which Python then leaves so: the tests of Ctrl-C need it.
signal.signal(signal.SIGINT, signal.default_int_handler)


def _write_noise(path: Path, seed: int) -> None:
    """Frames that cannot be predicted, so that every part of the file is needed."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=8)
        stream.height = stream.width = 64
        stream.pix_fmt = "yuv420p"
        stream.options = {"x264-params": "keyint=2:scenecut=0"}
        for pixels in np.random.default_rng(seed).integers(0, 256, (6, 64, 64, 3), np.uint8):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))


def _damage(path: Path) -> None:
    """Zeros over the second half of the pictures: the first frame and the index stay."""
    data = bytearray(path.read_bytes())
    start = data.index(b"mdat") + 4
    size = int.from_bytes(data[start - 8 : start - 4], "big")
    first, last = start + size // 2, start + size - 100
    data[first:last] = bytes(last - first)
    path.write_bytes(data)


@pytest.fixture
def write_noise() -> Callable[[Path, int], None]:
    """Makes a video by its path and seed."""
    return _write_noise


@pytest.fixture
def noise_clips(tmp_path: Path) -> Callable[[Sequence[str]], Path]:
    """Makes a folder of such videos, 0.mp4 and so on, each with its caption beside it."""

    def make(captions: Sequence[str]) -> Path:
        folder = tmp_path / "clips"
        folder.mkdir()
        for number, caption in enumerate(captions):
            _write_noise(folder / f"{number}.mp4", number)
            (folder / f"{number}.txt").write_text(caption)
        return folder

    return make


@pytest.fixture
def damage() -> Callable[[Path], None]:
    """Spoils such a video so that a scan of a large folder does not see it."""
    return _damage


@pytest.fixture(scope="session")
def tiny_config_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "tiny.yaml"
    path.write_text(TINY)
    return path


@pytest.fixture(scope="session")
def tiny_config(tiny_config_file: Path) -> Config:
    return load(tiny_config_file)


@pytest.fixture(scope="session")
def tiny_run(tiny_config: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of both stages; tests only read it."""
    from minisora.training.stages import train_dit, train_vae

    run = tmp_path_factory.mktemp("run")
    console = Console(quiet=True)
    train_vae(tiny_config, run, console)
    train_dit(tiny_config, run, console)
    return run


@dataclass(frozen=True)
class Answer:
    """What a server's application said; of a websocket, status 101 or that of the refusal."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def _ask(
    app: Any,
    method: str,
    target: str,
    headers: Iterable[tuple[str, str]] = (),
    body: bytes | Iterable[bytes] = b"",
) -> Answer:
    """One request, given as it comes from the network: a client of HTTP would mend what tests must send broken."""
    path, _, query = target.partition("?")
    scope = {
        "type": "websocket" if method == "websocket" else "http",
        "asgi": {"version": "3.0"}, "http_version": "1.1", "scheme": "http", "root_path": "",
        "method": method, "path": path, "raw_path": path.encode(), "query_string": query.encode(),
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in headers],
        "client": ("127.0.0.1", 50000), "server": ("127.0.0.1", 8420), "subprotocols": [],
    }  # fmt: skip
    if method == "websocket":
        del scope["method"]
    parts = [body] if isinstance(body, bytes) else list(body)
    incoming: list[dict[str, Any]] = [
        {"type": "http.request", "body": part, "more_body": part is not parts[-1]} for part in parts
    ]
    incoming = [{"type": "websocket.connect"}] if method == "websocket" else incoming
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        if not incoming:
            # The other side waits for its answer.
            await asyncio.Event().wait()
        return incoming.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    first = sent[0]
    if method == "websocket":
        return Answer(101 if first["type"] == "websocket.accept" else 403, {}, b"")
    return Answer(
        first["status"],
        {name.decode(): value.decode() for name, value in first["headers"]},
        b"".join(message.get("body", b"") for message in sent[1:]),
    )


@pytest.fixture(scope="session")
def ask() -> Callable[..., Answer]:
    """Asks an ASGI application: (app, method, target, headers, body)."""
    return _ask
