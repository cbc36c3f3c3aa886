"""A studio in a process of its own, and requests to it: for the benchmarks of the studio."""

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

FAKE = Path(__file__).resolve().parents[1] / "tests" / "studio" / "fake_engine.py"
_SERVER = """
import sys
from pathlib import Path
from minisora.studio.run_studio import run_studio
worker = {{}} if {real} else {{"worker": [sys.executable, {fake!r}]}}
run_studio(["toy"], Path(sys.argv[1]), None, 0, lambda address: print(address, flush=True), **worker)
"""
ASKED = {
    "model": "toy",
    "prompt": "a red circle moving left",
    "frames": 9,
    "height": 64,
    "width": 64,
    "guidance": 3,
}


class Studio:
    """One that runs until `close`, or until it is killed.

    Args:
        home: its folder.
        real: with the shipped model; else with the engine of the tests, which needs no torch.
        step_seconds: of that engine.
    """

    def __init__(self, home: Path, real: bool = False, step_seconds: float = 0.02):
        self.home = home
        self.process = subprocess.Popen(
            [sys.executable, "-c", _SERVER.format(real=real, fake=str(FAKE)), str(home)],
            stdout=subprocess.PIPE, text=True, env={**os.environ, "FAKE_SECONDS": str(step_seconds)},
        )  # fmt: skip
        assert self.process.stdout is not None
        address = urlsplit(self.process.stdout.readline().strip())
        self.port = int(address.port or 0)
        self.token = parse_qs(address.query)["token"][0]
        self.wait(lambda: self.ask("GET", "/api/state")[1]["models"], "the model is read")

    def headers(self) -> dict[str, str]:
        """Of a request that passes the guard."""
        return {
            "Host": f"127.0.0.1:{self.port}", "Origin": f"http://127.0.0.1:{self.port}",
            "Authorization": f"Bearer {self.token}", "Content-Type": "application/json",
        }  # fmt: skip

    def ask(
        self, method: str, path: str, value: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, Any]:
        """Status and JSON (or bytes) of an answer; bytes are sent as they are."""
        body = value if isinstance(value, bytes) else b"" if value is None else json.dumps(value).encode()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, text in (self.headers() if headers is None else headers).items():
                connection.putheader(name, text)
            if body or method != "GET":
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body or None)
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        with suppress(ValueError):
            return answer.status, json.loads(content)
        return answer.status, content

    def worker(self) -> int | None:
        """The process of the worker, if there is one."""
        import psutil

        with suppress(psutil.Error):
            for child in psutil.Process(self.process.pid).children():
                return int(child.pid)
        return None

    def kill(self, what: str) -> None:
        """End "server", "worker" or "both" by a signal that cannot be caught."""
        worker = self.worker()
        if what in ("worker", "both") and worker is not None:
            with suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)
        if what in ("server", "both"):
            self.process.kill()
            self.process.wait(30)

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(30)

    @staticmethod
    def wait(check: Any, what: str, seconds: float = 300) -> Any:
        deadline = time.monotonic() + seconds
        while True:
            with suppress(OSError, http.client.HTTPException):
                if value := check():
                    return value
            if time.monotonic() > deadline:
                raise TimeoutError(f"waited {seconds:g} s for: {what}")
            time.sleep(0.05)


class Watcher:
    """A page that follows the events, in a thread: `seen` has the clips that it was told of."""

    def __init__(self, studio: Studio, after: int = 0):
        self.seen: list[int] = []
        self.jobs: dict[int, dict[str, Any]] = {}
        self.events = self.anew = 0
        self.error: str | None = None
        self._studio, self._after, self._end = studio, after, False
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def _follow(self) -> None:
        try:
            for name, value in self._read():
                self.events += 1
                self.anew += name == "anew"
                self.seen += [clip["id"] for clip in value.get("clips", [])]
                self.jobs |= {job["id"]: job for job in value.get("jobs", [])}
                if self._end:
                    return
        except (OSError, http.client.HTTPException) as error:
            if not self._end:
                self.error = f"{type(error).__name__}: {error}"

    def _read(self) -> Iterator[tuple[str, dict[str, Any]]]:
        connection = http.client.HTTPConnection("127.0.0.1", self._studio.port, timeout=60)
        connection.request("GET", f"/api/events?after={self._after}", headers=self._studio.headers())
        answer, name = connection.getresponse(), "message"
        while line := answer.readline().decode().rstrip("\n"):
            # Events are lines with an empty one behind them.
            lines = [line]
            while line := answer.readline().decode().rstrip("\n"):
                lines.append(line)
            fields = dict(each.split(": ", 1) for each in lines if ": " in each)
            name = fields.get("event", "message")
            if "data" in fields:
                yield name, json.loads(fields["data"])

    def close(self) -> None:
        self._end = True


def shares(values: Sequence[float]) -> dict[str, float]:
    """The middle, the 99th of a hundred and the largest of some values."""
    ordered = sorted(values)

    def at(share: float) -> float:
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    return {"p50": at(0.5), "p99": at(0.99), "max": ordered[-1]}
