"""A headless Chromium, driven by its own protocol over a websocket: enough to type, press and look."""

import base64
import json
import shutil
import subprocess
import time
from contextlib import suppress
from inspect import signature
from pathlib import Path
from typing import Any

from processes import ENDS, end_all

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find_chromium() -> str | None:
    """The program, if this machine has one."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


# Seconds for one answer of the browser, or for what a page shall become.
_PATIENCE = 120.0


class Browser:
    """One page. `errors` has what its scripts complained of.

    Args:
        profile: an empty folder.
    """

    def __init__(self, profile: Path):
        program = find_chromium()
        assert program is not None
        self.errors: list[str] = []
        self._number = 0
        self._process = subprocess.Popen(
            [program, "--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0",
             "--disable-dev-shm-usage", f"--user-data-dir={profile}", "--no-first-run", "--disable-extensions",
             "about:blank"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True, text=True,
        )  # fmt: skip
        try:
            self._attach(profile / "DevToolsActivePort")
        except BaseException:
            # Nobody closes what was never there.
            end_all(self._process)
            raise

    def _attach(self, port_file: Path) -> None:
        """Wait until it listens, and open a page."""
        import websockets.sync.client

        self.wait(lambda: port_file.is_file() and port_file.read_text().count("\n") >= 1, "Chromium starts")
        port, path = port_file.read_text().split("\n")[:2]
        connect = websockets.sync.client.connect
        # A browser that answers late, or whose events nobody reads for a while, is not gone. Before version 15 none was
        # asked whether it is.
        no_pings = {"ping_interval": None} if "ping_interval" in signature(connect).parameters else {}
        self._socket = connect(
            f"ws://127.0.0.1:{port}{path}", max_size=1 << 26, open_timeout=_PATIENCE, **no_pings
        )
        target = self._send("Target.createTarget", {"url": "about:blank"})["targetId"]
        self._session = self._send("Target.attachToTarget", {"targetId": target, "flatten": True})[
            "sessionId"
        ]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()
        self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(ENDS)
        end_all(self._process)

    def call(self, method: str, **parameters: Any) -> Any:
        """A command of the protocol, to the page."""
        return self._send(method, parameters, self._session)

    def _send(self, method: str, parameters: dict[str, Any], session: str | None = None) -> Any:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        self._socket.send(json.dumps(message if session is None else {**message, "sessionId": session}))
        deadline = time.monotonic() + _PATIENCE
        # What happens meanwhile comes by the same way, and may never pause.
        while (left := deadline - time.monotonic()) > 0:
            answer = json.loads(self._socket.recv(timeout=left))
            if answer.get("method") == "Runtime.exceptionThrown":
                self.errors.append(
                    str(answer["params"]["exceptionDetails"].get("exception", {}).get("description"))
                )
            if answer.get("method") == "Log.entryAdded" and answer["params"]["entry"]["level"] == "error":
                self.errors.append(answer["params"]["entry"]["text"])
            if answer.get("id") == self._number:
                assert "error" not in answer, (method, answer)
                return answer["result"]
        raise TimeoutError(f"no answer to {method} in {_PATIENCE:g} s")

    def open(self, address: str) -> None:
        self.call("Page.navigate", url=address)

    def run(self, script: str) -> Any:
        """The value of an expression in the page."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, (script, found["exceptionDetails"])
        return found["result"].get("value")

    def until(self, script: str) -> Any:
        """Wait for an expression to become true; its value."""
        return self.wait(lambda: self.run(script), script)

    @staticmethod
    def wait(check: Any, what: str, seconds: float = _PATIENCE) -> Any:
        deadline = time.monotonic() + seconds
        while not (value := check()):
            assert time.monotonic() < deadline, f"waited for: {what}"
            time.sleep(0.05)
        return value

    def type(self, text: str) -> None:
        """Into what has the focus."""
        self.call("Input.insertText", text=text)

    def key(self, key: str) -> None:
        """Press and let go."""
        codes = {
            "Enter": 13,
            "Escape": 27,
            " ": 32,
            "ArrowLeft": 37,
            "ArrowRight": 39,
            "ArrowDown": 40,
            "Tab": 9,
        }
        about = {"key": key, "code": "Space" if key == " " else key, "windowsVirtualKeyCode": codes[key]}
        text = {" ": " ", "Enter": "\r"}.get(key)
        self.call("Input.dispatchKeyEvent", type="keyDown", **about, **({"text": text} if text else {}))
        self.call("Input.dispatchKeyEvent", type="keyUp", **about)

    def drag(self, *points: tuple[float, float]) -> None:
        """Press at the first point, go on to the others, let go."""
        for kind, (x, y) in (
            ("mousePressed", points[0]),
            *(("mouseMoved", point) for point in points[1:]),
            ("mouseReleased", points[-1]),
        ):
            buttons = 0 if kind == "mouseReleased" else 1
            self.call(
                "Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=buttons, clickCount=1
            )

    def choose_file(self, script: str, file: Path) -> None:
        """Give a file to a field, as a person chooses one."""
        found = self.call("Runtime.evaluate", expression=script)["result"]["objectId"]
        self.call("DOM.setFileInputFiles", files=[str(file)], objectId=found)

    def picture(self, file: Path) -> None:
        """What is seen now, as a PNG."""
        file.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))
