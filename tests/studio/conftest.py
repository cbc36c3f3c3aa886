import asyncio
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from minisora.studio.job_store import JobStore


def request(seed: int = 0, prompt: str = "a red circle moving left", steps: int = 3) -> dict[str, Any]:
    return {
        "model": "toy", "prompt": prompt, "size": [9, 64, 64], "steps": steps, "guidance": 3.0, "seed": seed,
        "scheduler": "euler", "mode": "sample",
    }  # fmt: skip


@pytest.fixture
def asked() -> Any:
    """Makes a request: (seed, prompt, steps)."""
    return request


@pytest.fixture
def store(tmp_path: Path) -> Any:
    opened = JobStore(tmp_path / "home")
    yield opened
    opened.close()


async def _within(app: Any, method: str, path: str, value: Any = None) -> tuple[int, Any]:
    """One request within a loop that goes on, as the processes of a server need."""
    sent: list[Any] = []
    incoming = [{"type": "http.request", "body": b"" if value is None else json.dumps(value).encode()}]

    async def receive() -> Any:
        if not incoming:
            await asyncio.Event().wait()
        return incoming.pop()

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "scheme": "http", "root_path": "",
        "method": method, "path": path, "raw_path": path.encode(), "query_string": b"", "headers": [],
        "client": ("127.0.0.1", 50000), "server": ("127.0.0.1", 8420),
    }  # fmt: skip
    await app(scope, receive, send)
    body = b"".join(message.get("body", b"") for message in sent[1:])
    try:
        return sent[0]["status"], json.loads(body)
    except ValueError:
        return sent[0]["status"], body


@pytest.fixture
def within() -> Any:
    """Asks an application in the loop that runs: (app, method, path, value); gives status and JSON or bytes."""
    return _within


@pytest.fixture(scope="session")
def fake() -> ModuleType:
    """The module of the engine without torch."""
    spec = importlib.util.spec_from_file_location("fake_engine", Path(__file__).with_name("fake_engine.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["fake_engine"] = module
    spec.loader.exec_module(module)
    return module
